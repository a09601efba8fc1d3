"""Fine-tuning by a metric: only what is optimised changes, and what is saved draws as it did."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import UNet2DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from adjoint import CheckpointAdjoint, DirectAdjoint
from adjoint.cli import main
from adjoint.finetune import (
    FinetuneConfig,
    OptimiseLoRA,
    OptimiseWeights,
    read_finetune_config,
    run_finetuning,
)
from adjoint.finetune.config import config_of
from adjoint.finetune.models import load_model
from adjoint.finetune.trainable import on_cap, train_weights
from samplers.checkpoint import (
    LoadOptions,
    NetworkCheckpoint,
    PipelineCheckpoint,
    Recipe,
    load_checkpoint,
    load_restoration,
    read_settings,
)
from samplers.images.inputs import read_any
from samplers.training import CHECKPOINT, LOG
from tests.tiny_checkpoints import CLASSES
from tests.tiny_tuned import as_if_tuned

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "weights": {},
    "lora": {"rank": 2, "target_modules": ["conv1", "conv2"]},
    "embedding": {"shared": True},
    "noise": {"num_images": 6},
}
EACH = pytest.mark.parametrize("what", KINDS)
RATES = {"weights": 0.01, "lora": 0.03, "embedding": 0.3, "noise": 0.1}

# ------------------------------------------------------------------------------------- rewards


def dark(images: Tensor) -> Tensor:
    return -(images + 1).square().mean((1, 2, 3))


def striped(images: Tensor, asked: Tensor) -> Tensor:
    """Dark where the first class was asked for, bright for the others."""
    wanted = torch.where(asked == 0, -1.0, 1.0).to(images)[:, None, None, None]
    return -(images - wanted).square().mean((1, 2, 3))


def whole_batch(images: Tensor) -> Tensor:
    return images.mean()


def detached(images: Tensor) -> Tensor:
    return dark(images.detach())


def endless_slope(images: Tensor) -> Tensor:
    """Finite, but for its slope."""
    return (0 * images).sum((1, 2, 3)).clamp(min=0).sqrt()


def same_for_all(images: Tensor) -> Tensor:
    return 0 * images.mean((1, 2, 3))


def own(function: object) -> str:
    return f"{__name__}:{getattr(function, '__name__')}"  # noqa: B009  an object has no such name


# -------------------------------------------------------------------------------------- configs


def tables(checkpoint: Path, output: Path, what: str = "weights", **changed: Any) -> dict[str, Any]:
    """The settings of a short run, as they would stand in a file."""
    settings: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "output": str(output),
        "optimise": {"what": what, **KINDS[what]},
        "reward": {"name": own(dark)},
        "sampling": {"steps": 2},
        "training": {
            "steps": 8,
            "batch_size": 6,
            "learning_rate": RATES[what],
            "checkpoint_every": 2,
            "precision": "no",
        },
        "previews": {"every": 0, "num_images": 4},
    }
    for name, value in changed.items():
        found = settings.get(name)
        settings[name] = {**found, **value} if isinstance(found, dict) else value
    return settings


def config(*args: Any, **kwargs: Any) -> FinetuneConfig:
    return config_of(tables(*args, **kwargs))


def written(folder: Path, settings: dict[str, Any]) -> Path:
    """The settings as a file, in TOML."""
    path = folder / "run.toml"
    path.write_text("\n".join(f"{name} = {toml(value)}" for name, value in settings.items()))
    return path


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)


def trained(folder: Path) -> list[Tensor]:
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    moments = [v for slot in state["optimizer"]["state"].values() for v in slot.values()]
    return [*state["model"].values(), *state["average"].values(), *moments]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


# ------------------------------------------------------------------------------ what is learned


@EACH
def test_the_reward_rises(what: str, places: dict[str, Path], tmp_path: Path) -> None:
    outcome = run_finetuning(config(places["digits"], tmp_path, what))
    (change,) = outcome.changes
    assert change.after > change.before
    assert all(path.exists() for path in outcome.written)
    logged = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in logged] == [*range(1, 9)]


def first_images(folder: Path) -> Tensor:
    """What a checkpoint draws, as the run's own pictures are drawn."""
    checkpoint = load_checkpoint(folder, LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    recipe = checkpoint.settle(Recipe(steps=2))
    with torch.no_grad():
        return checkpoint.draw(recipe, range(4), [i % CLASSES for i in range(4)], lambda: None)


@pytest.mark.parametrize("what", ["weights", "lora", "embedding"])
def test_what_is_saved_is_a_checkpoint_that_draws_what_was_learned(
    what: str, places: dict[str, Path], tmp_path: Path
) -> None:
    outcome = run_finetuning(config(places["digits"], tmp_path, what))
    images = first_images(tmp_path / "checkpoint")
    assert float(dark(images).mean()) == pytest.approx(outcome.changes[0].after, rel=1e-5)
    assert float(dark(first_images(places["digits"])).mean()) == pytest.approx(
        outcome.changes[0].before, rel=1e-5
    )


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    ("optimise", "learned"),
    [
        ({"what": "weights"}, ""),
        ({"what": "weights", "modules": ["mid_block", "conv_out"]}, "mid_block conv_out"),
        ({"what": "lora", "rank": 1, "target_modules": ["conv1"]}, "conv1.weight"),
        ({"what": "embedding"}, "class_embedding.weight"),
    ],
)
def test_nothing_else_changes(
    optimise: dict[str, Any], learned: str, places: dict[str, Path], tmp_path: Path
) -> None:
    settings = tables(places["digits"], tmp_path) | {"optimise": optimise}
    run_finetuning(config_of(settings))
    before, after = weights(places["digits"]), weights(tmp_path / "checkpoint")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(any(part in name for part in learned.split(" ")) for name in changed)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    if optimise["what"] == "lora":  # and only that is kept of a run
        assert all("lora_" in name for name in state)


