"""From sentences to flows: the network and what it is told, its training, pipeline and commands."""

from __future__ import annotations

import argparse
import shutil
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

from adjoint import Checkpoint
from samplers import SamplerScheduler
from samplers.cli.choices import changed_scheduler
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
from text2pde.autoencoder.clips import prepare_clip
from text2pde.autoencoder.latents import Latents, Scales, encode_clips, save_latents
from text2pde.captions import caption, flow_of
from text2pde.channel import Channel, Flow
from text2pde.cli import main
from text2pde.diffusion.conditions import Conditions, joined, nothing, without
from text2pde.diffusion.learning import ConditionDropout
from text2pde.diffusion.presets import PRESETS, Size
from text2pde.diffusion.transformer import FlowTransformer
from text2pde.flows.clip import load_clip, save_clip
from text2pde.flows.cylinder import Family
from text2pde.flows.cylinder import draw as draw_channels
from text2pde.mesh import Mesh
from text2pde.mesh_files import read_mesh, write_mesh, write_vtk
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.pipeline_training import train_diffusion
from text2pde.plume import Plume
from text2pde.solver.meshing import Sizes, triangulate
from text2pde.subjects import SUBJECTS
from text2pde.text import TextEncoder, encoded_once

SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
DIGITS = Path(__file__).parents[1] / "assets" / "digits"
RANGES = SUBJECTS["cylinder"].ranges
FLOW = Flow(Channel(x=0.3, y=0.2, radius=0.05), speed=1.2)


def told(batch: int = 3, length: int = 5) -> Conditions:
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


def noise(batch: int = 3) -> Tensor:
    return torch.randn(batch, 4, 2, 2, 8, generator=torch.Generator().manual_seed(9))


def times(batch: int = 3) -> Tensor:
    return torch.linspace(10.0, 900.0, batch)


# ------------------------------------------------------------------------------------- network


def test_it_begins_as_nothing_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    fresh = FlowTransformer(RANGES, 24, 2, 2, 4, (1, 1, 2), TEXT_WIDTH)
    assert not bool(fresh(noise(), times(), told()).any())
    network = transformer()
    given = without(told(), *(torch.tensor([i == k for i in range(3)]) for k in range(3)))
    network(noise(), times(), given).square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


