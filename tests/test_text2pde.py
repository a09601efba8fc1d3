"""From text to flows: the network and its conditions, training, pipeline and commands."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adjoint import CheckpointAdjoint
from samplers import CheckpointError, SamplerScheduler, classifier_free_guidance, sample
from samplers.checkpoint.folder import read_folder
from samplers.cli.common.checkpoints import changed_scheduler
from samplers.cli.common.options import SchedulerOptions
from samplers.training import TrainingConfig
from samplers.training.learner import Learner
from tests.tiny_flows import (
    FRAMES,
    TEXT_WIDTH,
    autoencoder,
    mesh,
    pipeline,
    transformer,
    waves,
    write_text_encoder,
)
from tests.tiny_tuned import as_if_tuned
from text2pde.autoencoder.clips import prepare_clip
from text2pde.autoencoder.latents import Latents, LatentScales, encode_clips, save_latents
from text2pde.autoencoder.model import load_autoencoder
from text2pde.cli import main
from text2pde.data.clip import load_clip, save_clip
from text2pde.data.mesh_files import read_mesh, write_mesh, write_vtk
from text2pde.diffusion.conditions import UNCONDITIONAL, Conditions, dropped
from text2pde.diffusion.objective import ConditionDropout
from text2pde.diffusion.text_encoder import TextEncoder, encode_cached
from text2pde.diffusion.transformer import PRESETS, FlowTransformer, Size
from text2pde.mesh import Mesh
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.subject import SUBJECTS, caption, read_prompt
from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.subject.cylinder.family import CylinderFamily, sample_flows
from text2pde.subject.smoke.plume import Plume
from text2pde.training import train_diffusion

SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
DIGITS = Path(__file__).parents[1] / "assets" / "digits"
RANGES = SUBJECTS["cylinder"].ranges
FLOW = CylinderFlow(Channel(x=0.3, y=0.2, radius=0.05), speed=1.2)


def conditions(batch: int = 3, length: int = 5) -> Conditions:
    generator = torch.Generator().manual_seed(batch + length)
    yes = torch.ones(batch, dtype=torch.bool)
    return Conditions(
        torch.randn(batch, length, TEXT_WIDTH, generator=generator),
        torch.ones(batch, length, dtype=torch.bool),
        2 * torch.rand(batch, 4, generator=generator) - 1,
        yes,
        torch.randn(batch, 4, 2, 8, generator=generator),
        yes,
    )


def rows(given: Conditions, indices: Tensor) -> Conditions:
    return Conditions(*(value[indices] for value in given))


def output(network: FlowTransformer, x: Tensor, t: Tensor, given: Conditions) -> Tensor:
    found: Tensor = network(x, t, **given._asdict())
    return found


def noise(batch: int = 3) -> Tensor:
    return torch.randn(batch, 4, 2, 2, 8, generator=torch.Generator().manual_seed(9))


def times(batch: int = 3) -> Tensor:
    return torch.linspace(10.0, 900.0, batch)


# ------------------------------------------------------------------------------------- network


def test_its_output_is_initially_zero_and_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    fresh = FlowTransformer(RANGES, 24, 2, 2, 4, (1, 1, 2), TEXT_WIDTH)
    assert not bool(output(fresh, noise(), times(), conditions()).any())
    network = transformer()
    given = dropped(conditions(), *(torch.tensor([i == k for i in range(3)]) for k in range(3)))
    output(network, noise(), times(), given).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


@torch.no_grad()
def test_samples_of_a_batch_do_not_interact() -> None:
    network, every = transformer(), conditions()
    together = output(network, noise(), times(), every)
    for row in range(3):
        one = torch.tensor([row])
        alone = output(network, noise()[one], times()[one], rows(every, one))
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_of_a_prompt_changes_nothing() -> None:
    network, every = transformer(), conditions()
    longer = every._replace(
        text=torch.cat([every.text, 99 * torch.ones(3, 4, TEXT_WIDTH)], dim=1),
        text_mask=torch.cat([every.text_mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1),
    )
    expected = output(network, noise(), times(), every)
    found = output(network, noise(), times(), longer)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("part", ["text", "parameters", "frame"])
def test_a_condition_matters_unless_it_is_dropped(part: str) -> None:
    network, every, no = transformer(), conditions(), torch.zeros(3, dtype=torch.bool)
    other = every._replace(**{part: getattr(every, part).flip(0)})
    yes = {"text": no, "parameters": no, "frame": no, part: ~no}
    hidden = [output(network, noise(), times(), dropped(c, **yes)) for c in (every, other)]
    assert torch.equal(*hidden)
    shown = [output(network, noise(), times(), c) for c in (every, other)]
    assert not torch.allclose(shown[0], shown[1])
    assert not torch.allclose(hidden[0], shown[0])


def test_guidance_drops_text_and_parameters_but_keeps_the_frame() -> None:
    assert set(UNCONDITIONAL) == {"text_mask", "has_parameters"}
    assert not any(UNCONDITIONAL.values())


@torch.no_grad()
def test_any_latent_size_that_the_patch_divides_will_do() -> None:
    network = transformer()
    x = torch.randn(2, 4, 5, 3, 4)
    given = conditions(2)._replace(frame=torch.randn(2, 4, 3, 4))
    assert output(network, x, times(2), given).shape == x.shape
    for wrong, why in (
        (torch.randn(2, 4, 2, 2, 7), "can't be divided"),
        (torch.randn(2, 3, 2, 2, 8), r"must be \[B, 4, frames"),
    ):
        with pytest.raises(ValueError, match=why):
            output(network, wrong, times(2), conditions(2))
    with pytest.raises(ValueError, match="can't be divided among 5 heads"):
        FlowTransformer(RANGES, width=24, heads=5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_built(name: str) -> None:
    with torch.device("meta"):
        network = FlowTransformer(RANGES, **PRESETS[name]._asdict())
    count = sum(weight.numel() for weight in network.parameters())
    # Of a block: 12 width^2, 6 for its modulation, 4 for cross-attention.
    width, depth, _ = PRESETS[name]
    assert count == pytest.approx(22 * width**2 * depth, rel=0.1)


def test_parameters_are_scaled_to_their_ranges_and_refused_outside() -> None:
    network = transformer()
    assert network.scaled(CylinderFlow(Channel(0.25, 0.24, 0.05), 0.4)) == pytest.approx(
        [0, -1, -1, 1]
    )
    with pytest.raises(ValueError, match="reynolds is 300; this model was trained from 40"):
        network.scaled(replace(FLOW, speed=3.0))
    with pytest.raises(ValueError, match=r"x is 0.6; .* from 0.25 to 0.4"):
        network.scaled(replace(FLOW, channel=replace(FLOW.channel, x=0.6)))
    with pytest.raises(ValueError, match="can't generate smoke of buoyancy"):
        network.scaled(Plume(16.0, 8.0, 4.0, 0.4))


def test_conditions_are_dropped_as_often_as_they_should() -> None:
    many = rows(conditions(1, 2), torch.zeros(20000, dtype=torch.long))
    dropout = ConditionDropout(everything=0.2, text=0.25, parameters=0.5, frame=0.6)
    found = dropout(many, torch.Generator().manual_seed(0))
    text, numbers = ~found.text_mask.any(dim=1), ~found.has_parameters
    for drops, share in (
        (text, 0.2 + 0.8 * 0.25),
        (numbers, 0.2 + 0.8 * 0.5),
        (text & numbers, 0.2 + 0.8 * 0.125),
        (~found.has_frame, 0.6),
    ):
        assert float(drops.float().mean()) == pytest.approx(share, abs=0.015)
    with pytest.raises(ValueError, match=r"dropout of text is 1\.5"):
        ConditionDropout(text=1.5)


# -------------------------------------------------------------------------------------- prompts


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text_encoder(tmp_path_factory.mktemp("text"))


@torch.no_grad()
def test_prompts_are_encoded_alone_as_in_a_batch_and_once(encoder: str, tmp_path: Path) -> None:
    texts = TextEncoder.from_pretrained(encoder)
    together = texts([SENTENCE, "Re = 80"])
    assert together.states.shape[2] == texts.width == TEXT_WIDTH
    alone = texts(["Re = 80"])
    length = int(together.mask[1].sum())
    assert alone.mask.shape == (1, length)
    torch.testing.assert_close(alone.states[0], together.states[1, :length], rtol=1e-5, atol=1e-5)
    first = encode_cached(texts, [SENTENCE], tmp_path / "kept.safetensors")
    texts.model = None  # it is not evaluated again
    again = encode_cached(texts, [SENTENCE], tmp_path / "kept.safetensors")
    assert torch.equal(first.states, again.states)
    assert first.states.dtype == torch.float16
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_encoder_is_the_known_one() -> None:
    texts = TextEncoder.from_pretrained()
    assert texts.width == 384
    states, spoken = texts(["radius 5 cm"])
    assert states.shape[:2] == spoken.shape
    with pytest.raises(ValueError, match="no folder /nowhere"):
        TextEncoder.from_pretrained("/nowhere")


# ------------------------------------------------------------------------------------- pipeline


@pytest.fixture(scope="module")
def folder(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline")
    pipeline(encoder).save_pretrained(path)
    return path


@cache
def loaded(folder: Path) -> Text2PDEPipeline:
    return load_text2pde(folder, torch.device("cpu"))


def request(**changes: Any) -> Request:
    return Request(FLOW, mesh=mesh())._replace(**changes)


def test_it_is_saved_and_loaded_and_generates_the_same(folder: Path, encoder: str) -> None:
    one, other = pipeline(encoder), loaded(folder)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }
    first, again = (
        pipe(SENTENCE, mesh=mesh(), seeds=[3, 4], num_inference_steps=2).clips
        for pipe in (one, other)
    )
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.fields, b.fields)
        assert a.fields.shape == (FRAMES, len(mesh().nodes), 3)
        assert a.scene.parameters["reynolds"] == pytest.approx(120)
        assert a.interval == pytest.approx(0.2)
        assert not a.fields[:, a.mesh.kinds >= 3, :2].any()
    assert not np.array_equal(first[0].fields, first[1].fields)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch(folder: Path) -> None:
    requests = [request(prompt=SENTENCE), request(), request(first=waves(), use_parameters=False)]
    together = loaded(folder).latents(requests, [0, 1, 2], steps=3)
    for row, one in enumerate(requests):
        alone = loaded(folder).latents([one], [row], steps=3)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.01), (torch.float64, 1e-5)]
)
def test_a_pipeline_of_another_precision_generates_the_same_flow(
    folder: Path, dtype: torch.dtype, tolerance: float
) -> None:
    """Its networks alone are of that precision; noise and steps are of single at least."""
    other = Text2PDEPipeline.from_pretrained(folder).to(dtype)
    requests = [request(prompt=SENTENCE), request(first=waves(), use_parameters=False)]
    with torch.no_grad():
        known, found = (
            pipe.generate(requests, [0, 1], steps=3) for pipe in (loaded(folder), other)
        )
    for one, clip in zip(known, found, strict=True):
        assert clip.fields.dtype == np.float32
        error = np.linalg.norm(clip.fields - one.fields) / np.linalg.norm(one.fields)
        assert error < tolerance


@torch.no_grad()
def test_guidance_of_one_is_none_exactly(folder: Path) -> None:
    pipe, requests = loaded(folder), [request(prompt=SENTENCE)]
    given = pipe.conditions(requests)
    x, t = pipe.noise([0]), torch.tensor([500.0])
    plain = pipe.transformer(x, t, **given)
    assert torch.equal(pipe.denoiser(x, t, **given), plain)
    none = {name: torch.zeros_like(given[name]) for name in ("text_mask", "has_parameters")}
    bare = pipe.transformer(x, t, **(given | none))
    guided = classifier_free_guidance(pipe.denoiser, UNCONDITIONAL, 2.5)
    torch.testing.assert_close(
        guided(x, t, **given), bare + 2.5 * (plain - bare), rtol=1e-4, atol=1e-4
    )
    one, other = (pipe.latents(requests, [0], steps=2, guidance=w) for w in (1.0, 2.5))
    assert not torch.allclose(one, other)


def test_gradients_pass_through_to_the_noise(folder: Path) -> None:
    pipe, found = loaded(folder), []
    for adjoint in (None, CheckpointAdjoint()):
        start = pipe.noise([0]).requires_grad_()
        latent = pipe.latents([request()], [0], steps=3, noise=start, adjoint=adjoint)
        pipe.fields(latent, pipe.prepared(mesh())).square().mean().backward()
        assert start.grad is not None
        found.append(start.grad)
    assert float(found[0].abs().max()) > 0
    torch.testing.assert_close(*found)


@torch.no_grad()
def test_samplers_are_tuned_for_what_captions_generate(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[Any] = []
    monkeypatch.setattr("text2pde.cli.tune.write_tuned", lambda *given: tuned.extend(given))
    words = ["tune", "--checkpoint", folder, "--output", tmp_path / "tuned", "--nfe", 3]
    assert run([*words, "--samples", 2, "--held-out", 1, "--seed", 4, "--guidance", 2]) == 0
    _, config, checkpoint, subject = tuned
    assert (config.held_out, checkpoint) == (1, folder)
    assert subject.purpose.conditions == "captions of 3 scenes (cylinder)"
    assert subject.purpose.weights == read_folder(folder, False).identity().weights_hash
    pipe, seeds = loaded(folder), range(4, 7)
    scenes = pipe.subject.sample(3, 4)
    requests = [Request(one, caption(one, seed)) for one, seed in zip(scenes, seeds, strict=True)]
    expected = pipe.latents(requests, seeds, 3, guidance=2)
    config = pipe.scheduler.config
    keywords = {"sampler": config.sampler, "grid": pipe.grid(3), "conditions": subject.conditions}
    assert torch.equal(sample(subject.model, subject.noise, **keywords), expected)


@torch.no_grad()
def test_a_tuned_sampler_generates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = load_text2pde(folder, torch.device("cpu"))
    tuned = as_if_tuned(pipe.denoiser.schedule)
    tuned.save(tmp_path / "own.json")
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler, sampler=tuned)
    scene = read_prompt(SENTENCE)
    given = pipe.conditions([Request(scene, SENTENCE)])
    expected = sample(pipe.guided(2), pipe.noise([3]), sampler=tuned, conditions=given)
    assert torch.equal(pipe.latents([Request(scene, SENTENCE)], [3], guidance=2), expected)
    pipe.save_pretrained(tmp_path / "saved")
    clips = []
    for checkpoint, sampler in ((folder, ["--sampler", tmp_path / "own.json"]), ("saved", [])):
        path = tmp_path / f"{Path(checkpoint).name}.safetensors"
        words = ["generate", SENTENCE, "--checkpoint", tmp_path / checkpoint, "--guidance", 2]
        assert run([*words, *sampler, "--seed", 3, "--output", path]) == 0
        said = capsys.readouterr().err
        assert said == (
            "The sampler was tuned for a guidance of 1, and this one is 2; its scores do not hold "
            "here.\n"
        )
        clips.append(load_clip(path))
    assert np.array_equal(clips[0].fields, clips[1].fields)
    assert run([*words, "--steps", 5, "--output", tmp_path / "5.gif"]) == 2
    assert "own steps and noise levels" in capsys.readouterr().err


def test_another_text_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    pipe = load_text2pde(folder, torch.device("cpu"))
    pipe.register_to_config(text_revision="another")
    with pytest.raises(ValueError, match="not the one that this model was trained with"):
        pipe(SENTENCE, mesh=mesh())


def edited(folder: Path, copy: Path, **entries: Any) -> Path:
    """A copy of the pipeline whose index has other entries."""
    shutil.copytree(folder, copy)
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | entries))
    return copy


@pytest.mark.parametrize("interval", [0.0, -0.2, math.nan, math.inf])
def test_times_must_ascend(folder: Path, tmp_path: Path, interval: float) -> None:
    with pytest.raises(CheckpointError, match=r"interval between frames is .*must be positive"):
        load_text2pde(edited(folder, tmp_path / "copy", interval=interval))


@pytest.mark.parametrize("name", ["latent_mean", "latent_std"])
def test_scales_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    copy = edited(folder, tmp_path / "copy")
    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({**weights, name: weights[name] * math.nan}, path)
    with pytest.raises(CheckpointError, match="scales of latents are not finite"):
        load_text2pde(copy)


def test_fields_that_are_no_numbers_are_not_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, output = edited(folder, tmp_path / "copy"), tmp_path / "flow.safetensors"
    path = copy / "autoencoder" / "diffusion_pytorch_model.safetensors"
    save_file({name: weight * math.nan for name, weight in load_file(path).items()}, path)
    words = ["generate", SENTENCE, "--checkpoint", copy, "--steps", 1, "--output", output]
    assert run(words) == 1
    assert "The autoencoder returned NaN or infinity" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("component", ["autoencoder", "transformer"])
def test_no_pickle_is_loaded(folder: Path, tmp_path: Path, component: str) -> None:
    copy = edited(folder, tmp_path / "copy")
    path = copy / component / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(CheckpointError, match="can't be loaded"):
        load_text2pde(copy)
    if component == "autoencoder":
        with pytest.raises(ValueError, match="holds no mesh autoencoder"):
            load_autoencoder(copy / component)


def test_a_file_makes_no_command_ask_the_hub(folder: Path, tmp_path: Path) -> None:
    pipe = load_text2pde(edited(folder, tmp_path / "copy", text_encoder="someone/model"))
    with pytest.raises(ValueError, match="is not on this machine; name the text encoder"):
        pipe(SENTENCE, mesh=mesh())


# ------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("clips")
    for number, x in enumerate((0.28, 0.3, 0.35)):
        save_clip(waves(x, frames=12), data / f"case-{number}.safetensors")
    return data


def run(words: Sequence[object]) -> int:
    return main([str(word) for word in words])


def test_a_pipeline_is_trained_and_used(
    clips: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = autoencoder()
    own.save_pretrained(tmp_path / "autoencoder")
    prepared = [prepare_clip(load_clip(p), own.grid, 1.6) for p in sorted(clips.iterdir())]
    with torch.no_grad():
        latents = encode_clips(own, prepared, FRAMES, 4)
    save_latents(latents, tmp_path / "latents.safetensors")
    words = ["train-diffusion", tmp_path / "latents.safetensors"]
    words += ["--autoencoder", tmp_path / "autoencoder", "--output", tmp_path / "run"]
    words += ["--text-encoder", encoder, "--batch-size", 4, "--steps", 4]
    assert run(words) == 0
    assert "text2pde generate --checkpoint" in capsys.readouterr().out
    pipe = load_text2pde(tmp_path / "run" / "pipeline", torch.device("cpu"))
    for found, expected in zip(pipe.scales, latents.scales, strict=True):
        torch.testing.assert_close(found, expected)
    assert pipe.config.frames == FRAMES
    assert pipe.config.interval == pytest.approx(0.2)
    other = autoencoder()
    torch.nn.init.normal_(other.lift.bias)
    other.save_pretrained(tmp_path / "other")
    wrong = [tmp_path / "other" if word == tmp_path / "autoencoder" else word for word in words]
    assert run(wrong) == 2
    assert "are of another autoencoder" in capsys.readouterr().err
    assert run([*words, "--preset", "base"]) == 2
    assert "is of a run with depth = 6" in capsys.readouterr().err
    (tmp_path / "notes" / "pipeline").mkdir(parents=True)
    (tmp_path / "notes" / "pipeline" / "model_index.json").write_text("notes")
    elsewhere = [tmp_path / "notes" if word == tmp_path / "run" else word for word in words]
    assert run(elsewhere) == 2
    assert "pipeline exists already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["pipeline"]
    check_further_training(words, pipe, tmp_path, capsys)
    output = tmp_path / "out" / "flow.safetensors"
    options = ["--checkpoint", tmp_path / "run" / "pipeline", "--steps", 2, "--output", output]
    assert run(["generate", SENTENCE, *options, "--animation", tmp_path / "flow.gif"]) == 0
    said = capsys.readouterr().out
    assert "Re 120, 1.2 m/s past a cylinder of radius 0.05 m at (0.3, 0.2) m: 8 frames" in said
    assert (tmp_path / "flow.gif").exists()
    assert load_clip(output).fields.shape[0] == FRAMES
    write_mesh(mesh(), tmp_path / "mesh.msh")
    options.append("--overwrite")
    more = ["--mesh", tmp_path / "mesh.msh", "--guidance", 2, "--sampler", "ancestral"]
    assert run(["generate", SENTENCE, *options, *more, "--option", "eta=0.5"]) == 0
    assert load_clip(output).fields.shape == (FRAMES, len(mesh().nodes), 3)
    assert run(["infer", clips / "case-1.safetensors", "--frame", 2, *options]) == 0
    assert "relative error over 8 frames" in capsys.readouterr().out
    assert np.array_equal(load_clip(output).mesh.nodes, mesh().nodes)
    slow = waves()._replace(times=1.5 * waves().times)
    save_clip(slow, tmp_path / "slow.safetensors")
    assert run(["infer", tmp_path / "slow.safetensors", *options]) == 0
    assert "at other times than those of the clip" in capsys.readouterr().out


def check_further_training(
    words: Sequence[object],
    pipe: Text2PDEPipeline,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A training that starts at a pipeline begins with its weights and its encoder."""
    on = [folder / "further" if word == folder / "run" else word for word in words]
    at = on.index("--text-encoder")
    further = [*on[:at], *on[at + 2 :], "--learning-rate", "1e-12"]
    assert run([*further, "--start", folder / "run" / "pipeline"]) == 0
    found = load_text2pde(folder / "further" / "pipeline", torch.device("cpu"))
    for name, weights in pipe.transformer.state_dict().items():
        torch.testing.assert_close(found.transformer.state_dict()[name], weights)
    assert found.config.text_encoder == pipe.config.text_encoder
    capsys.readouterr()
    for change, why in (
        ({"text_revision": "another"}, "pipeline was trained with another one"),
        ({"subject": "smoke"}, "generates smoke, and the latents are of cylinder"),
    ):
        changed = load_text2pde(folder / "run" / "pipeline", torch.device("cpu"))
        changed.register_to_config(**change)
        changed.save_pretrained(folder / "changed")
        assert run([*further, "--start", folder / "changed"]) == 2
        assert why in capsys.readouterr().err
    assert run([*further, "--start", folder / "none"]) == 1
    assert "There is no checkpoint at" in capsys.readouterr().err


