"""Smoke: what its equations conserve, its family, its prompts, and models by the same commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import meshio
import numpy as np
import pytest

from tests.tiny_flows import write_text_encoder
from text2pde.cli import main
from text2pde.data.clip import Clip, load_clip, mirrored, save_clip
from text2pde.evaluation.prompts import evaluate_smoke
from text2pde.solver.simulation import SmokeRecording, simulate_smoke
from text2pde.solver.smoke import SmokeState, advance, cell_divergence, fields, start, uniform_mesh
from text2pde.subject import Scene
from text2pde.subject.smoke.captions import plume_caption, read_plume
from text2pde.subject.smoke.family import SmokeFamily, sample_held_out_plumes, sample_plumes
from text2pde.subject.smoke.plume import Plume

PLUME = Plume(x=16.0, y=8.0, radius=4.0, buoyancy=0.4)
SHORT = SmokeRecording(frames=8, interval=1.0, cells=16)


def after(plume: Plume, cells: int, seconds: float, step: float = 0.125) -> SmokeState:
    state = start(plume, cells)
    for _ in range(round(seconds / step)):
        state = advance(state, plume, step)
    return state


# ------------------------------------------------------------------------------------- equations


def test_smoke_is_neither_made_nor_lost_and_nothing_passes_walls() -> None:
    first, last = start(PLUME, 32), after(PLUME, 32, 12.0)
    assert last.density.sum() == pytest.approx(first.density.sum(), rel=1e-12)
    assert -1e-3 < last.density.min() < last.density.max() < 1 + 1e-3
    assert np.abs(cell_divergence(last)).max() < 1e-13
    assert not last.u[:, [0, -1]].any()
    assert not last.v[[0, -1]].any()


def test_a_plume_in_the_middle_rises_as_its_mirror_image_does() -> None:
    last = after(PLUME, 32, 8.0)
    np.testing.assert_allclose(last.density, last.density[:, ::-1], atol=1e-10)
    np.testing.assert_allclose(last.u, -last.u[:, ::-1], atol=1e-10)


def test_the_mirror_image_of_a_plume_is_a_plume() -> None:
    plume = replace(PLUME, x=12.0)
    found, expected = (
        mirrored(simulate_smoke(plume, SHORT)),
        simulate_smoke(plume.mirrored(), SHORT),
    )
    assert found.scene == expected.scene
    assert sorted(map(tuple, found.mesh.nodes)) == sorted(map(tuple, expected.mesh.nodes))
    order, own = (np.lexsort(clip.mesh.nodes.T) for clip in (found, expected))
    np.testing.assert_allclose(found.fields[:, order], expected.fields[:, own], atol=1e-4)


def test_smoke_rises_as_fast_as_it_moves() -> None:
    """d/dt of its mean height is its mean velocity."""
    middles = (np.arange(64) + 0.5) / 2

    def height(state: SmokeState) -> float:
        return float((state.density.sum(axis=1) @ middles) / state.density.sum())

    state, way = start(PLUME, 64), 0.0
    first = height(state)
    for _ in range(60):
        lift = (state.v[1:] + state.v[:-1]) / 2
        way += 0.125 * float((lift * state.density).sum() / state.density.sum())
        state = advance(state, PLUME, 0.125)
    assert way > 2
    assert height(state) - first == pytest.approx(way, rel=0.03)


def test_finer_cells_agree() -> None:
    """Averages over the coarsest cells come nearer to those of the finest ones."""
    found = []
    for cells in (16, 32, 64, 128):
        density = after(PLUME, cells, 5.0, 2.0 / cells).density
        part = cells // 16
        found.append(density.reshape(16, part, 16, part).mean(axis=(1, 3)))
    errors = [float(np.abs(each - found[-1]).mean()) for each in found[:-1]]
    assert errors[0] > 1.7 * errors[1] > 1.7**2 * errors[2]


def test_without_buoyancy_a_flow_comes_to_rest() -> None:
    moving = after(PLUME, 32, 8.0)
    heavy = Plume(16.0, 8.0, 4.0, buoyancy=1e-9, viscosity=0.5)
    energies = []
    for _ in range(40):
        energies.append(float((moving.u**2).sum() + (moving.v**2).sum()))
        moving = advance(moving, heavy, 0.125)
    assert (np.diff(energies) < 0).all()
    assert energies[-1] < 0.7 * energies[0]


def test_fields_are_at_the_corners_of_cells() -> None:
    mesh, state = uniform_mesh(PLUME, 16), after(PLUME, 16, 4.0)
    assert mesh.areas.sum() == pytest.approx(32.0**2)
    assert (mesh.areas > 0).all()
    values = fields(state)
    assert values.shape == (17**2, 3)
    assert not values[mesh.kinds != 0, :2].any()
    assert (mesh.kinds != 0).sum() == 4 * 16
    # The density at an inner corner is that of the four cells around it.
    row, column = 5, 8
    around = state.density[row - 1 : row + 1, column - 1 : column + 1]
    assert values[17 * row + column, 2] == pytest.approx(around.mean())
    np.testing.assert_allclose(mesh.nodes[17 * row + column], [2.0 * column, 2.0 * row])


def test_impossible_plumes_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Plume(2.0, 8.0, 4.0, 0.4)
    with pytest.raises(ValueError, match="buoyancy is -1"):
        Plume(16.0, 8.0, 4.0, -1.0)
    with pytest.raises(ValueError, match="4 cells"):
        SmokeRecording(cells=2)


# ------------------------------------------------------------------------------ family, prompts


def test_the_family_leaves_out_what_is_held_out() -> None:
    family = SmokeFamily()
    plumes = sample_plumes(family, 128)
    low, high = family.held_out
    assert not any(low < plume.buoyancy < high for plume in plumes)
    assert all(low <= plume.buoyancy <= high for plume in sample_held_out_plumes(family, 32))
    for name, (least, most) in family.ranges.items():
        values = [plume.parameters[name] for plume in plumes]
        assert least <= min(values) < least + 0.05 * (most - least)
        assert most - 0.05 * (most - least) < max(values) <= most
    assert sample_plumes(family, 4) == plumes[:4]


@pytest.mark.parametrize("seed", range(12))
def test_a_caption_can_be_read(seed: int) -> None:
    for plume in sample_plumes(SmokeFamily(), 4, seed):
        found = read_plume(plume_caption(plume, seed))
        for name, value in plume.parameters.items():
            assert found.parameters[name] == pytest.approx(value, abs=0.006)


def test_prompts_that_can_not_be_followed_are_refused() -> None:
    assert read_plume("Smoke of diameter 8 m and buoyancy 40 cm/s^2") == Plume(16.0, 8.0, 4.0, 0.4)
    for sentence, why in (
        ("Smoke of buoyancy 0.4 m/s^2", "states no size"),
        ("Smoke of radius 4 m", "states no buoyancy"),
        ("Smoke of radius 4 m and little buoyancy", "can be read"),
        ("radius 4 m, buoyancy 0.4 m/s^2, x = 1 m", "does not fit"),
    ):
        with pytest.raises(ValueError, match=why):
            read_plume(sentence)


# ------------------------------------------------------------------------------ clips and models


def clip(buoyancy: float) -> Clip:
    return simulate_smoke(Plume(16.0, 8.0, 4.0, buoyancy), SHORT)


def buoyancy(scene: Scene) -> Sequence[float]:
    return (scene.parameters["buoyancy"],)


def test_a_perfect_model_of_smoke_has_no_errors() -> None:
    held_out, training = [clip(b) for b in (0.3, 0.34, 0.4)], [clip(b) for b in (0.2, 0.5)]
    found = evaluate_smoke(held_out, buoyancy, held_out, training)
    assert found.generated == 0
    assert found.rise == pytest.approx(1)
    assert found.shuffled > 0
    assert 0 < found.nearest < 1


def test_a_clip_of_smoke_survives_its_file(tmp_path: Path) -> None:
    one = clip(0.4)
    save_clip(one, tmp_path / "clip.safetensors")
    found = load_clip(tmp_path / "clip.safetensors")
    assert found.scene == one.scene
    assert np.array_equal(found.fields, one.fields)
    assert found.interval == pytest.approx(1.0)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_same_commands_make_a_model_of_smoke(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, encoder = tmp_path / "data", write_text_encoder(tmp_path / "text")
    family = ("--family", "smoke", "--frames", 8)
    assert run("simulate", data, *family, "--cases", 3, "--workers", 1) == 0
    assert run("simulate", data, *family, "--cases", 3, "--edge", 0.3) == 2
    assert "--edge are for cylinders" in capsys.readouterr().err
    first = data / "case-00000.safetensors"
    assert run("show", first, "--width", 160, "--output", tmp_path / "smoke.vtu") == 0
    assert "density" in meshio.read(tmp_path / "smoke-000.vtu").point_data
    assert run("show", first, "--width", 160, "--output", tmp_path / "smoke.gif") == 0
    assert "smoke of buoyancy" in capsys.readouterr().out
    own = tmp_path / "autoencoder"
    words = ("--channels", 8, "--latent", 4, "--frames", 8, "--steps", 2)
    assert run("train-autoencoder", data, "--output", own, *words) == 0
    latents = tmp_path / "latents.safetensors"
    assert run("encode", own / "autoencoder", data, "--frames", 8, "--output", latents) == 0
    assert "each 4 x 2 x 8 x 8" in capsys.readouterr().out
    short = ("--text-encoder", encoder, "--batch-size", 2, "--steps", 2)
    model = (latents, "--autoencoder", own / "autoencoder", "--output", tmp_path / "run")
    assert run("train-diffusion", *model, *short) == 0
    generated = tmp_path / "generated.safetensors"
    options = ("--checkpoint", tmp_path / "run" / "pipeline", "--steps", 2)
    prompt = "Smoke of radius 4 m and buoyancy 0.4 m/s^2"
    assert run("generate", prompt, *options, "--output", generated) == 0
    assert load_clip(generated).scene == PLUME
    assert run("evaluate", data, "--training", data, *options) == 0
    assert "Mean height of the smoke" in capsys.readouterr().out
    assert (
        run("generate", "radius 5 cm, Re = 80", *options, "--output", generated, "--overwrite") == 2
    )
    assert "has the number 80" in capsys.readouterr().err
