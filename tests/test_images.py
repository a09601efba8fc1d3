"""Images as tensors, files, sheets, films and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image, ImageCms

from samplers.images.figures import Cell, Figure, curves, histogram, table
from samplers.images.files import (
    SHEET,
    ImageError,
    image_paths,
    open_image,
    read_parameters,
    write_png,
)
from samplers.images.films import write_film
from samplers.images.pixels import levels_of, to_images, values_of
from samplers.images.sheets import enlarged, sheet, spread_out

ROOT = Path(__file__).parents[1]


def noise(*shape: int) -> torch.Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_levels_survive_images_and_files(channels: int, tmp_path: Path) -> None:
    levels = torch.arange(256).repeat(channels).reshape(1, channels, 16, 16).to(torch.uint8)
    (image,) = to_images(values_of(levels))
    write_png(image, tmp_path / "image.png", {})
    assert torch.equal(levels_of(open_image(tmp_path / "image.png")), levels)


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        to_images(noise(1, 2, 4, 4))


def test_images_of_a_folder(tmp_path: Path) -> None:
    (image,) = to_images(noise(1, 1, 4, 4))
    for name in ("b.png", "a.jpg", SHEET):
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    assert [path.name for path in image_paths([tmp_path])] == ["a.jpg", "b.png"]
    with pytest.raises(ImageError, match="can't be read as an image"):
        open_image(tmp_path / "notes.txt")


def test_colours_of_a_profile_are_converted_to_srgb(tmp_path: Path) -> None:
    """The profile is sRGB with red and blue exchanged."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    for profile, expected in ((srgb, (200, 100, 50)), (exchanged, (50, 100, 200))):
        image.save(tmp_path / "a.png", icc_profile=profile)
        found = np.asarray(open_image(tmp_path / "a.png"), dtype=int)
        assert np.abs(found - expected).max() <= 1


def test_what_is_no_single_image_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "film.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="an animation of 3 frames; give a single image"):
        open_image(tmp_path / "film.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="is no file"):
        open_image(tmp_path / "pipe.png")


def test_a_sheet_shows_each_image_pixel_for_pixel() -> None:
    images = to_images(noise(5, 1, 50, 40))
    whole = np.asarray(sheet(images, 3))
    assert whole.shape == (2 * 102 + 2, 3 * 82 + 2)
    assert (whole[104:204, 2:82] == np.asarray(enlarged(images[3]))).all()


def test_spread_out() -> None:
    assert spread_out(range(9), 3) == [0, 4, 8]
    assert spread_out(range(2), 3) == [0, 1]


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_film_that_can_not_be_written_leaves_the_old_one(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    frames = to_images(noise(3, 3, 16, 16))
    write_film(frames, path)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_film([*frames, None], path)  # type: ignore[list-item]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------------------------------- figures


def pixels_of(figure: Figure, path: Path) -> np.ndarray:
    write_png(figure, path, {})
    return np.asarray(open_image(path).convert("RGB"))


def places_of(tile: Image.Image, pixels: np.ndarray) -> list[tuple[int, int]]:
    """Where in the pixels [H, W, 3] the tile stands, exactly."""
    wanted = np.asarray(tile.convert("RGB"))
    height, width, _ = wanted.shape
    corners = np.argwhere((pixels == wanted[0, 0]).all(axis=-1))
    return [
        (y, x)
        for y, x in corners.tolist()
        if np.array_equal(pixels[y : y + height, x : x + width], wanted)
    ]


def test_a_table_shows_each_image_pixel_for_pixel(tmp_path: Path) -> None:
    images = to_images(noise(4, 3, 32, 48))
    cells = [Cell(image, f"caption {n}") for n, image in enumerate(images)]
    rows = [("first", cells[:2]), ("second, with a long name", [*cells[2:3], Cell()])]
    pixels = pixels_of(
        table("A title", ["left", "a heading wider than its images"], rows), tmp_path / "table.png"
    )
    (first,), (second,), (below,) = (places_of(enlarged(image), pixels) for image in images[:3])
    assert first[0] == second[0]
    assert first[1] == below[1]
    assert second[1] - first[1] > 96 + 14  # the heading has widened the columns
    assert not places_of(enlarged(images[3]), pixels)


def test_texts_of_a_table_are_no_formulas() -> None:
    (image,) = to_images(noise(1, 1, 8, 8))
    figure = table("5 $ for $x^{", ["$a$"], [("$b_", [Cell(image, "$$")])])
    written = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
    assert {"5 $ for $x^{", "$a$", "$b_", "$$"} <= written
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_figures_carry_parameters(tmp_path: Path) -> None:
    parameters = {"prompt": "Ein Würfel, 骰子", "seeds": [1, 2]}
    path = tmp_path / "curve.png"
    write_png(curves({"one": [(1, 2), (3, 4)]}, "x", "y"), path, parameters)
    assert read_parameters(path) == parameters
    with Image.open(path) as image:
        assert image.info["parameters"] == json.dumps(parameters)
        assert "Software" not in image.info


def test_curves() -> None:
    lines = {"falling": [(0.1, 4.0), (1.0, 2.0), (10.0, 1.0)], "a point": [(1.0, 3.0)]}
    spans = {"falling": [(3.5, 4.5), (1.9, 2.1), (0.9, 1.1)]}
    (axes,) = curves(lines, "sigma", "error", spans, log_x=True).axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("sigma", "error", "log")
    assert [line.get_label() for line in axes.lines] == list(lines)
    for drawn, line in zip(axes.lines, lines.values(), strict=True):
        assert np.array_equal(np.asarray(drawn.get_xydata()), line)
    (bars,) = axes.collections
    heights = [np.asarray(path.vertices)[:, 1] for path in bars.get_paths()]
    assert np.array_equal(heights, spans["falling"])


def test_a_histogram_counts_every_number() -> None:
    sets = {"digits": torch.randn(200), "clothes": torch.randn(100) + 3}
    (axes,) = histogram(sets, "bits per dimension").axes
    assert [sum(bar.get_height() for bar in bars) for bars in axes.containers] == [200, 100]
    edges = [[bar.get_x() for bar in bars] for bars in axes.containers]
    assert edges[0] == edges[1]


def test_figures_leave_pyplot_alone_and_sheets_leave_matplotlib_alone() -> None:
    code = """
import sys
import samplers.images.files, samplers.images.films, samplers.images.sheets
assert "matplotlib" not in sys.modules
import samplers.images.figures, samplers.images.plots
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