@torch.no_grad()
def test_samples_of_a_batch_do_not_know_of_each_other() -> None:
    network, every = transformer(), told()
    together = network(noise(), times(), every)
    for row in range(3):
        one = torch.tensor([row])
        alone = network(noise()[one], times()[one], every.of(one))
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_of_a_sentence_changes_nothing() -> None:
    network, every = transformer(), told()
    longer = every._replace(
        states=torch.cat([every.states, 99 * torch.ones(3, 4, TEXT_WIDTH)], dim=1),
        spoken=torch.cat([every.spoken, torch.zeros(3, 4, dtype=torch.bool)], dim=1),
    )
    expected = network(noise(), times(), every)
    torch.testing.assert_close(network(noise(), times(), longer), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("part", ["text", "numbers", "frame"])
def test_what_is_not_told_does_not_matter_and_what_is_does(part: str) -> None:
    network, every, no = transformer(), told(), torch.zeros(3, dtype=torch.bool)
    field = {"text": "states", "numbers": "numbers", "frame": "frame"}[part]
    other = every._replace(**{field: getattr(every, field).flip(0)})
    yes = {"text": no, "numbers": no, "frame": no, part: ~no}
    hidden = [network(noise(), times(), without(c, **yes)) for c in (every, other)]
    assert torch.equal(*hidden)
    shown = [network(noise(), times(), c) for c in (every, other)]
    assert not torch.allclose(*shown)
    assert not torch.allclose(hidden[0], shown[0])


def test_guidance_leads_away_from_no_sentence_and_no_numbers_but_keeps_the_frame() -> None:
    bare = nothing(told())
    assert not bool(bare.spoken.any())
    assert not bool(bare.stated.any())
    assert bool(bare.shown.all())
    both = joined(bare, told())
    assert torch.equal(both.of(torch.arange(3, 6)).numbers, told().numbers)


@torch.no_grad()
def test_any_number_of_frames_and_places_will_do() -> None:
    network = transformer()
    x = torch.randn(2, 4, 5, 3, 4)
    given = told(2)._replace(frame=torch.randn(2, 4, 3, 4))
    assert network(x, times(2), given).shape == x.shape
    for wrong, why in (
        (torch.randn(2, 4, 2, 2, 7), "can't be cut"),
        (torch.randn(2, 3, 2, 2, 8), r"must be \[B, 4, frames"),
    ):
        with pytest.raises(ValueError, match=why):
            network(wrong, times(2), told(2))
    with pytest.raises(ValueError, match="can't be shared by 5 heads"):
        FlowTransformer(RANGES, width=24, heads=5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_built(name: str) -> None:
    with torch.device("meta"):
        network = FlowTransformer(RANGES, **PRESETS[name]._asdict())
    count = sum(weight.numel() for weight in network.parameters())
    # Twelve width^2 of a block, six for its modulation, four to read the sentence.
    width, depth, _ = PRESETS[name]
    assert count == pytest.approx(22 * width**2 * depth, rel=0.1)


def test_numbers_go_from_minus_one_to_one_and_no_further() -> None:
    network = transformer()
    assert network.scaled(Flow(Channel(0.25, 0.24, 0.05), 0.4)) == pytest.approx([0, -1, -1, 1])
    with pytest.raises(ValueError, match="reynolds is 300; this model was trained from 40"):
        network.scaled(replace(FLOW, speed=3.0))
    with pytest.raises(ValueError, match=r"x is 0.6; .* from 0.25 to 0.4"):
        network.scaled(replace(FLOW, channel=replace(FLOW.channel, x=0.6)))
    with pytest.raises(ValueError, match="can't draw smoke of buoyancy"):
        network.scaled(Plume(16.0, 8.0, 4.0, 0.4))


def test_conditions_are_dropped_as_often_as_they_should() -> None:
    many = told(1, 2).of(torch.zeros(20000, dtype=torch.long))
    dropout = ConditionDropout(everything=0.2, text=0.25, numbers=0.5, frame=0.6)
    found = dropout(many, torch.Generator().manual_seed(0))
    text, numbers = ~found.spoken.any(dim=1), ~found.stated
    for drops, share in (
        (text, 0.2 + 0.8 * 0.25),
        (numbers, 0.2 + 0.8 * 0.5),
        (text & numbers, 0.2 + 0.8 * 0.125),
        (~found.shown, 0.6),
    ):
        assert float(drops.float().mean()) == pytest.approx(share, abs=0.015)
    with pytest.raises(ValueError, match=r"dropout of text is 1\.5"):
        ConditionDropout(text=1.5)


# ------------------------------------------------------------------------------------ sentences


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_text_encoder(tmp_path_factory.mktemp("text"))


@torch.no_grad()
def test_sentences_are_encoded_alone_as_in_a_batch_and_once(encoder: str, tmp_path: Path) -> None:
    texts = TextEncoder.from_pretrained(encoder)
    together = texts([SENTENCE, "Re = 80"])
    assert together.states.shape[2] == texts.width == TEXT_WIDTH
    alone = texts(["Re = 80"])
    length = int(together.spoken[1].sum())
    assert alone.spoken.shape == (1, length)
    torch.testing.assert_close(alone.states[0], together.states[1, :length], rtol=1e-5, atol=1e-5)
    first = encoded_once(texts, [SENTENCE], tmp_path / "kept.safetensors")
    texts.model = None  # it is not asked again
    again = encoded_once(texts, [SENTENCE], tmp_path / "kept.safetensors")
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


def test_it_is_saved_and_loaded_and_draws_the_same(folder: Path, encoder: str) -> None:
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
        assert a.flow.numbers["reynolds"] == pytest.approx(120)
        assert a.interval == pytest.approx(0.2)
        assert not a.fields[:, a.mesh.kinds >= 3, :2].any()
    assert not np.array_equal(first[0].fields, first[1].fields)


@torch.no_grad()
def test_a_flow_does_not_depend_on_those_beside_it(folder: Path) -> None:
    requests = [request(sentence=SENTENCE), request(), request(first=waves(), stated=False)]
    together = loaded(folder).latents(requests, [0, 1, 2], steps=3)
    for row, one in enumerate(requests):
        alone = loaded(folder).latents([one], [row], steps=3)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.01), (torch.float64, 1e-5)]
)
def test_a_pipeline_of_another_precision_draws_the_same_flow(
    folder: Path, dtype: torch.dtype, tolerance: float
) -> None:
    """Its networks alone are of that precision; noise and steps are of single at least."""
    other = Text2PDEPipeline.from_pretrained(folder).to(dtype)
    requests = [request(sentence=SENTENCE), request(first=waves(), stated=False)]
    with torch.no_grad():
        known, found = (pipe.draw(requests, [0, 1], steps=3) for pipe in (loaded(folder), other))
    for one, clip in zip(known, found, strict=True):
        assert clip.fields.dtype == np.float32
        error = np.linalg.norm(clip.fields - one.fields) / np.linalg.norm(one.fields)
        assert error < tolerance


