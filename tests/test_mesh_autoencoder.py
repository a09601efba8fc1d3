"""The mesh autoencoder: neighbourhoods, invariances, batches, training, files."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from text2pde.autoencoder import (
    LatentGrid,
    MeshAutoencoder,
    MeshBatch,
    Posterior,
    join_batches,
    prepare_mesh,
)
from text2pde.autoencoder.batch import find_edges
from text2pde.autoencoder.clips import prepare_clip, redimensionalise
from text2pde.autoencoder.latents import (
    Latents,
    encode_clips,
    encode_frame,
    load_latents,
    save_latents,
)
from text2pde.autoencoder.objective import relative_errors
from text2pde.cli import main
from text2pde.data.clip import Clip, load_clip, save_clip
from text2pde.data.statistics import cylinder_flow_of
from text2pde.mesh import Mesh, NodeKind
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.subject.cylinder.channel import Channel, CylinderFlow

COARSE = MeshSizes(near=0.4, far=0.08)
RADIUS = 1.6
FRAMES = 4
DIGITS = Path(__file__).parents[1] / "assets" / "digits" / "unet"
"""A model of another kind."""


@cache
def mesh(x: float = 0.3, sizes: MeshSizes = COARSE) -> Mesh:
    return triangulate(Channel(x=x, y=0.2, radius=0.05), sizes)


@cache
def model() -> MeshAutoencoder:
    torch.manual_seed(0)
    return MeshAutoencoder(channels=8, latent=4, columns=32, rows=8).eval()


def batch(of: Mesh) -> MeshBatch:
    return prepare_mesh(of, model().grid, RADIUS)


def fields(of: Mesh, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(FRAMES, len(of.nodes), 3, generator=generator)


def permuted(of: Mesh, order: np.ndarray) -> Mesh:
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Mesh(of.nodes[order], place[of.triangles], of.kinds[order])


# --------------------------------------------------------------------------------- neighbourhoods


def test_no_point_is_without_neighbours() -> None:
    rng = np.random.default_rng(0)
    targets, sources = rng.random((50, 2)), rng.random((30, 2))
    for radius in (1e-6, 0.1, 0.5):
        edges = find_edges(targets, sources, radius, 3)
        assert (np.diff(edges.target) >= 0).all()
        for row, place in enumerate(targets):
            distance = np.hypot(*(sources - place).T)
            within = set(np.flatnonzero(distance <= radius).tolist())
            expected = within if len(within) >= 3 else set(np.argsort(distance)[:3].tolist())
            assert set(edges.source[edges.target == row].tolist()) == expected
    with pytest.raises(ValueError, match="too few"):
        find_edges(targets, sources[:2], 0.1, 3)


def test_shares_are_those_of_the_area() -> None:
    one = batch(mesh())
    for edges, count in ((one.inwards, 8 * 32), (one.outwards, len(mesh().nodes))):
        total = torch.zeros(count).index_add(0, edges.target, edges.share)
        torch.testing.assert_close(total, torch.ones(count))


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="far from square"):
        LatentGrid(columns=16, rows=16)
    with pytest.raises(ValueError, match="must have at least one"):
        LatentGrid(columns=0)
    with pytest.raises(ValueError, match="can't be downsampled 4 times"):
        MeshAutoencoder(columns=64, rows=24, halvings=4)


# ------------------------------------------------------------------------------------ invariances


@torch.no_grad()
def test_the_order_of_nodes_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(mesh().nodes))
    other, x = permuted(mesh(), order), fields(mesh())
    one, two = model().encode(x, batch(mesh())), model().encode(x[:, order], batch(other))
    torch.testing.assert_close(one.mean, two.mean, rtol=1e-5, atol=1e-5)
    back, again = model().decode(one.mean, batch(mesh())), model().decode(one.mean, batch(other))
    torch.testing.assert_close(back[:, order], again, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_meshes_of_a_batch_do_not_interact() -> None:
    meshes = [mesh(), mesh(0.35), mesh(0.3, MeshSizes(near=0.3, far=0.06))]
    values = [fields(each, seed) for seed, each in enumerate(meshes)]
    together = join_batches([batch(each) for each in meshes], model().grid)
    assert together.sizes == tuple(len(each.nodes) for each in meshes)
    latent = model().encode(torch.cat(values, dim=1), together).mean
    found = model().decode(latent, together).split(list(together.sizes), dim=1)
    for number, (each, value) in enumerate(zip(meshes, values, strict=True)):
        alone = model().encode(value, batch(each)).mean
        torch.testing.assert_close(latent[number : number + 1], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            found[number], model().decode(alone, batch(each)), rtol=1e-5, atol=1e-5
        )


@torch.no_grad()
def test_it_decodes_at_any_nodes() -> None:
    finer = mesh(0.3, MeshSizes(near=0.2, far=0.04))
    latent = model().encode(fields(mesh()), batch(mesh())).mean
    found = model().decode(latent, batch(finer))
    assert found.shape == (FRAMES, len(finer.nodes), 3)
    still = np.isin(finer.kinds, (NodeKind.WALL, NodeKind.CYLINDER))
    assert float(found[:, still, :2].abs().max()) == 0
    assert float(found[:, ~still, :2].abs().min()) > 0
    assert float(found[:, still, 2].abs().min()) > 0


def test_a_latent_is_much_smaller_than_a_clip() -> None:
    whole = MeshAutoencoder()
    shape = whole.latent_shape(48)
    assert shape == (8, 12, 4, 16)
    assert 900 * 48 * 3 / np.prod(shape) > 16
    latent = model().encode(fields(mesh()), batch(mesh())).mean
    assert latent.shape[1:] == model().latent_shape(FRAMES)


# ------------------------------------------------------------------------------ learning, and files


def test_every_weight_has_a_gradient() -> None:
    own = MeshAutoencoder(channels=8, latent=4, columns=32, rows=8)
    x, one = fields(mesh()), batch(mesh())
    law = own.encode(x, one)
    noise = torch.randn(law.mean.shape, generator=torch.Generator().manual_seed(0))
    found = own.decode(law.sample(noise), one)
    ((found - x).square().mean() + 0.1 * law.kl).backward()
    for name, weight in own.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


def test_it_runs_in_half_precision() -> None:
    """Values in bfloat16 meet shares in float32; the sums are as they are in float32, roughly."""
    x, one = fields(mesh()), batch(mesh())
    with torch.no_grad():
        expected = model().decode(model().encode(x, one).mean, one)
        with torch.autocast("cpu", torch.bfloat16):
            found = model().decode(model().encode(x, one).mean, one)
    assert float((found.float() - expected).norm() / expected.norm()) < 0.05


def test_the_kl_divergence_is_that_of_gaussians() -> None:
    zero = torch.zeros(1, 2, 1, 1, 1)
    assert float(Posterior(zero, zero).kl) == 0
    law = torch.distributions.Normal(0.7, 1.3)
    expected = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0))
    found = Posterior(zero + 0.7, zero + 2 * torch.tensor(1.3).log()).kl
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_it_survives_its_files(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    found = MeshAutoencoder.from_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    x, one = fields(mesh()), batch(mesh())
    assert torch.equal(found.encode(x, one).mean, model().encode(x, one).mean)


def test_wrong_fields_are_refused() -> None:
    x, one = fields(mesh()), batch(mesh())
    with pytest.raises(ValueError, match="for these meshes"):
        model().encode(x[:, 1:], one)
    with pytest.raises(ValueError, match="multiple of 4"):
        model().encode(x[:3], one)


# -------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of waves that go through the channel."""
    folder = tmp_path_factory.mktemp("clips")
    for number, x in enumerate((0.28, 0.3, 0.35)):
        of, times = mesh(x), 0.02 * np.arange(8, dtype=np.float64)
        phase = 12 * (of.nodes[None, :, 0] - times[:, None]) + number
        waves = np.stack([1 + np.sin(phase), np.cos(phase), 0.3 * np.sin(phase)], axis=2)
        flow = CylinderFlow(Channel(x=x, y=0.2, radius=0.05), speed=2.0)
        scaled = (waves * np.array([2, 2, 4])).astype(np.float32)
        save_clip(Clip(flow, of, times, scaled), folder / f"case-{number}.safetensors")
    return folder