@pytest.mark.parametrize("name", ["mid_block", "up_blocks"])
def test_modules_within_the_bundled_network_can_be_learned_alone(name: str) -> None:
    """Where what they are given needs no gradient, PyTorch 2.13 would crash in their norms."""
    network = UNet2DModel.from_pretrained(ROOT / "assets" / "digits", subfolder="unet")
    train_weights(network, OptimiseWeights(modules=(name,)))
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    output = network(x, torch.full((4,), 500), class_labels=torch.arange(4)).sample
    output.square().mean().backward()
    for own, weight in network.named_parameters():
        assert (weight.grad is not None) == own.startswith(name)


def test_classes_that_are_not_asked_for_keep_their_embedding(
    places: dict[str, Path], tmp_path: Path
) -> None:
    sampling = {"labels": [1], "guidance": 2.0}
    for shared in (False, True):
        folder = tmp_path / str(shared)
        settings = tables(places["digits"], folder, "embedding", sampling=sampling)
        run_finetuning(config_of(settings | {"optimise": {"what": "embedding", "shared": shared}}))
        before, after = (
            weights(path)["class_embedding.weight"]
            for path in (places["digits"], folder / "checkpoint")
        )
        changed = (before != after).any(dim=1)
        assert changed.tolist() == [False, True, False, False]


def test_a_shared_change_is_the_same_for_all_classes(
    places: dict[str, Path], tmp_path: Path
) -> None:
    run_finetuning(config(places["digits"], tmp_path, "embedding"))
    paths = (places["digits"], tmp_path / "checkpoint")
    before, after = (weights(path)["class_embedding.weight"] for path in paths)
    changes = (after - before)[:CLASSES]
    torch.testing.assert_close(changes, changes[:1].expand_as(changes))
    assert float(changes.norm()) > 0