@torch.no_grad()
def test_guidance_of_one_is_none_exactly(folder: Path) -> None:
    pipe, asked = loaded(folder), [request(sentence=SENTENCE)]
    given = pipe.told(asked)
    x, t = pipe.noise([0]), torch.tensor([500.0])
    plain = pipe.transformer(x, t, given)
    assert torch.equal(pipe.denoiser(given)(x, t), plain)
    bare = pipe.transformer(x, t, nothing(given))
    torch.testing.assert_close(
        pipe.denoiser(given, 2.5)(x, t), bare + 2.5 * (plain - bare), rtol=1e-4, atol=1e-4
    )


def test_gradients_pass_through_to_the_noise(folder: Path) -> None:
    pipe, found = loaded(folder), []
    for adjoint in (None, Checkpoint()):
        start = pipe.noise([0]).requires_grad_()
        latent = pipe.latents([request()], [0], steps=3, noise=start, adjoint=adjoint)
        pipe.fields(latent, pipe.prepared(mesh())).square().mean().backward()
        assert start.grad is not None
        found.append(start.grad)
    assert float(found[0].abs().max()) > 0
    torch.testing.assert_close(*found)


def test_another_text_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    pipe = load_text2pde(folder, torch.device("cpu"))
    pipe.register_to_config(text_revision="another")
    with pytest.raises(ValueError, match="not the one that this model was trained with"):
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
    assert "holds a run with depth = 6" in capsys.readouterr().err
    check_further_training(words, pipe, tmp_path, capsys)
    output = tmp_path / "out" / "flow.safetensors"
    draw = ["--checkpoint", tmp_path / "run" / "pipeline", "--steps", 2, "--output", output]
    assert run(["generate", SENTENCE, *draw, "--animation", tmp_path / "flow.gif"]) == 0
    said = capsys.readouterr().out
    assert "Re 120, 1.2 m/s past a radius of 0.05 m at (0.3, 0.2) m: 8 frames" in said
    assert (tmp_path / "flow.gif").exists()
    assert load_clip(output).fields.shape[0] == FRAMES
    write_mesh(mesh(), tmp_path / "mesh.msh")
    more = ["--mesh", tmp_path / "mesh.msh", "--guidance", 2, "--sampler", "ancestral"]
    assert run(["generate", SENTENCE, *draw, *more, "--option", "eta=0.5"]) == 0
    assert load_clip(output).fields.shape == (FRAMES, len(mesh().nodes), 3)
    assert run(["infer", clips / "case-1.safetensors", "--frame", 2, *draw]) == 0
    assert "over 8 frames it is" in capsys.readouterr().out
    assert np.array_equal(load_clip(output).mesh.nodes, mesh().nodes)
    slow = waves()._replace(times=1.5 * waves().times)
    save_clip(slow, tmp_path / "slow.safetensors")
    assert run(["infer", tmp_path / "slow.safetensors", *draw]) == 0
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
        ({"text_revision": "another"}, "from was trained with another one"),
        ({"subject": "smoke"}, "draws smoke, and the latents are of cylinder"),
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
    one, other = Scales(torch.ones(2), 2 * torch.ones(2)), Scales(torch.zeros(2), torch.ones(2) / 3)
    nothing = torch.zeros(3, dtype=torch.int64)
    latents = Latents(values, values[:, :, 0], one, nothing, nothing, (), 0.2, "")
    again = latents.rescaled(other)
    torch.testing.assert_close(again.scales.restored(again.values), one.restored(values))
    torch.testing.assert_close(again.scales.restored(again.frame), one.restored(values[:, :, 0]))


