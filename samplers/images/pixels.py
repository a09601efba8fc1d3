"""Layer 6. Pictures: tensors to pixels, sheets with captions, PNG files that say their making.

Nothing here knows networks or samplers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

from samplers.files import replacing

PARAMETERS = "parameters"
"""The keyword of the PNG text chunk that holds how a picture was made, as JSON."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PAPER = "white"
_INK = (34, 34, 34)
_FAINT = (110, 110, 110)
# Images smaller than this on paper are enlarged by a whole factor, so that pixels stay pixels.
_READABLE = 96


def to_images(x: Tensor) -> list[Image.Image]:
    """Pictures of a batch [B, C, H, W] whose values run from -1 (black) to 1 (white).

    Raises ValueError unless C is 1 (grey), 3 (colour) or 4 (colour and opacity).
    """
    channels = x.shape[1]
    if channels not in _MODES:
        raise ValueError(
            f"The samples have {channels} channels; only 1, 3 or 4 can be drawn as a picture."
        )
    levels = ((x.double().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    last = "b h w c" if channels > 1 else "b h (w c)"  # grey pictures have no axis of colours
    arrays = rearrange(levels, f"b c h w -> {last}")
    return [Image.fromarray(array.contiguous().numpy()) for array in arrays]


def enlargement(size: tuple[int, int]) -> int:
    """The whole factor by which an image of this size is enlarged on a sheet."""
    return max(1, math.ceil(_READABLE / max(size)))


def enlarged(image: Image.Image) -> Image.Image:
    """The image as it stands on a sheet; each pixel becomes a square of pixels."""
    factor = enlargement(image.size)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def columns_for(count: int, classes: int) -> int:
    """Columns of a sheet: one for each class if that fills its rows, else as square as can be."""
    if 1 < classes <= 16 and count % classes == 0:
        return classes
    return math.ceil(math.sqrt(count))


def sheet(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """The images in rows of ``columns``, enlarged if small, with a narrow gap between."""
    tiles = [enlarged(image) for image in images]
    width, height = tiles[0].size
    gap = max(2, width // 32)
    rows = math.ceil(len(tiles) / columns)
    mode = "L" if tiles[0].mode == "L" else "RGB"
    size = (columns * (width + gap) + gap, rows * (height + gap) + gap)
    paper = Image.new(mode, size, _PAPER)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        paper.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return paper


@dataclass(frozen=True)
class Cell:
    """One place of a table: images side by side, or none, and the lines of text beneath."""

    images: tuple[Image.Image, ...]
    lines: tuple[str, ...]


def table(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]
) -> Image.Image:
    """A picture with a heading over every column and a name before every row of cells."""
    return _Table(title, tuple(columns), tuple((name, tuple(cells)) for name, cells in rows)).draw()


_MARGIN = 16
_TEXT, _SMALL = 15, 13
_LINE = 18


@dataclass(frozen=True)
class _Table:
    """The measures of a table of pictures: everything follows from its widest cell and name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def _cells(self) -> list[Cell]:
        return [cell for _, cells in self.rows for cell in cells]

    @property
    def _tile(self) -> tuple[int, int]:
        sizes = [enlarged(image).size for cell in self._cells for image in cell.images]
        return max((w for w, _ in sizes), default=_READABLE), max(
            (h for _, h in sizes), default=_READABLE
        )

    @property
    def _cell(self) -> tuple[int, int]:
        width, height = self._tile
        beside = max((len(cell.images) for cell in self._cells), default=1)
        lines = max((len(cell.lines) for cell in self._cells), default=0)
        texts = [line for cell in self._cells for line in cell.lines]
        text = max((_width(line, _SMALL) for line in texts), default=0)
        return max(beside * (width + 4) - 4, text), height + 6 + lines * _LINE

    @property
    def _left(self) -> int:
        return _MARGIN + max(_width(name, _TEXT) for name, _ in self.rows) + _MARGIN

    @property
    def _top(self) -> int:
        return _MARGIN + 3 * _LINE + 4

    def draw(self) -> Image.Image:
        width, height = self._cell
        across = self._left + len(self.columns) * (width + _MARGIN)
        across = max(across, _width(self.title, _TEXT) + 2 * _MARGIN)
        down = self._top + len(self.rows) * (height + _MARGIN)
        paper = Image.new("RGB", (across, down), _PAPER)
        pen = ImageDraw.Draw(paper)
        pen.text((_MARGIN, _MARGIN), self.title, fill=_INK, font=_font(_TEXT))
        for number, heading in enumerate(self.columns):
            self._centred(pen, self._x(number), _MARGIN + 2 * _LINE - 6, heading, _TEXT)
        for row, (name, cells) in enumerate(self.rows):
            y = self._top + row * (height + _MARGIN)
            middle = y + self._tile[1] // 2
            pen.text((_MARGIN, middle), name, fill=_INK, font=_font(_TEXT), anchor="lm")
            for number, cell in enumerate(cells):
                self._draw_cell(paper, pen, self._x(number), y, cell)
        return paper

    def _x(self, column: int) -> int:
        return self._left + column * (self._cell[0] + _MARGIN)

    def _draw_cell(
        self, paper: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, cell: Cell
    ) -> None:
        tiles = [enlarged(image) for image in cell.images]
        used = sum(tile.width + 4 for tile in tiles) - 4
        at = x + (self._cell[0] - used) // 2
        for tile in tiles:
            paper.paste(tile, (at, y))
            at += tile.width + 4
        for number, line in enumerate(cell.lines):
            below = y + self._tile[1] + 6 + number * _LINE
            self._centred(pen, x, below, line, _SMALL)

    def _centred(self, pen: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int) -> None:
        ink = _INK if size == _TEXT else _FAINT
        where = (x + self._cell[0] / 2, y)
        pen.text(where, text, fill=ink, font=_font(size), anchor="ma")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getbbox(text)[2])


_INKS = ((40, 90, 160), (200, 110, 40), (60, 140, 70), (150, 60, 140), (120, 120, 120),
         (190, 50, 60), (60, 150, 160))  # fmt: skip
_WIDE, _HIGH, _EDGE = 760, 300, 40
_BINS = 60


def histogram(sets: Mapping[str, Tensor], unit: str) -> Image.Image:
    """How many of the numbers of each set [N] lie where, the sets drawn over each other."""
    low, high, step = _range(torch.cat(list(sets.values())))
    counts = {name: torch.histc(values.float(), _BINS, low, high) for name, values in sets.items()}
    tallest = max(float(count.max()) for count in counts.values())
    picture = Image.new("RGB", (_WIDE, _HIGH), _PAPER)
    pen = ImageDraw.Draw(picture, "RGBA")
    ground, wide = _HIGH - _EDGE, (_WIDE - 2 * _EDGE) / _BINS
    for number, (name, count) in enumerate(counts.items()):
        ink = _INKS[number % len(_INKS)]
        for place, height in enumerate((count / tallest * (_HIGH - 3 * _EDGE)).tolist()):
            left = _EDGE + place * wide
            pen.rectangle((left, ground - height, left + wide - 1, ground), (*ink, 150))
        where = (_WIDE - _EDGE, 20 + 20 * number)
        pen.text(where, name, ink, font=_font(_TEXT), anchor="rm")
    for tick in _ticks(low, high, step):
        x = _EDGE + (tick - low) / (high - low) * (_WIDE - 2 * _EDGE)
        pen.text((x, ground + 14), f"{tick:g}", _INK, font=_font(_SMALL), anchor="mm")
    pen.text((_WIDE / 2, _HIGH - 10), unit, _INK, font=_font(_SMALL), anchor="mm")
    return picture


Points = Sequence[tuple[float, float]]


def curve(
    lines: Mapping[str, Points],
    unit: str,
    bars: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Image.Image:
    """Lines through points (x, y), drawn over each other; ``unit`` is that of x.

    Args:
        bars: of some lines, from where to where an error bar goes at each point.
    """
    spans = {
        name: [(x, *span) for (x, _), span in zip(lines[name], found, strict=True)]
        for name, found in (bars or {}).items()
    }
    ends = [(x, y) for found in spans.values() for x, *both in found for y in both]
    every = [point for line in lines.values() for point in line] + ends
    points = torch.tensor(every).double()
    (left, right, x_step), (low, high, y_step) = _range(points[:, 0]), _range(points[:, 1])
    # The names stand above the lines, a row each.
    tall = _HIGH + 20 * (len(lines) - 1)
    picture = Image.new("RGB", (_WIDE, tall), _PAPER)
    pen = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - left) / (right - left), (y - low) / (high - low)
        edge = 2 * _EDGE
        return edge + across * (_WIDE - edge - _EDGE), tall - _EDGE - up * (_HIGH - 2 * _EDGE)

    for tick in _ticks(low, high, y_step):
        (start, y), (end, _) = place(left, tick), place(right, tick)
        pen.line((start, y, end, y), (230, 230, 230))
        pen.text((start - 8, y), f"{tick:.4g}", _INK, font=_font(_SMALL), anchor="rm")
    for tick in _ticks(left, right, x_step):
        x, ground = place(tick, low)
        pen.text((x, ground + 14), f"{tick:g}", _INK, font=_font(_SMALL), anchor="mm")
    for number, (name, line) in enumerate(lines.items()):
        ink = _INKS[number % len(_INKS)]
        pen.line([place(*point) for point in line], ink, width=2)
        if len(line) == 1:
            x, y = place(*line[0])
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), ink)
        for x, start, end in spans.get(name, ()):
            pen.line([place(x, start), place(x, end)], ink, width=1)
        pen.text((_WIDE - _EDGE, 16 + 20 * number), name, ink, font=_font(_TEXT), anchor="rm")
    pen.text((_WIDE / 2, tall - 10), unit, _INK, font=_font(_SMALL), anchor="mm")
    return picture


def _ticks(low: float, high: float, step: float) -> list[float]:
    """Marks of an axis, where 0 is 0 and not a rounding error."""
    return [step * k for k in range(round(low / step), round(high / step) + 1)]


def _range(values: Tensor) -> tuple[float, float, float]:
    """Round ends of an axis that holds the values, and the distance of some five to ten marks."""
    low, high = float(values.min()), float(values.max())
    across = max(high - low, 1e-2 * max(abs(high), 1))
    decade: float = 10 ** math.floor(math.log10(across))
    step = next(s for s in (decade / 10, decade / 5, decade / 2, decade) if across / s <= 10)
    return math.floor(low / step) * step, math.floor(high / step + 1) * step, step


class PictureError(OSError):
    """A picture can't be read; the message says it in a sentence."""


def open_picture(path: Path) -> Image.Image:
    """A PNG or JPEG with all its pixels, upright; black and white, and palettes of greys, as grey.

    An opacity comes as a channel of its own, unless nothing is transparent.

    Raises PictureError if there is none, or not a whole one.
    """
    if not path.exists():
        raise PictureError(f"There is no picture at {path}: no such file.")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)  # as cameras note it, and viewers show it
            return unpacked(upright)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{path} can't be read as a picture; give a whole PNG or JPEG."
        ) from error


SHEET = "grid.png"
"""The sheet of all images in a folder that ``samplers sample`` drew."""

_SUFFIXES = (".png", ".jpg", ".jpeg")
_OPAQUE = {"LA": "L", "RGBA": "RGB"}


def listed(places: Sequence[Path]) -> list[Path]:
    """The named files, and the PNG and JPEG files in the named folders, sorted by name.

    The sheet of all images in a folder is left out. Raises PictureError for a folder without any.
    """
    return [path for place in places for path in (_inside(place) if place.is_dir() else [place])]


def _inside(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    found = [path for path in found if path.name != SHEET]
    if not found:
        raise PictureError(f"The folder {folder} holds no picture; a PNG or JPEG is needed.")
    return found


def unpacked(image: Image.Image) -> Image.Image:
    """With levels up to 255 instead of bits, places in a palette, or levels up to 65535; of grey if
    there is nothing else, and with an opacity where something is transparent."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        clear = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            return clear
    if image.mode in _OPAQUE:
        return image.convert(_OPAQUE[image.mode])
    if image.mode not in ("1", "P"):
        return image
    colours, grey = image.convert("RGB"), image.convert("L")
    return colours if ImageChops.difference(colours, grey.convert("RGB")).getbbox() else grey


def levels_of(image: Image.Image) -> Tensor:
    """The levels of a picture, 0 (black) to 255 (white): [1, C, H, W], torch.uint8."""
    pixels = torch.from_numpy(np.array(image))
    pattern = "h w -> 1 1 h w" if pixels.ndim == 2 else "h w c -> 1 c h w"
    return rearrange(pixels, pattern).contiguous()


def values_of(levels: Tensor) -> Tensor:
    """Levels from 0 (black) to 255 (white) as values from -1 to 1, float64."""
    return levels.double() / 127.5 - 1


def write_png(image: Image.Image, path: Path, parameters: dict[str, Any]) -> None:
    """Write the picture with its parameters; ``path`` is whole or untouched at every moment."""
    info = PngImagePlugin.PngInfo()
    info.add_text(PARAMETERS, json.dumps(parameters))
    with replacing(path) as part:
        image.save(part, format="PNG", pnginfo=info)


def read_parameters(path: Path) -> dict[str, Any] | None:
    """How the picture was made, or None if it is no whole picture of ours."""
    try:
        with Image.open(path) as image:
            image.load()
            found = json.loads(image.info[PARAMETERS])
    except (OSError, SyntaxError, KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None
