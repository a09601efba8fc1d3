"""Flows as data: their family, simulations, clips and files, data sets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster
from numpy.typing import NDArray

from text2pde.cli import main
from text2pde.data.clip import Clip, load_clip, mirrored, save_clip
from text2pde.data.statistics import relative_error
from text2pde.mesh import NodeKind, check_mesh
from text2pde.solver import navier_stokes
from text2pde.solver.dataset import DatasetReport, Workers, cylinder_simulator, simulate_dataset
from text2pde.solver.meshing import MeshSizes
from text2pde.solver.navier_stokes import DivergedError, discretise
from text2pde.solver.simulation import Recording, continued, simulate
from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.subject.cylinder.family import CylinderFamily, sample_flows, sample_held_out_flows

FLOW = CylinderFlow(Channel(x=0.3, y=0.2, radius=0.05), speed=1.0)
COARSE = MeshSizes(near=0.5, far=0.1)
SHORT = Recording(frames=3, interval=0.1, settling=0.2)


@cache
def short_clip() -> Clip:
    return simulate(FLOW, SHORT, COARSE)


# --------------------------------------------------------------------------------------- family


def test_a_family_fills_its_ranges_but_for_what_is_held_out() -> None:
    family = CylinderFamily()
    flows = sample_flows(family, 256)
    reynolds = np.array([flow.reynolds for flow in flows])
    assert family.held_out is not None
    low, high = family.held_out
    assert not ((reynolds > low) & (reynolds < high)).any()
    for values, (least, most) in (
        (reynolds, family.reynolds),
        ([flow.channel.radius for flow in flows], family.radius),
        ([flow.channel.x for flow in flows], family.x),
        ([flow.channel.y for flow in flows], family.y),
    ):
        assert least <= min(values) < least + 0.02 * (most - least)
        assert most - 0.02 * (most - least) < max(values) <= most
    others = sample_held_out_flows(family, 32)
    assert low <= min(flow.reynolds for flow in others)
    assert max(flow.reynolds for flow in others) <= high
    assert not {flow.channel for flow in others} & {flow.channel for flow in flows}


def test_the_first_of_many_flows_are_those_of_few() -> None:
    assert sample_flows(CylinderFamily(), 5) == sample_flows(CylinderFamily(), 50)[:5]
    assert sample_flows(CylinderFamily(), 5, seed=1) != sample_flows(CylinderFamily(), 5)


def test_impossible_families_are_refused() -> None:
    with pytest.raises(ValueError, match=r"range of radius is 0\.06 to 0\.04"):
        CylinderFamily(radius=(0.06, 0.04))
    with pytest.raises(ValueError, match="must lie within"):
        CylinderFamily(held_out=(10.0, 20.0))
    with pytest.raises(ValueError, match="holds out no Reynolds"):
        sample_held_out_flows(CylinderFamily(held_out=None), 1)


# ----------------------------------------------------------------------------------- simulation


def test_the_mirror_image_of_a_flow_is_a_flow() -> None:
    clip = short_clip()
    image = mirrored(clip)
    check_mesh(image.mesh)
    assert isinstance(image.scene, CylinderFlow)
    assert image.scene.channel.y == pytest.approx(0.41 - FLOW.channel.y)
    np.testing.assert_array_equal(image.scene.kinds(image.mesh.nodes), clip.mesh.kinds)
    found, expected = continued(image, 0, 3), mirrored(continued(clip, 0, 3))
    np.testing.assert_allclose(found.fields, expected.fields, atol=1e-5)
    np.testing.assert_allclose(mirrored(image).fields, clip.fields)


def test_a_clip_satisfies_its_boundary_conditions() -> None:
    clip = short_clip()
    assert clip.fields.shape == (3, len(clip.mesh.nodes), 3)
    np.testing.assert_allclose(np.diff(clip.times), 0.1 * 0.1 / 1.0)  # interval D / U
    u = clip.fields[..., 0]
    assert np.abs(clip.fields[:, clip.mesh.kinds == NodeKind.CYLINDER, :2]).max() == 0
    assert np.abs(clip.fields[:, clip.mesh.kinds == NodeKind.WALL, :2]).max() == 0
    inlet = clip.mesh.kinds == NodeKind.INLET
    np.testing.assert_allclose(u[0, inlet], FLOW.inlet(clip.mesh.nodes[inlet, 1]), rtol=1e-6)
    assert np.abs(np.diff(clip.fields, axis=0)).max() > 1e-3
    again = simulate(FLOW, SHORT, COARSE)
    assert np.array_equal(again.fields, clip.fields)


def test_a_flow_is_continued_from_any_of_its_frames() -> None:
    """But for what linear velocities along edges leave out of quadratic ones."""
    clip = simulate(FLOW, Recording(frames=8, interval=0.1, settling=2.0), COARSE)
    found = continued(clip, 2, 5)
    truth = clip._replace(times=clip.times[2:7], fields=clip.fields[2:7])
    assert np.array_equal(found.times, truth.times)
    assert 0 < relative_error(found.fields, truth) < 0.06
    equations = discretise(FLOW, clip.mesh)
    linear = np.pad(clip.mesh.nodes, ((0, 0), (0, 1)))
    np.testing.assert_allclose(equations.start_from(linear).velocity, equations.points)
    for first, frames in ((-1, 2), (4, 5), (0, 1)):
        with pytest.raises(ValueError, match="the clip has 8"):
            continued(clip, first, frames)


def test_progress_is_reported_frame_by_frame() -> None:
    ticks: list[int] = []
    simulate(FLOW, SHORT, COARSE, lambda: ticks.append(1))
    assert len(ticks) == SHORT.all_frames == 5


def test_similar_flows_have_similar_clips() -> None:
    """In units of D / U and U only the Reynolds number and the shape count."""
    twice = replace(FLOW, speed=2 * FLOW.speed, viscosity=2 * FLOW.viscosity)
    assert twice.reynolds == pytest.approx(FLOW.reynolds)
    one, other = short_clip(), simulate(twice, SHORT, COARSE)
    np.testing.assert_allclose(other.times, one.times / 2)
    np.testing.assert_allclose(other.fields[..., :2] / 2, one.fields[..., :2], atol=1e-6)
    np.testing.assert_allclose(other.fields[..., 2] / 4, one.fields[..., 2], atol=1e-5)


def test_a_flow_that_diverges_is_tried_with_shorter_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(navier_stokes, "CFL", 2.0)
    # Eight times too long, as it should be after three halvings.
    with np.errstate(over="ignore", invalid="ignore"):
        clip = simulate(FLOW, replace(SHORT, settling=2.0), COARSE)
        assert np.isfinite(clip.fields).all()
        monkeypatch.setattr(navier_stokes, "CFL", 1000.0)
        with pytest.raises(DivergedError, match="take a finer mesh"):
            simulate(FLOW, Recording(frames=2, interval=20.0, settling=400.0), COARSE)


# ------------------------------------------------------------------------------------------ file


def test_a_clip_survives_its_file(tmp_path: Path) -> None:
    clip, path = short_clip(), tmp_path / "clip.safetensors"
    save_clip(clip, path)
    found = load_clip(path)
    assert found.scene == clip.scene
    for one, other in zip(arrays(clip), arrays(found), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def arrays(clip: Clip) -> list[NDArray[Any]]:
    return [*clip.mesh, clip.times, clip.fields]


def test_files_that_hold_no_clip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.safetensors"
    with pytest.raises(ValueError, match="no file"):
        load_clip(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is truncated"):
        load_clip(path)
    save_clip(short_clip(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is truncated"):
        load_clip(path)
    wrong = short_clip()
    save_clip(wrong._replace(times=wrong.times[:2]), path)
    with pytest.raises(ValueError, match="fields of shape"):
        load_clip(path)
    save_clip(wrong._replace(fields=wrong.fields * np.float32(np.nan)), path)
    with pytest.raises(ValueError, match="not finite"):
        load_clip(path)


# ------------------------------------------------------------------------------------ generation


FLOWS = sample_flows(CylinderFamily(), 3)
ONE = Workers(processes=1)


def made(
    flows: list[CylinderFlow],
    folder: Path,
    workers: Workers = ONE,
    tick: Callable[[], object] = lambda: None,
) -> DatasetReport:
    return simulate_dataset(flows, folder, cylinder_simulator(SHORT, COARSE), workers, tick)


@pytest.mark.parametrize("remote", [False, True])
def test_cases_are_made_once(tmp_path: Path, remote: bool) -> None:
    """By processes of our own, and by a cluster that has a scheduler's address."""
    with contextlib.ExitStack() as stack:
        workers = ONE
        if remote:
            cluster = stack.enter_context(
                LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
            )
            workers = Workers(scheduler=cluster.scheduler_address)
        ticks: list[int] = []
        assert made(FLOWS[:2], tmp_path, workers, lambda: ticks.append(1)) == (0, 2, {})
        assert len(ticks) == 2
        before = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
        assert made(FLOWS, tmp_path, workers) == (2, 1, {})
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == [f"case-0000{i}.safetensors" for i in range(3)]
    assert [path.stat().st_mtime_ns for path in paths[:2]] == before
    for path, flow in zip(paths, FLOWS, strict=True):
        clip = load_clip(path)
        assert clip.scene == flow
        assert np.array_equal(clip.fields, simulate(flow, SHORT, COARSE).fields)
    with pytest.raises(ValueError, match="holds another scene"):
        made(FLOWS[::-1], tmp_path)
    with pytest.raises(ValueError, match="a clip made with"):
        simulate_dataset(FLOWS, tmp_path, cylinder_simulator(replace(SHORT, frames=4), COARSE), ONE)