def test_what_draws_flows_goes_on_where_it_was_stopped(
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
    assert "| nearest flow of training | 0.0% | 0.0% |" in said  # it was trained on what is asked
    assert "3 of them learned" in said
    steady, short = tmp_path / "steady", tmp_path / "short"
    for number, x in enumerate((0.28, 0.3)):
        save_clip(waves(x, height=1e-4), steady / f"case-{number}.safetensors")
    assert run([*words[:1], steady, *words[2:]]) == 0
    assert "| nearest flow of training | - | - |" in capsys.readouterr().out  # nothing to compare
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
        again = read_mesh(tmp_path / name, clip.flow)
        for a, b in zip(again, clip.mesh, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
    # In half of the digits, nodes are where they are only nearly.
    single = meshio.Mesh(clip.mesh.nodes.astype(np.float32), [("triangle", clip.mesh.triangles)])
    places = np.pad(single.points, ((0, 0), (0, 1)))
    meshio.write(tmp_path / "single.vtu", meshio.Mesh(places, single.cells))
    again = read_mesh(tmp_path / "single.vtu", clip.flow)
    assert np.array_equal(again.kinds, clip.mesh.kinds)
    np.testing.assert_allclose(again.nodes, clip.mesh.nodes, atol=1e-6)


def test_a_sentence_finds_the_cylinder_of_its_mesh(tmp_path: Path) -> None:
    """Whole, although the numbers of a sentence are rounded; and no other border."""
    flow = draw_channels(Family(), 1)[0]
    own = triangulate(flow.channel, Sizes(near=0.35, far=0.07))
    write_mesh(own, tmp_path / "mesh.msh")
    for seed in range(8):
        again = read_mesh(tmp_path / "mesh.msh", flow_of(caption(flow, seed)))
        assert np.array_equal(again.kinds, own.kinds)
    middle = own.nodes[own.triangles].mean(axis=1)
    hole = np.hypot(*(middle - np.array([1.2, 0.2])).T) < 0.08
    write_mesh(own._replace(triangles=own.triangles[~hole]), tmp_path / "hole.msh")
    with pytest.raises(ValueError, match=r"has a border at \(1\.\d+, 0\.\d+\) m"):
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


def test_a_clip_goes_on_in_time_with_kinds_of_its_own(tmp_path: Path) -> None:
    clip, path = waves(), tmp_path / "clip.safetensors"
    for wrong, why in (
        (clip._replace(times=clip.times[::-1]), "do not rise"),
        (clip._replace(times=clip.times * np.nan), "do not rise"),
        (clip._replace(mesh=clip.mesh._replace(kinds=0 * clip.mesh.kinds)), "kinds of nodes"),
    ):
        save_clip(wrong, path)
        with pytest.raises(ValueError, match=why):
            load_clip(path)


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
    draw = ["--checkpoint", folder, "--output", output]
    clip = clips / "case-0.safetensors"
    for words, why in (
        (["generate", "Water flows", *draw], "states no size of the cylinder"),
        (["generate", "radius 5 cm", *draw], "neither a Reynolds number nor a speed"),
        (["generate", "radius 5 cm, Re = 900", *draw], "trained from 40 to 160"),
        (["generate", SENTENCE, *draw[:2], "--output", "a.avi"], "it can be a clip"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "other.msh"], "leave the mesh out"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "solid.vtu"], "the kind tetra"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "bent.vtu"], "not lie in the plane"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "torn.msh"], "holds no mesh"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "torn.vtu"], "holds no mesh"),
        (["generate", SENTENCE, *draw, "--mesh", tmp_path / "none.msh"], "There is no file"),
        (["generate", SENTENCE, *draw, "--sampler", "dpmpp-2m", "--steps", "0"], "too small"),
        (["infer", clip, *draw, "--frame", 99], "those from 0 to 11"),
        (["show", clip, "--width", 1, "--output", output], "must be 16 pixels or more"),
        (["encode", folder, clips, "--output", tmp_path / "a.safetensors"], "autoencoder may be"),
        (["infer", tmp_path / "none", *draw], "There is no file"),
        (["evaluate", tmp_path / "no", "--training", clips, *draw[:2]], "no clips"),
        (["train-diffusion", clip, "--autoencoder", folder / "autoencoder", *draw[2:]], "torn"),
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
    assert run(["generate", SENTENCE, *draw[:2], "--output", tmp_path / "film.gif"]) == 2
    assert "is a folder" in capsys.readouterr().err


def _without_weights(folder: Path, part: Path) -> Path:
    """A pipeline that lacks some of its weights."""
    shutil.copytree(folder, part)
    path = part / "transformer" / "diffusion_pytorch_model.safetensors"
    kept = {name: v for name, v in load_file(path).items() if not name.startswith("blocks.1")}
    save_file(kept, path, {"format": "pt"})
    return part


def test_requests_for_nothing_are_refused(folder: Path) -> None:
    pipe = loaded(folder)
    with pytest.raises(ValueError, match="one prompt at least"):
        pipe([])
    with pytest.raises(ValueError, match="2 seeds came for 1 flows"):
        pipe([SENTENCE], seeds=[0, 1], mesh=mesh())
    with pytest.raises(ValueError, match="must fill"):
        pipe(SENTENCE, mesh=Mesh(mesh().nodes + 0.1, mesh().triangles, mesh().kinds))


def test_settings_of_a_sampler_stay_unless_another_is_asked_for() -> None:
    own = SamplerScheduler(sampler="ancestral", sampler_options={"eta": 0.5}, grid="karras")

    def changed(sampler: str | None, *option: str) -> Any:
        asked = argparse.Namespace(sampler=sampler, option=list(option), grid=None)
        return changed_scheduler(own, asked).config

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
