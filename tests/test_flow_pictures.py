"""Pictures of flows: fields are where they belong, vorticity is that of the velocity."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from text2pde.channel import Channel, Flow
from text2pde.cli import main
from text2pde.flows.clip import Clip, save_clip
from text2pde.mesh import Mesh
from text2pde.pictures import frames, painted, raster, vorticity
from text2pde.solver.meshing import Sizes, triangulate

FLOW = Flow(Channel(x=0.3, y=0.2, radius=0.05), speed=1.0)


@cache
def mesh() -> Mesh:
    return triangulate(FLOW.channel, Sizes(near=0.4, far=0.1))


def turning(rate: float = 3.0) -> Clip:
    """Rigid rotation, of vorticity 2 * rate, over two frames."""
    x, y = mesh().nodes.T
    one = np.stack([-rate * y, rate * x, np.zeros_like(x)], axis=1)
    fields = np.stack([one, one]).astype(np.float32)
    return Clip(FLOW, mesh(), np.array([0.0, 0.1]), fields)


def test_linear_fields_are_drawn_exactly() -> None:
    pixels = raster(mesh(), 160)
    assert pixels.inside.shape == (41, 160)
    columns, rows = np.meshgrid(np.arange(160), np.arange(41))
    x, y = (columns + 0.5) * 0.01, (40 - rows + 0.5) * 0.01
    found = pixels.values(2 * mesh().nodes[:, 0] - 3 * mesh().nodes[:, 1])
    np.testing.assert_allclose(found[pixels.inside], (2 * x - 3 * y)[pixels.inside], atol=1e-9)
    # What is not inside is the cylinder.
    away = np.hypot(x - 0.3, y - 0.2)
    assert pixels.inside[away > 0.051].all()
    assert not pixels.inside[away < 0.045].any()


def test_vorticity_of_linear_velocities_is_exact() -> None:
    velocity = turning().fields[0, :, :2].astype(np.float64)
    np.testing.assert_allclose(vorticity(mesh(), velocity), 6.0, rtol=1e-5)
    strain = mesh().nodes * np.array([1.0, -1.0])
    np.testing.assert_allclose(vorticity(mesh(), strain), 0.0, atol=1e-12)


def test_what_turns_left_is_red_and_what_turns_right_blue() -> None:
    left, right = (colour(frames(turning(rate), 64)[0], 50, 8) for rate in (3, -3))
    assert left[0] > left[2]
    assert right[2] > right[0]
    still = painted(raster(mesh(), 64), np.zeros(len(mesh().nodes)))
    assert colour(still, 50, 8) == colour(still, 2, 2) != colour(still, 12, 8)  # the cylinder


def colour(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = picture.convert("RGB").getpixel((x, y))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("name", ["film.gif", "film.mp4", "strip.png"])
def test_the_command_draws(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.safetensors"
    save_clip(turning(), path)
    assert main(["show", str(path), "--width", "80", "--output", str(tmp_path / name)]) == 0
    assert (
        "Re 100, 1 m/s past a radius of 0.05 m at (0.3, 0.2) m; 2 frames" in capsys.readouterr().out
    )
    if name == "film.mp4":
        with av.open(tmp_path / name) as film:
            sizes = {(frame.width, frame.height) for frame in film.decode(video=0)}
    else:
        with Image.open(tmp_path / name) as picture:
            sizes = {picture.size}
    assert sizes == {(80, 44) if name == "strip.png" else (80, 20)}


def test_films_without_their_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    save_clip(turning(), path)
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["show", str(path), "--output", str(tmp_path / "film.mp4")]) == 2
    assert "pip install 'retrograde[film]'" in capsys.readouterr().err
    assert [found.name for found in tmp_path.iterdir()] == ["clip.safetensors"]


def test_what_can_not_be_drawn_ends_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.safetensors"
    path.write_bytes(b"torn")
    for words, why in (
        ((str(path), "--output", "a.avi"), "it can be a clip"),
        ((str(path), "--output", str(tmp_path / "a.gif")), "is torn"),
        ((str(tmp_path / "no"), "--output", str(tmp_path / "a.gif")), "no file"),
    ):
        assert main(["show", *words]) == 2
        said = capsys.readouterr().err
        assert why in said
        assert "Traceback" not in said