def test_noise_stays_on_its_sphere_and_within_reach(
    places: dict[str, Path], tmp_path: Path
) -> None:
    reach = 0.1
    run_finetuning(
        config(places["digits"], tmp_path, "noise", optimise={"max_angle": reach, "seed": 5})
    )
    noise = load_file(tmp_path / "noise.safetensors")["noise"].flatten(1)
    checkpoint = load_checkpoint(places["digits"], LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    start = checkpoint.start(checkpoint.grid(Recipe(steps=2)).start, range(5, 11)).flatten(1)
    torch.testing.assert_close(noise.norm(dim=1), start.norm(dim=1))
    angles = torch.cosine_similarity(noise.double(), start.double()).acos()
    assert float(angles.min()) > 0
    assert float(angles.max()) < reach + 1e-4
    assert float(angles.max()) > 0.99 * reach  # some would have gone farther


def test_the_cap_of_a_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    centre, x = torch.randn(2, 50, 3, 4, dtype=torch.float64, generator=generator)
    found = on_cap(x, centre, 1.0)
    cosine = torch.cosine_similarity(found.flatten(1), centre.flatten(1))
    own_cosine = torch.cosine_similarity(x.flatten(1), centre.flatten(1))
    torch.testing.assert_close(cosine, own_cosine.clamp(min=math.cos(1.0)))
    torch.testing.assert_close(found.flatten(1).norm(dim=1), centre.flatten(1).norm(dim=1))
    assert torch.equal(on_cap(centre, centre, 1.0).isfinite().all(), torch.tensor(True))
    x = centre.clone().requires_grad_()
    on_cap(x, centre, 1.0).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_the_reward_is_told_which_class_was_asked_for(
    places: dict[str, Path], tmp_path: Path
) -> None:
    reward = {"name": own(striped)}
    outcome = run_finetuning(config(places["digits"], tmp_path, "embedding", reward=reward,
                              optimise={"shared": False}))  # fmt: skip
    assert outcome.changes[0].after > outcome.changes[0].before


def test_terms_of_a_reward_are_weighted(places: dict[str, Path], tmp_path: Path) -> None:
    settings = tables(places["digits"], tmp_path)
    settings["reward"] = [{"name": own(dark), "weight": 2.0}, {"name": own(striped)}]
    outcome = run_finetuning(config_of(settings))
    assert [change.name for change in outcome.changes] == [own(dark), own(striped)]
    line = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    assert line["loss"] > 0


@pytest.mark.parametrize(
    ("adjoint", "sampler"),
    [
        ({"name": "direct"}, "dpmpp-2m"),
        ({"name": "truncated", "last": [1, 3]}, "dpmpp-2m"),
        ({"name": "checkpoint", "split": 2}, "sde-dpmpp-2m"),
        ({"name": "reversible"}, "o-belm"),
    ],
    ids=str,
)
def test_other_ways_back(
    adjoint: dict[str, Any], sampler: str, places: dict[str, Path], tmp_path: Path
) -> None:
    sampling = {"sampler": sampler, "steps": 3, "sigma_max": 50.0}
    settings = tables(places["digits"], tmp_path, sampling=sampling, adjoint=adjoint)
    outcome = run_finetuning(config_of(settings))
    assert outcome.changes[0].after > outcome.changes[0].before


def test_a_tuned_sampler(places: dict[str, Path], tmp_path: Path) -> None:
    for name in ("digits", "restoration"):
        path = tmp_path / f"{name}.json"
        as_if_tuned(read_settings(places[name]).schedule).save(path)
        settings = tables(places[name], tmp_path / name)
        settings["sampling"] = {"sampler": str(path)}
        if name == "restoration":
            settings["sampling"] |= {"images": [str(places["colours"])], "task": "rainy"}
        outcome = run_finetuning(config_of(settings))
        assert outcome.changes[0].after > outcome.changes[0].before
    settings["sampling"] |= {"steps": 4}
    with pytest.raises(ValueError, match="but a tuned sampler has its own steps"):
        run_finetuning(config_of(settings | {"output": str(tmp_path / "other")}))


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps the precision of a process, which is to be another one here."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize(
    ("adjoint", "sampler"),
    [
        ({"name": "truncated", "last": 2}, "dpmpp-2m"),
        ({"name": "checkpoint", "split": 2}, "dpmpp-2m"),
        ({"name": "reversible"}, "o-belm"),
        ({"name": "continuous"}, "dpmpp-2m"),
    ],
    ids=str,
)
def test_mixed_precision_keeps_the_gradient(
    adjoint: dict[str, Any], sampler: str, places: dict[str, Path], tmp_path: Path
) -> None:
    """The casts of weights by autocast are not those of evaluations without a graph."""
    sampling = {"sampler": sampler, "steps": 3, "sigma_max": 50.0}
    training = {"steps": 2, "precision": "bf16"}
    settings = tables(places["digits"], tmp_path, sampling=sampling, training=training)
    run_finetuning(config_of({**settings, "adjoint": adjoint}))
    before, after = weights(places["digits"]), weights(tmp_path / "checkpoint")
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_approximate_ways_may_be_taken(places: dict[str, Path], tmp_path: Path) -> None:
    for adjoint in ({"name": "continuous", "order": 2}, {"name": "backsolve"}):
        folder = tmp_path / str(adjoint["name"])
        sampling = {"steps": 3, "sigma_max": 50.0, "sigma_min": 0.1}
        run_finetuning(config(places["digits"], folder, sampling=sampling, adjoint=adjoint))