FEW = ("--channels", "8", "--latent", "4", "--columns", "32", "--rows", "8", "--frames", "4",
       "--learning-rate", "5e-3")  # fmt: skip


def test_flows_that_differ_in_speed_alone_are_one(data: Path) -> None:
    clip = load_clip(data / "case-0.safetensors")
    slow = cylinder_flow_of(clip)
    faster = clip._replace(
        scene=replace(slow, speed=2 * slow.speed),
        fields=clip.fields * np.array([2, 2, 4], dtype=np.float32),
    )
    one, other = (prepare_clip(c, model().grid, RADIUS) for c in (clip, faster))
    torch.testing.assert_close(one.fields, other.fields)
    np.testing.assert_allclose(redimensionalise(one.fields, clip.scene), clip.fields, rtol=1e-6)
    assert float(one.areas.sum()) == pytest.approx(1)


def test_errors_are_relative_and_by_area() -> None:
    x = torch.tensor([[[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]]])
    areas = torch.tensor([0.25, 0.75])
    found = x + torch.tensor([0.0, 1.0, 0.0])
    errors = relative_errors(found, x, areas)
    assert errors.overall == pytest.approx((1 / (0.25 * 9 + 0.75)) ** 0.5)
    assert errors.transverse == pytest.approx(1.0)


