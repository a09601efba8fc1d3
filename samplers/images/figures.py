"""Layer 6. Figures: tables of labelled images, histograms, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from samplers.images.sheets import enlarged

_PAPER = "white"
_INK = (34, 34, 34)
_FAINT = (110, 110, 110)
_READABLE = 96


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