@pytest.mark.parametrize("name", ["plain", "latents"])
def test_checkpoints_that_are_asked_for_nothing(
    name: str, places: dict[str, Path], tmp_path: Path
) -> None:
    run_finetuning(config(places[name], tmp_path))
    before, after = weights(places[name]), weights(tmp_path / "checkpoint")
    for key in ("conv_in.weight", "conv_out.weight"):
        assert not torch.equal(before[key], after[key])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own
@pytest.mark.parametrize("name", ["digits", "plain", "latents"])
@pytest.mark.parametrize("penalty", ["residual", "solver-cost"])
def test_a_penalty_is_lowered_beside_the_reward(
    penalty: str, name: str, places: dict[str, Path], tmp_path: Path
) -> None:
    """The reward has no slope here, so that the penalty alone moves the network."""
    table = {"name": penalty, "weight": 1.0, "num_images": 4, "batch_size": 4}
    training = {"steps": 12, "learning_rate": 3e-3}
    run_finetuning(
        config(places[name], tmp_path, reward={"name": own(same_for_all)}, training=training,
               penalty=table)
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    logs = [math.log(line["penalty"]) for line in lines]  # they scatter with the noise level
    assert sum(logs[-6:]) < sum(logs[:6])


def test_a_tracker_gets_the_log(places: dict[str, Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_finetuning(config(places["digits"], tmp_path, training={"tracker": "tensorboard"}))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [json.loads(line)["loss"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


# ---------------------------------------------------------------------------------- adapters


def test_the_gradient_of_an_adapter_is_exact(places: dict[str, Path], tmp_path: Path) -> None:
    """That of peft's own layers, in float64."""
    found = {}
    for adjoint in (DirectAdjoint(), CheckpointAdjoint()):
        settings = config(places["digits"], tmp_path, "lora", sampling={"guidance": 7.5})
        model = load_model(settings, CPU)
        model.network.double()
        trained = model.trainable(OptimiseLoRA(2, ("conv1", "conv2")), seed=0)
        grow(trained)
        model.adjoint = adjoint  # type: ignore[attr-defined]
        images = model.sample(trained, [0, 1], torch.tensor([0, 2]), None)
        learned = [p for p in trained.parameters() if p.requires_grad]
        assert learned
        found[type(adjoint)] = torch.autograd.grad(images.square().sum(), learned)
    for one, other in zip(found[DirectAdjoint], found[CheckpointAdjoint], strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-12


def grow(trained: nn.Module) -> None:
    """An adapter begins at zero; take it away from there."""
    generator = torch.Generator().manual_seed(0)
    for name, value in trained.named_parameters():
        if "lora_" in name:
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.data = 0.1 * drawn


# --------------------------------------------------------------------------------- pipelines


PROMPTS = {"steps": 2, "prompts": ["a cat", "dogs"], "guidance": 2.0}
PIPELINE_KINDS: dict[str, dict[str, Any]] = {
    "weights": {},
    "lora": {"rank": 2, "target_modules": ["conv1", "conv2", "to_v"]},
    "embedding": {},
    "noise": {"num_images": 6},
}


@pytest.mark.parametrize("what", PIPELINE_KINDS)
def test_a_pipeline_learns(what: str, places: dict[str, Path], tmp_path: Path) -> None:
    settings = tables(
        places["prompts"], tmp_path, what, sampling=PROMPTS, previews={"num_images": 24}
    )
    settings["optimise"] = {"what": what, **PIPELINE_KINDS[what]}
    outcome = run_finetuning(config_of(settings))
    assert outcome.changes[0].after > outcome.changes[0].before
    assert all(path.exists() for path in outcome.written)


def drawn_by(folder: Path, adapter: Path | None = None, **embedding: Tensor) -> Tensor:
    """What a pipeline draws, as the pictures of a run are drawn."""
    checkpoint = load_checkpoint(folder, LoadOptions())
    assert isinstance(checkpoint, PipelineCheckpoint)
    pipe = checkpoint.pipeline
    if adapter is not None:
        pipe.load_lora_weights(adapter)
    recipe = checkpoint.settle(Recipe(steps=2, prompt="a cat", guidance=2.0))
    pipe.scheduler = checkpoint.scheduler(recipe)
    arguments = checkpoint.arguments(recipe, range(4)) | {"prompt": ["a cat", "dogs"] * 2}
    arguments |= {"prompt": None, **embedding} if embedding else {}
    with torch.no_grad():
        images: Tensor = pipe(**arguments).images
    return images * 2 - 1


def test_what_a_pipeline_learned_is_used_as_diffusers_does(
    places: dict[str, Path], tmp_path: Path
) -> None:
    after = {}
    for what in ("weights", "lora", "embedding"):
        settings = tables(places["prompts"], tmp_path / what, what, sampling=PROMPTS)
        settings["optimise"] = {"what": what, **PIPELINE_KINDS[what]}
        after[what] = run_finetuning(config_of(settings)).changes[0].after
    embeds = load_file(tmp_path / "embedding" / "embedding.safetensors")["prompt_embeds"]
    checkpoint = load_checkpoint(places["prompts"], LoadOptions())
    assert isinstance(checkpoint, PipelineCheckpoint)
    with torch.no_grad():
        _, nothing = checkpoint.pipeline.encode_prompt("a", CPU, 1, True, "")
    images = {
        "weights": drawn_by(tmp_path / "weights" / "checkpoint"),
        "lora": drawn_by(places["prompts"], adapter=tmp_path / "lora"),
        "embedding": drawn_by(
            places["prompts"],
            prompt_embeds=embeds[[0, 1, 0, 1]],
            negative_prompt_embeds=nothing.expand(4, -1, -1),
        ),
    }
    for what, expected in after.items():
        assert float(dark(images[what]).mean()) == pytest.approx(expected, rel=1e-4), what


def test_a_penalty_needs_a_network_that_draws_from_noise_alone(
    places: dict[str, Path], tmp_path: Path
) -> None:
    penalty = {"name": "residual", "weight": 1.0, "num_images": 2, "batch_size": 1}
    restoring = {"images": [str(places["colours"])], "task": "rainy"}
    for name, sampling in (("prompts", PROMPTS), ("restoration", restoring)):
        settings = tables(places[name], tmp_path, sampling=sampling, penalty=penalty)
        with pytest.raises(ValueError, match=r"omit \[penalty\]"):
            run_finetuning(config_of(settings))
    with pytest.raises(ValueError, match="fixed while noise is optimised"):
        config(places["digits"], tmp_path, "noise", penalty=penalty)


# ------------------------------------------------------------------------------- restoration


@EACH
def test_a_restoration_learns(what: str, places: dict[str, Path], tmp_path: Path) -> None:
    sampling = {"images": [str(places["colours"])], "task": "rainy"}
    settings = tables(places["restoration"], tmp_path, what, sampling=sampling)
    outcome = run_finetuning(config_of(settings))
    assert outcome.changes[0].after > outcome.changes[0].before
    if what != "noise":
        pipe = load_restoration(tmp_path / "checkpoint", LoadOptions())
        image = read_any(places["colours"]).expand(4, -1, -1, -1)
        with torch.no_grad():  # by its own sampler, as it was trained
            found = pipe.restore(image, ["rainy"] * 4, range(4), 2)
        assert float(dark(found).mean()) == pytest.approx(outcome.changes[0].after, rel=1e-5)


def test_what_a_restoration_needs_is_named(places: dict[str, Path], tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("restoration", {}, "restores images; name some by 'images'"),
        ("restoration", {"images": [str(places["colours"])]}, "No task was named"),
        ("restoration", {"images": [str(places["colours"]), str(places["grey"])]}, "of one size"),
        ("restoration", {"images": ["nowhere.png"]}, "no image at"),
        ("restoration", {"images": [str(places["grey"])], "prompts": ["a"]}, "has no 'prompts'"),
        ("restoration", {"images": [str(places["grey"])], "final": "zero"}, "has no 'final'"),
        ("digits", {"images": [str(places["grey"])]}, "restores no images"),
    ]
    for name, sampling, said in cases:
        with pytest.raises(ValueError, match=said):
            run_finetuning(config(places[name], tmp_path / said, sampling=sampling))
    # Neither a picture nor a prompt is a class, though both are told by numbers.
    reward = {"name": "class-log-probability", "network": "assets/digits-classifier"}
    restoring = {"images": [str(places["grey"])], "task": "rainy"}
    for name, sampling in (("restoration", restoring), ("prompts", PROMPTS)):
        settings = tables(places[name], tmp_path / name, sampling=sampling)
        with pytest.raises(ValueError, match="is not conditioned on classes"):
            run_finetuning(config_of({**settings, "reward": reward}))


# ---------------------------------------------------------------------------- kills, processes

KILLS = """
import multiprocessing, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from adjoint.finetune import read_finetune_config, run_finetuning

config = read_finetune_config(Path(sys.argv[1]))
context = multiprocessing.get_context("fork")  # the imports are made once


def run():
    sys.stderr = open(os.devnull, "w")
    run_finetuning(config)


whole = read_finetune_config(Path(sys.argv[1]), {"output": sys.argv[2]})
begun = time.monotonic()
job = context.Process(target=run_finetuning, args=(whole,))
job.start(); job.join()
assert job.exitcode == 0
step, moments = (time.monotonic() - begun) / config.training.steps, random.Random(0)


def logged():
    log = config.output / "log.jsonl"
    return log.read_text().count("\\n") if log.exists() else 0


for kill in range(10):
    job = context.Process(target=run)
    job.start()
    # Some steps farther, and anywhere in a step, in its writing or in the start of the process.
    goal = logged() + moments.randrange(4)
    while logged() < goal and job.is_alive():
        time.sleep(step / 20)
    time.sleep(moments.uniform(0, 2 * step))
    assert job.is_alive()  # it is killed on the way
    job.kill(); job.join()
assert 0 < logged() < config.training.steps
job = context.Process(target=run)
job.start(); job.join()
assert job.exitcode == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    ["weights", "lora", *(pytest.param(w, marks=pytest.mark.slow) for w in ("embedding", "noise"))],
)
def test_a_run_killed_at_ten_moments_ends_as_an_undisturbed_one(
    what: str, places: dict[str, Path], tmp_path: Path
) -> None:
    training = {"steps": 60, "checkpoint_every": 1, "accumulation": 2}
    settings = tables(places["digits"], tmp_path / "killed", what, training=training)
    path, script = written(tmp_path, settings), tmp_path / "kills.py"
    script.write_text(KILLS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(path), str(tmp_path / "whole")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert same(trained(tmp_path / "killed"), trained(tmp_path / "whole"))


def run_in_two(path: Path) -> None:
    """Two processes of gloo finetune by a config; the second one says nothing."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
                   "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   "PYTHONPATH": str(ROOT)}  # fmt: skip
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "adjoint.finetune", "--config", str(path)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert said[1][0] == ""  # one speaks for both


@pytest.mark.slow
def test_two_processes_lower_a_penalty(places: dict[str, Path], tmp_path: Path) -> None:
    """The reward has no slope here; each process takes the penalty at images of its own."""
    settings = tables(
        places["plain"],
        tmp_path / "two",
        reward={"name": own(same_for_all)},
        training={"steps": 12, "learning_rate": 3e-3},
        penalty={"name": "residual", "weight": 1.0, "num_images": 4, "batch_size": 4},
    )
    run_in_two(written(tmp_path, settings))
    lines = [json.loads(line) for line in (tmp_path / "two" / LOG).read_text().splitlines()]
    logs = [math.log(line["penalty"]) for line in lines]
    assert sum(logs[-6:]) < sum(logs[:6])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(places: dict[str, Path], tmp_path: Path) -> None:
    """The same draws in parts: two processes, or two parts of a batch in one."""
    settings = tables(places["digits"], tmp_path / "two", "noise", training={"steps": 3})
    path = written(tmp_path, settings)
    run_in_two(path)
    run_finetuning(read_finetune_config(path, {"output": str(tmp_path / "one")}))
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------ bad input


def sentence(capsys: pytest.CaptureFixture[str], code: int, *command: str) -> str:
    """What the command says when it ends with this code: one sentence, and no traceback."""
    capsys.readouterr()
    assert main(["finetune", *command]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line]
    said = [line for line in lines if line.startswith("adjoint: error: ")]
    assert len(said) == 1, lines
    assert not any("Traceback" in line for line in lines)
    return said[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"trainin": {}}, "has no option 'trainin'; did you mean 'training'?"),
        ({"training": {"lerning_rate": 1.0}}, "no option 'lerning_rate'; did you mean"),
        (
            {"training": {"steps": "many"}},
            "[training] has steps = 'many'; it must be a valid integer",
        ),
        ({"training": {"steps": 0}}, "steps is 0; it must be at least 1"),
        ({"training": {"tracker": "paper"}}, "no tracker 'paper'"),
        ({"training": {"batch_size": 5, "accumulation": 2}}, "make it a multiple of 2"),
        ({"optimise": {"what": "luck"}}, "what = 'luck'; it must be one of weights, lora"),
        ({"optimise": {"what": "lora", "rank": 0}}, "rank is 0"),
        (
            {"optimise": {"what": "lora", "target_modules": ["nowhere"]}},
            "No layer of the network is",
        ),
        ({"optimise": {"what": "weights", "modules": ["nowhere"]}}, "no module 'nowhere'; it has"),
        ({"optimise": {"what": "noise", "num_images": 3}}, "noise of 3 images"),
        ({"optimise": {"what": "noise", "num_images": 6, "max_angle": -1}}, "max_angle is -1"),
        ({"adjoint": {"name": "guess"}}, "name = 'guess'; it must be one of checkpoint, direct"),
        ({"adjoint": {"name": "truncated", "last": 9}}, "last is 9, but this run has 2 steps"),
        ({"adjoint": {"name": "reversible"}}, "it can't be inverted; take o-belm"),
        ({"adjoint": {"name": "checkpoint", "kep": 1}}, "no option 'kep'; did you mean 'keep'"),
        ({"sampling": {"sampler": "dpmpp-9m"}}, "no sampler named 'dpmpp-9m'"),
        ({"sampling": {"labels": [7]}}, "no class 7; the checkpoint has 0 to 2"),
        ({"sampling": {"prompts": ["a"]}}, "takes no prompt"),
        ({"sampling": {"options": {"etta": 1.0}}}, "no option 'etta'"),
        ({"reward": {"name": "pixels"}}, "did you mean 'pixel'"),
        ({"reward": {"name": "pixel", "target": "nowhere.png"}}, "no image at"),
        ({"reward": {"name": own(whole_batch)}}, "a tensor of shape [6]"),
        ({"reward": {"name": own(detached)}}, "without a gradient"),
        ({"reward": {"name": own(dark), "weight": "much"}}, "is 'much'; it must be a number"),
        ({"previews": {"num_images": 0}}, "every = 0, num_images = 0"),
        ({"penalty": {"name": "luck", "weight": 1.0}}, "it must be 'residual' or 'solver-cost'"),
        ({"penalty": {"name": "residual"}}, "lacks the option 'weight'"),
        ({"penalty": {"name": "residual", "weight": -1.0}}, "it must be positive"),
        ({"penalty": {"name": "residual", "weight": 1.0, "batch_size": 40}}, "at 40 of 32 images"),
        ({"checkpoint": 3}, "has checkpoint = 3; it must be"),
    ],
)
def test_bad_settings_end_in_one_sentence(
    changed: dict[str, Any],
    said: str,
    places: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tables(places["digits"], tmp_path / "out")
    for name, value in changed.items():
        found = settings.get(name)
        replaced = name in ("optimise", "reward") or not isinstance(found, dict)
        settings[name] = value if replaced else {**found, **value}  # type: ignore[dict-item]
    assert said in sentence(capsys, 2, "--config", str(written(tmp_path, settings)))


def test_bad_files_end_in_one_sentence(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.toml").write_text("checkpoint = ")
    good = str(written(tmp_path, tables(places["digits"], tmp_path / "out")))
    assert "is not valid TOML" in sentence(capsys, 2, "--config", str(tmp_path / "broken.toml"))
    assert "There is no config" in sentence(capsys, 2, "--config", str(tmp_path / "none.toml"))
    assert "write it as NAME=VALUE" in sentence(capsys, 2, "--config", good, "--set", "a")
    nowhere = ("--set", f"checkpoint={tmp_path}")
    assert "is not a diffusers checkpoint" in sentence(capsys, 1, "--config", good, *nowhere)
    (tmp_path / "few.toml").write_text('checkpoint = "a"')
    assert "lacks the option 'output'" in sentence(
        capsys, 2, "--config", str(tmp_path / "few.toml")
    )


def test_other_settings_are_refused_in_a_folder_with_a_run(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, tables(places["digits"], tmp_path / "out")))
    assert main(["finetune", "--config", path]) == 0
    before = trained(tmp_path / "out")
    for change in (
        "sampling.steps=3",
        "training.learning_rate=0.5",
        "optimise.modules=['conv_out']",
    ):
        name = change.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]
        said = sentence(capsys, 2, "--config", path, "--set", change)
        assert name in said
        assert "another folder" in said
    assert same(trained(tmp_path / "out"), before)
    assert main(["finetune", "--config", path, "--set", "previews.num_images=2"]) == 0


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("weights", "settings.json"),
        ("weights", "log.jsonl"),
        ("weights", "before-after.png"),
        ("weights", "curve.png"),
        ("weights", "previews/step-000000.png"),
        ("weights", "checkpoint/notes.txt"),
        ("lora", "pytorch_lora_weights.safetensors"),
        ("embedding", "embedding.safetensors"),
        ("noise", "noise.safetensors"),
    ],
)
def test_a_fresh_run_replaces_no_file(
    what: str,
    name: str,
    places: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said before the network is evaluated."""
    monkeypatch.setattr("adjoint.finetune.run.train", None)
    notes = tmp_path / "out" / name
    notes.parent.mkdir(parents=True)
    notes.write_text("notes")
    settings = tables(places["digits"], tmp_path / "out", what, previews={"every": 1})
    said = sentence(capsys, 2, "--config", str(written(tmp_path, settings)))
    first = name.partition("/")[0]
    assert f"{tmp_path / 'out' / first} exists already" in said
    assert "choose another folder, repeat the settings of its run to resume it, or pass" in said
    assert "--overwrite to replace it" in said
    assert notes.read_text() == "notes"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [notes]


def test_another_run_is_replaced_on_request(places: dict[str, Path], tmp_path: Path) -> None:
    short: dict[str, Any] = {"training": {"steps": 1, "checkpoint_every": 1, "batch_size": 2}}
    old, new = (tables(places["digits"], tmp_path / n, **short) for n in ("old", "new"))
    path = str(written(tmp_path, old))
    assert main(["finetune", "--config", path]) == 0
    other = ("--set", "training.learning_rate=0.5")
    assert main(["finetune", "--config", path, *other]) == 2
    assert main(["finetune", "--config", path, *other, "--overwrite"]) == 0
    new["training"]["learning_rate"] = 0.5
    run_finetuning(config_of(new))
    assert same(trained(tmp_path / "old"), trained(tmp_path / "new"))


def test_a_gradient_that_is_not_finite_loses_nothing(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes after six good steps, of which the last checkpoint is kept."""
    path = str(written(tmp_path, tables(places["digits"], tmp_path / "out")))
    assert main(["finetune", "--config", path, "--set", "training.steps=6"]) == 0
    kept = trained(tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    state = torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)
    state["config"]["steps"] = settings["training.steps"] = 8
    torch.save(state, tmp_path / "out" / CHECKPOINT)
    broken = {"name": own(endless_slope), "weight": 1.0, "options": {}}
    settings["rewards"] = [broken]
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
    said = sentence(capsys, 1, "--config", path, "--set", f"reward.name={own(endless_slope)}")
    assert "the norm of its gradient nan" in said
    assert "what was saved before is kept" in said
    assert same(trained(tmp_path / "out"), kept)


@pytest.mark.slow
def test_an_interruption_says_how_to_go_on(places: dict[str, Path], tmp_path: Path) -> None:
    settings = tables(places["digits"], tmp_path / "out", training={"steps": 5000})
    # A shell may have started the tests with the signal ignored, which children inherit.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from adjoint.cli import main; sys.exit(main(['finetune', '--config', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(written(tmp_path, settings))]
    job = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out" / CHECKPOINT).exists():
        assert job.poll() is None
    job.send_signal(signal.SIGINT)
    _, said = job.communicate()
    assert job.returncode == 130
    assert "adjoint: error: Interrupted." in said
    assert "from which the same command resumes" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*/*.toml")), ids=lambda p: p.stem)
def test_the_configs_of_the_examples_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    changes = {"output": str(tmp_path), "training.steps": 1, "sampling.steps": 2,
               "training.batch_size": 2, "previews.every": 0, "previews.num_images": 1,
               "training.warmup": 0}  # fmt: skip
    if "noise" in path.read_text():
        changes["optimise.num_images"] = 2
    outcome = run_finetuning(read_finetune_config(path, changes))
    assert all(math.isfinite(change.after) for change in outcome.changes)


def test_the_config_of_the_page_is_that_of_the_example() -> None:
    page = (ROOT / "docs" / "finetune.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    shown = config_of(tomllib.loads(block))
    example = read_finetune_config(
        ROOT / "examples" / "effects" / "bold.toml", {"training.warmup": 0}
    )
    assert shown == example


def test_rewards_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards"]) == 0
    said = capsys.readouterr().out
    assert "class-log-probability" in said
    assert "target*" in said