def test_what_is_done_survives_an_interruption(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(FLOWS, tmp_path, tick=interrupt)
    done = len([path for path in tmp_path.iterdir() if path.suffix == ".safetensors"])
    assert done >= 1
    assert made(FLOWS, tmp_path) == (done, 3 - done, {})


def test_the_command_simulates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--cases", "1", "--frames", "2", "--settling", "1", "--edge", "0.8", "--workers", "1")
    words = ["simulate", str(tmp_path / "flows"), *few]
    assert main(words) == 0
    assert "1 case simulated -> " in capsys.readouterr().out
    assert main([*words, "--held-out"]) == 2
    assert "holds another scene" in capsys.readouterr().err
    assert main(words) == 0
    assert "0 cases simulated, 1 existed" in capsys.readouterr().out
    (tmp_path / "flows" / "case-00000.safetensors").write_bytes(b"torn")
    assert main(words) == 2
    assert "is truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--cases", "0"), "from 1 to"),
        (("--edge", "-1"), "from 0.02 to 2"),
        (("--workers", "1", "--scheduler", "tcp://a:1"), "exclude each other"),
        (("--scheduler", "nowhere"), "No scheduler answers at nowhere"),
    ],
)
def test_impossible_simulations_end_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    assert main(["simulate", str(tmp_path), "--cases", "1", *words]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "Traceback" not in said
