"""Figures and films of clips: the right field at the right place, with axes, units and time."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from matplotlib.collections import TriMesh
from PIL import Image

from text2pde.cli import main
from text2pde.data.clip import Clip, save_clip
from text2pde.data.statistics import vorticity
from text2pde.figures import figure_image, film, plot_clip, plot_clips
from text2pde.mesh import Mesh
from text2pde.solver.meshing import MeshSizes, triangulate
from text2pde.solver.simulation import SmokeRecording, simulate_smoke
from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.subject.smoke.plume import Plume

FLOW = CylinderFlow(Channel(x=0.3, y=0.2, radius=0.05), speed=1.0)


@cache
def mesh() -> Mesh:
    return triangulate(FLOW.channel, MeshSizes(near=0.4, far=0.1))


def rotation(rate: float = 3.0) -> Clip:
    """Rigid rotation, of vorticity 2 * rate, over two frames."""
    x, y = mesh().nodes.T
    one = np.stack([-rate * y, rate * x, np.zeros_like(x)], axis=1)
    fields = np.stack([one, one]).astype(np.float32)
    return Clip(FLOW, mesh(), np.array([0.0, 0.125]), fields)


@cache
def smoke() -> Clip:
    return simulate_smoke(Plume(10.0, 8.0, 4.0, 0.4), SmokeRecording(3, 1.0, 16))


def test_vorticity_of_linear_velocities_is_exact() -> None:
    velocity = rotation().fields[..., :2].astype(np.float64)
    np.testing.assert_allclose(vorticity(mesh(), velocity), 6.0, rtol=1e-5)
    strain = mesh().nodes * np.array([1.0, -1.0])
    np.testing.assert_allclose(vorticity(mesh(), strain[None]), 0.0, atol=1e-12)


def test_a_figure_has_axes_in_units_a_colour_bar_and_times() -> None:
    figure = plot_clip(rotation(), [0, 1])
    upper, lower, bar = figure.axes
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("x [m]", "y [m]")
    assert (lower.get_xlim(), lower.get_ylim()) == ((0, 1.6), (0, 0.41))
    assert lower.get_aspect() == 1
    assert bar.get_ylabel() == r"vorticity $\omega D / U$"
    assert [axes.texts[0].get_text() for axes in (upper, lower)] == ["t = 0.000 s", "t = 0.125 s"]
    assert upper.get_title(loc="left") == str(FLOW)
    (shown,) = lower.collections
    assert isinstance(shown, TriMesh)
    # In units of U / D.
    np.testing.assert_allclose(np.asarray(shown.get_array()), 0.6, rtol=1e-5)
    assert shown.get_clim() == (-4, 4)


def test_smoke_is_shown_by_its_density_and_clips_one_below_the_other() -> None:
    figure = plot_clips({"one": smoke(), "other": smoke()}, [0, 2])
    *panels, bar = figure.axes
    assert len(panels) == 4
    assert bar.get_ylabel() == "density"
    assert panels[0].get_title(loc="left") == "one"
    assert panels[2].get_title(loc="left") == "other"
    (shown,) = panels[3].collections
    np.testing.assert_array_equal(np.asarray(shown.get_array()), smoke().fields[2, :, 2])


def test_a_film_shows_each_frame_as_a_figure_does() -> None:
    clip = smoke()
    images = film(clip, 320)
    assert len(images) == 3
    assert len({tuple(image.getpalette() or ()) for image in images}) == 1
    for number, image in enumerate(images):
        expected = figure_image(plot_clip(clip, [number]), 320).convert("RGB")
        assert image.size == expected.size
        difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(expected, int))
        assert (difference.max(axis=2) > 32).mean() < 0.01  # times are antialiased elsewhere
    assert np.asarray(images[0]).tobytes() != np.asarray(images[2]).tobytes()


def test_counterclockwise_rotation_is_red_and_clockwise_rotation_blue() -> None:
    left, right, still = (film(rotation(rate), 640)[0] for rate in (10, -10, 0))
    place, cylinder = pixel_at(left, 1.2, 0.3), pixel_at(left, 0.3, 0.2)
    assert colour(left, *place)[0] > colour(left, *place)[2]
    assert colour(right, *place)[2] > colour(right, *place)[0]
    grey = colour(still, *cylinder)
    assert max(grey) - min(grey) < 8
    assert max(grey) < 150 < min(colour(still, *place))


def pixel_at(image: Image.Image, x: float, y: float) -> tuple[int, int]:
    """The pixel of a point, by the frame around the axes: its longest dark lines."""
    dark = np.asarray(image.convert("L")) < 64
    rows = np.flatnonzero(dark.sum(axis=1) > 0.6 * image.width)
    row = dark[rows[0]]
    columns = np.flatnonzero(row)
    across = columns[0] + (columns[-1] - columns[0]) * x / 1.6
    return round(float(across)), round(float(rows[-1] - (rows[-1] - rows[0]) * y / 0.41))


def colour(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = image.convert("RGB").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("name", ["film.gif", "film.mp4", "figure.png"])
def test_the_command_shows(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.safetensors"
    save_clip(rotation(), path)
    assert main(["show", str(path), "--width", "320", "--output", str(tmp_path / name)]) == 0
    assert (
        "Re 100, 1 m/s past a cylinder of radius 0.05 m at (0.3, 0.2) m; 2 frames"
        in capsys.readouterr().out
    )
    if name == "film.mp4":
        with av.open(tmp_path / name) as film:
            (width,) = {frame.width for frame in film.decode(video=0)}
    else:
        with Image.open(tmp_path / name) as image:
            width = image.width
            assert getattr(image, "n_frames", 1) == (1 if name == "figure.png" else 2)
    assert width == 320


def test_films_without_their_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    save_clip(rotation(), path)
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["show", str(path), "--output", str(tmp_path / "film.mp4")]) == 2
    assert "pip install 'retrograde[film]'" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["clip.safetensors"]


def test_what_can_not_be_shown_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"truncated")
    for words, why in (
        ((str(path), "--output", "a.avi"), "it can be a clip"),
        ((str(path), "--output", str(tmp_path / "a.gif")), "is truncated"),
        ((str(tmp_path / "no"), "--output", str(tmp_path / "a.gif")), "no file"),
    ):
        assert main(["show", *words]) == 2
        said = capsys.readouterr().err
        assert why in said
        assert "Traceback" not in said