def test_latents_by_other_scales_are_the_latents_that_they_were() -> None:
    values = torch.randn(3, 2, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    one, other = (
        LatentScales(torch.ones(2), 2 * torch.ones(2)),
        LatentScales(torch.zeros(2), torch.ones(2) / 3),
    )
    first = torch.zeros(3, dtype=torch.int64)
    latents = Latents(values, values[:, :, 0], one, first, first, (), 0.2, "")
    again = latents.rescaled(other)
    torch.testing.assert_close(again.scales.restored(again.values), one.restored(values))
    torch.testing.assert_close(again.scales.restored(again.frame), one.restored(values[:, :, 0]))


def test_a_training_resumes_after_an_interruption(
    clips: Path, encoder: str, tmp_path: Path
) -> None:
    own = autoencoder()
    own.save_pretrained(tmp_path / "autoencoder")
    prepared = [prepare_clip(load_clip(p), own.grid, 1.6) for p in sorted(clips.iterdir())]
    with torch.no_grad():
        save_latents(encode_clips(own, prepared, FRAMES, 4), tmp_path / "latents.safetensors")
    found = []
    for name, stop in (("whole", None), ("stopped", 2)):
        config = TrainingConfig(
            steps=4, batch_size=2, learning_rate=1e-3, log_every=1, checkpoint_every=1
        )
        given = (tmp_path / "latents.safetensors", tmp_path / "autoencoder", tmp_path / name)
        if stop is not None:
            with pytest.raises(KeyboardInterrupt), interrupted(tmp_path / name, stop):
                train_diffusion(*given, Size(24, 1, 2), config, encoder=encoder)
        path = train_diffusion(*given, Size(24, 1, 2), config, encoder=encoder)
        found.append(load_text2pde(path, torch.device("cpu")).transformer.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@contextmanager
def interrupted(folder: Path, step: int) -> Iterator[None]:
    """A training in a folder is interrupted when it has written the checkpoint of a step."""
    save = Learner.save

    def saved(learner: Learner, path: Path, done: int) -> None:
        save(learner, path, done)
        if done == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "save", saved)
        yield
    assert (folder / "checkpoint.pt").exists()


def test_a_model_is_evaluated(
    clips: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", clips, "--training", clips, "--checkpoint", folder, "--steps", 1]
    assert run([*words, "--output", tmp_path / "table.md"]) == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "table.md").read_text()
    assert "| nearest training clip | 0.0% | 0.0% |" in said  # it was trained on these clips
    assert "3 of them trained on" in said
    steady, short = tmp_path / "steady", tmp_path / "short"
    for number, x in enumerate((0.28, 0.3)):
        save_clip(waves(x, height=1e-4), steady / f"case-{number}.safetensors")
    assert run([*words[:1], steady, *words[2:]]) == 0
    assert "| nearest training clip | - | - |" in capsys.readouterr().out  # nothing to compare
    for number in range(2):
        save_clip(waves(frames=4), short / f"case-{number}.safetensors")
    assert run([*words[:1], short, *words[2:]]) == 2
    assert "has 4 frames" in capsys.readouterr().err


def test_files_of_other_programs(tmp_path: Path) -> None:
    clip = waves()
    assert write_vtk(clip, tmp_path / "flow.vtu") == FRAMES
    found = meshio.read(tmp_path / "flow-003.vtu")
    np.testing.assert_array_equal(found.points[:, :2], clip.mesh.nodes)
    np.testing.assert_array_equal(found.point_data["velocity"][:, :2], clip.fields[3, :, :2])
    np.testing.assert_array_equal(found.point_data["pressure"], clip.fields[3, :, 2])
    series = (tmp_path / "flow.pvd").read_text()
    assert f'timestep="{clip.times[3]:.9g}" file="flow-003.vtu"' in series
    write_mesh(clip.mesh, tmp_path / "mesh.msh")
    for name in ("mesh.msh", "flow-000.vtu"):
        again = read_mesh(tmp_path / name, clip.scene)
        for a, b in zip(again, clip.mesh, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    # In half of the digits, nodes are where they are only nearly.
    single = meshio.Mesh(clip.mesh.nodes.astype(np.float32), [("triangle", clip.mesh.triangles)])
    places = np.pad(single.points, ((0, 0), (0, 1)))
    meshio.write(tmp_path / "single.vtu", meshio.Mesh(places, single.cells))
    again = read_mesh(tmp_path / "single.vtu", clip.scene)
    assert np.array_equal(again.kinds, clip.mesh.kinds)
    np.testing.assert_allclose(again.nodes, clip.mesh.nodes, atol=1e-6)


def test_a_caption_fits_the_mesh_of_its_flow(tmp_path: Path) -> None:
    """Completely, although a caption rounds its numbers; and no other boundary."""
    flow = sample_flows(CylinderFamily(), 1)[0]
    own = triangulate(flow.channel, MeshSizes(near=0.35, far=0.07))
    write_mesh(own, tmp_path / "mesh.msh")
    for seed in range(8):
        again = read_mesh(tmp_path / "mesh.msh", read_prompt(caption(flow, seed)))
        assert np.array_equal(again.kinds, own.kinds)
    middle = own.nodes[own.triangles].mean(axis=1)
    hole = np.hypot(*(middle - np.array([1.2, 0.2])).T) < 0.08
    write_mesh(own._replace(triangles=own.triangles[~hole]), tmp_path / "hole.msh")
    with pytest.raises(ValueError, match=r"has a boundary at \(1\.\d+, 0\.\d+\) m"):
        read_mesh(tmp_path / "hole.msh", flow)
    write_mesh(own._replace(triangles=np.tile(own.triangles, (2, 1))), tmp_path / "twice.msh")
    with pytest.raises(ValueError, match="lie on each other"):
        read_mesh(tmp_path / "twice.msh", flow)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"fields": np.float64}, "has fields in float64; they must be float32"),
        ({"triangles": np.float32}, "has triangles in float32; they must be int64"),
    ],
)
def test_a_clip_has_numbers_of_its_kinds(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    save_clip(waves(), tmp_path / "clip.safetensors")
    kept = safetensors_numpy.load_file(tmp_path / "clip.safetensors")
    with safe_open(tmp_path / "clip.safetensors", "np") as file:
        about = file.metadata()
    changed = {name: value.astype(changes.get(name, value.dtype)) for name, value in kept.items()}
    safetensors_numpy.save_file(changed, tmp_path / "clip.safetensors", about)
    with pytest.raises(ValueError, match=why):
        load_clip(tmp_path / "clip.safetensors")


def test_the_times_of_a_clip_ascend_and_its_kinds_are_those_of_its_scene(tmp_path: Path) -> None:
    clip, path = waves(), tmp_path / "clip.safetensors"
    for wrong, why in (
        (clip._replace(times=clip.times[::-1]), "do not ascend"),
        (clip._replace(times=clip.times * np.nan), "do not ascend"),
        (clip._replace(mesh=clip.mesh._replace(kinds=0 * clip.mesh.kinds)), "kinds of nodes"),
    ):
        save_clip(wrong, path)
        with pytest.raises(ValueError, match=why):
            load_clip(path)


def test_no_help_imports_torch() -> None:
    code = (
        "import sys; from text2pde.cli import main; from text2pde.cli.program import PROGRAM; "
        "codes = [main([*words, '--help']) for words in [[], *([n] for n in PROGRAM.names)]]; "
        "heavy = sorted({'torch', 'diffusers', 'numpy', 'matplotlib'} & set(sys.modules)); "
        "print(codes, heavy)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == f"{[0] * 10} []"


def test_wrong_requests_end_in_one_sentence(
    folder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mesh(mesh(0.35), tmp_path / "other.msh")
    tetra = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    meshio.write(tmp_path / "solid.vtu", meshio.Mesh(tetra, [("tetra", [[0, 1, 2, 3]])]))
    meshio.write(tmp_path / "bent.vtu", meshio.Mesh(tetra, [("triangle", [[0, 1, 3]])]))
    (tmp_path / "torn.msh").write_text("$MeshFormat\n4.1 0")
    (tmp_path / "torn.vtu").write_text("<VTKFile")
    output = tmp_path / "flow.gif"
    options = ["--checkpoint", folder, "--output", output]
    clip = clips / "case-0.safetensors"
    for words, why in (
        (["generate", "Water flows", *options], "states no size of the cylinder"),
        (["generate", "radius 5 cm", *options], "neither a Reynolds number nor a velocity"),
        (["generate", "radius 5 cm, Re = 900", *options], "trained from 40 to 160"),
        (["generate", SENTENCE, *options[:2], "--output", "a.avi"], "it can be a clip"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "other.msh"], "leave the mesh out"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "solid.vtu"], "cells of type tetra"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "bent.vtu"], "not lie in the plane"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "torn.msh"], "holds no mesh"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "torn.vtu"], "holds no mesh"),
        (["generate", SENTENCE, *options, "--mesh", tmp_path / "none.msh"], "There is no file"),
        (["generate", SENTENCE, *options, "--sampler", "dpmpp-2m", "--steps", "0"], "from 1 to"),
        (["infer", clip, *options, "--frame", 99], "frames from 0 to 11"),
        (["show", clip, "--width", 1, "--output", output], "must be 160 pixels or more"),
        (["encode", folder, clips, "--output", tmp_path / "a.safetensors"], "autoencoder may be"),
        (["infer", tmp_path / "none", *options], "There is no file"),
        (["evaluate", tmp_path / "no", "--training", clips, *options[:2]], "no clips"),
        (
            ["train-diffusion", clip, "--autoencoder", folder / "autoencoder", *options[2:]],
            "truncated",
        ),
    ):
        assert run(words) == 2, words
        said = capsys.readouterr().err
        assert why in said, said
        assert said.count("\n") == 1
    for place, why in (
        (tmp_path, "model_index.json"),
        (DIGITS, "a Text2PDEPipeline is needed"),
        (_without_weights(folder, tmp_path / "part"), "can't be loaded"),
    ):
        assert run(["generate", SENTENCE, "--checkpoint", place, "--output", output]) == 1
        said = capsys.readouterr().err
        assert why in said
        assert said.count("\n") == 1
    assert not output.exists()
    # A folder is not replaced by a film.
    (tmp_path / "film.gif").mkdir()
    assert run(["generate", SENTENCE, *options[:2], "--output", tmp_path / "film.gif"]) == 2
    assert "is a folder" in capsys.readouterr().err