def test_the_command_trains_and_resumes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    words = ["train-autoencoder", str(data), "--held-out", str(data), "--output", str(output), *FEW]
    assert main([*words, "--steps", "60", "--every", "30"]) == 0
    said = capsys.readouterr().out
    assert "error on held-out clips: " in said
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    found = MeshAutoencoder.from_pretrained(output / "autoencoder")
    clip = prepare_clip(load_clip(data / "case-1.safetensors"), found.grid, RADIUS)
    with torch.no_grad():
        back = found.decode(found.encode(clip.fields[:4], clip.mesh).mean, clip.mesh)
    assert relative_errors(back, clip.fields[:4], clip.areas).overall < 0.9
    assert main([*words, "--steps", "60", "--every", "30"]) == 0  # there is nothing left to do
    for other, why in (
        (("--steps", "70"), "steps = 60"),
        (("--kl-weight", "1"), "kl_weight = 1e-05"),
        (("--channels", "16"), "channels = 8"),
    ):
        assert main([*words, "--steps", "60", *other]) == 2
        assert why in capsys.readouterr().err


def test_the_command_replaces_no_run_unasked(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train-autoencoder", str(data), "--output", str(tmp_path), *FEW, "--steps", "1"]
    for name in ("settings.json", "log.jsonl", "autoencoder/config.json"):
        notes = tmp_path / name
        notes.parent.mkdir(exist_ok=True)
        notes.write_text("notes")
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / name.partition('/')[0]} exists already" in said
        assert "--overwrite to replace it" in said
        assert notes.read_text() == "notes"
        notes.unlink()
    assert main(words) == 0
    assert main([*words, "--seed", "1"]) == 2
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["training.seed"] == 1


def test_impossible_trainings_end_in_one_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("--output", str(tmp_path / "run"))
    for words, why in (
        ((str(tmp_path), *output), "There are no clips in"),
        ((str(tmp_path / "nowhere"), *output), "There are no clips in"),
        ((str(data), *output, *FEW, "--frames", "12"), "shortest training clip has 8 frames"),
        ((str(data), *output, *FEW, "--frames", "6", "--steps", "1"), "multiple of 4"),
        ((str(data), *output, "--columns", "30"), "far from square"),
    ):
        assert main(["train-autoencoder", *words]) == 2, words
        said = capsys.readouterr().err
        assert why in said
        assert "Traceback" not in said