def _without_weights(folder: Path, part: Path) -> Path:
    """A pipeline that lacks some of its weights."""
    shutil.copytree(folder, part)
    path = part / "transformer" / "diffusion_pytorch_model.safetensors"
    kept = {name: v for name, v in load_file(path).items() if not name.startswith("blocks.1")}
    save_file(kept, path, {"format": "pt"})
    return part


def test_impossible_requests_are_refused(folder: Path) -> None:
    pipe = loaded(folder)
    with pytest.raises(ValueError, match="at least one prompt"):
        pipe([])
    with pytest.raises(ValueError, match="2 seeds came for 1 requests"):
        pipe([SENTENCE], seeds=[0, 1], mesh=mesh())
    with pytest.raises(ValueError, match="must fill"):
        pipe(SENTENCE, mesh=Mesh(mesh().nodes + 0.1, mesh().triangles, mesh().kinds))


def test_settings_of_a_sampler_stay_unless_another_is_asked_for() -> None:
    own = SamplerScheduler(sampler="ancestral", sampler_options={"eta": 0.5}, grid="karras")

    def changed(sampler: str | None, *option: str) -> Any:
        options = SchedulerOptions(sampler=sampler, options=option, grid=None)
        return changed_scheduler(own, options).config

    assert changed(None).sampler_options == changed("ancestral").sampler_options == {"eta": 0.5}
    assert changed(None, "eta=0.25").sampler_options == {"eta": 0.25}
    assert changed("dpmpp-2m").sampler_options == {}
    assert changed("dpmpp-2m").grid == "karras"


def test_noise_and_corrections_are_those_of_the_scheduler(folder: Path) -> None:
    pipe = load_text2pde(folder, torch.device("cpu"))
    config = pipe.scheduler.config
    found = []
    for changes in (
        {"sampler": "sde-dpmpp-2m"},
        {"sampler": "sde-dpmpp-2m", "noise": "brownian"},
        {"sampler": "sde-dpmpp-2m", "clip_sample": True, "clip_sample_range": 0.1},
    ):
        pipe.scheduler = type(pipe.scheduler).from_config(config, **changes)
        with torch.no_grad():
            found.append(pipe.latents([request()], [0], steps=3))
    assert not torch.equal(found[0], found[1])
    assert float(found[2].abs().max()) < 0.1001