# --------------------------------------------------------------------------------------- latents


def encoded(data: Path) -> Latents:
    clips = [prepare_clip(load_clip(p), model().grid, RADIUS) for p in sorted(data.iterdir())]
    with torch.no_grad():
        return encode_clips(model(), clips, 4, 2)


def test_latents_are_standardised_and_survive_their_file(data: Path, tmp_path: Path) -> None:
    latents = encoded(data)
    assert latents.values.shape == (9, *model().latent_shape(4))  # three windows of three clips
    std, mean = torch.std_mean(latents.values, dim=(0, 2, 3, 4))
    torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-4, atol=0)
    assert float(mean.abs().max()) < 1e-5
    assert latents.clip.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert latents.first.tolist() == [0, 2, 4] * 3
    clip = prepare_clip(load_clip(data / "case-1.safetensors"), model().grid, RADIUS)
    with torch.no_grad():
        expected = model().encode(clip.fields[2:6], clip.mesh).mean
    torch.testing.assert_close(latents.scales.restored(latents.values[4:5]), expected)
    with torch.no_grad():
        still = encode_frame(model(), clip.fields[2:3], clip.mesh)
        alike = model().encode(clip.fields[2:3].expand(4, -1, -1), clip.mesh).mean
    torch.testing.assert_close(latents.scales.restored(latents.frame[4:5]), still)
    torch.testing.assert_close(still, alike[:, :, 0])
    assert latents.interval == pytest.approx(0.02 * 2 / 0.1)
    path = tmp_path / "latents.safetensors"
    save_latents(latents, path)
    found = load_latents(path)
    assert (found.scenes, found.interval) == (latents.scenes, latents.interval)
    for name in ("values", "frame", "clip", "first"):
        assert torch.equal(getattr(found, name), getattr(latents, name))
    assert all(torch.equal(a, b) for a, b in zip(found.scales, latents.scales, strict=True))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is truncated"):
        load_latents(path)


def test_clips_of_other_intervals_are_not_mixed(data: Path) -> None:
    clips = [prepare_clip(load_clip(p), model().grid, RADIUS) for p in sorted(data.iterdir())]
    with pytest.raises(ValueError, match="only clips of one interval together"), torch.no_grad():
        encode_clips(model(), [clips[0], clips[1]._replace(interval=0.3)], 4, 2)


def test_the_command_encodes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model().save_pretrained(tmp_path / "model")
    output = tmp_path / "latents.safetensors"
    words = ["encode", str(tmp_path / "model"), str(data), "--frames", "4", "--stride", "2"]
    assert main([*words, "--output", str(output)]) == 0
    assert "9 windows of 3 clips, each 4 x 1 x 2 x 8" in capsys.readouterr().out
    torch.testing.assert_close(load_latents(output).values, encoded(data).values)
    assert main([*words, "--mirrored", "--output", str(output), "--overwrite"]) == 0
    assert "18 windows of 6 clips" in capsys.readouterr().out
    flows = load_latents(output).scenes
    assert flows[3:] == tuple(flow.mirrored() for flow in flows[:3])
    output = tmp_path / "none.safetensors"
    for wrong, why in (
        ([*words, "--output", "a.txt"], "NAME.safetensors"),
        (["encode", str(data), str(data), "--output", str(output)], "holds no mesh autoencoder"),
        (["encode", str(DIGITS), str(data), "--output", str(output)], "holds no mesh autoencoder"),
        ([*words[:3], "--frames", "80", "--output", str(output)], "fewer than the 80"),
        ([*words[:3], "--frames", "6", "--output", str(output)], "multiple of 4"),
    ):
        assert main(wrong) == 2
        said = capsys.readouterr().err
        assert why in said
        assert "Traceback" not in said
