"""Layer 6. Figures: tables of labelled images, curves, histograms.

Figures do not use pyplot or its global state, so that no backend is chosen and threads do not
interfere. This module imports matplotlib, so import it where a figure is made.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.figure
import matplotlib.text
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image
from torch import Tensor

from samplers.images.sheets import enlarged

DPI = 100


class Figure(matplotlib.figure.Figure):
    """A figure of matplotlib that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()


# ------------------------------------------------------------------------------ tables of images


class Cell(NamedTuple):
    """A cell of a table: an image, or none, and the lines of its caption."""

    image: Image.Image | None = None
    caption: str = ""


_HEADING, _CAPTION = 10.5, 9.0
"""Sizes of text in points."""
_GAP, _LINE = 14, 17
"""Between cells, and from line to line of a caption, in pixels."""


def table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> Figure:
    """Images in rows and columns, with a heading over each column and a name before each row.

    Small images are enlarged, and a pixel of an image is a whole number of pixels of the figure.
    """
    cells = [cell for _, row in rows for cell in row]
    width, height = _cell_size(columns, cells)
    gap = _GAP + _LINE * max(len(cell.caption.splitlines()) for cell in cells)
    across = len(columns) * (width + _GAP) - _GAP
    down = len(rows) * (height + gap) - gap
    figure = Figure(figsize=(across / DPI, down / DPI), dpi=DPI)
    # The grid fills the figure; what is written around it counts when the figure is saved "tight".
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1}
    spaces = {"wspace": _GAP / width, "hspace": gap / height}
    places = figure.subplots(len(rows), len(columns), squeeze=False, gridspec_kw=edges | spaces)
    for (name, row), line in zip(rows, places, strict=True):
        line[0].set_ylabel(name, size=_HEADING, rotation=0, ha="right", va="center")
        for cell, place in zip(row, line, strict=True):
            _show(cell, place, width, height)
    for heading, place in zip(columns, places[0], strict=True):
        place.set_title(heading, size=_HEADING, pad=6)
    above = 2.2 * _LINE if any(columns) else 0.7 * _LINE
    figure.text(0, 1 + above / down, title, size=_HEADING)
    for text in figure.findobj(matplotlib.text.Text):
        text.set_parse_math(False)  # the names of files may hold dollars
    return figure


def _cell_size(columns: Sequence[str], cells: Sequence[Cell]) -> tuple[int, int]:
    """The width and height in pixels of the largest image or line of text."""
    sizes = [enlarged(cell.image).size for cell in cells if cell.image is not None]
    texts = [_width(heading, _HEADING) for heading in columns]
    texts += [_width(line, _CAPTION) for cell in cells for line in cell.caption.splitlines()]
    return max([*texts, *(width for width, _ in sizes)]), max(height for _, height in sizes)


def _width(text: str, size: float) -> int:
    """The width of a line of text, in pixels."""
    font = FontProperties(size=size)
    points, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return math.ceil(points * DPI / 72)


def _show(cell: Cell, axes: Axes, width: int, height: int) -> None:
    """Draw a cell, whose axes have this size in pixels."""
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.set_xlabel(cell.caption, size=_CAPTION, color="0.4", labelpad=4)
    if cell.image is not None:
        tile = enlarged(cell.image)
        left = (width - tile.width) // 2
        extent = (left, left + tile.width, tile.height, 0)
        axes.imshow(tile.convert("RGBA"), extent=extent, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0))


# --------------------------------------------------------------------------- curves, histograms

Points = Sequence[tuple[float, float]]
_BINS = 60


def curves(
    lines: Mapping[str, Points],
    x: str,
    y: str,
    spans: Mapping[str, Points] | None = None,
    *,
    log_x: bool = False,
) -> Figure:
    """Lines through points (x, y).

    Args:
        lines: the points of each line by its name.
        x, y: the labels of the axes.
        spans: of some lines, the ends of the error bar at each point.
        log_x: whether the x axis is logarithmic.
    """
    figure, axes = plot_area(x, y)
    for name, line in lines.items():
        across, up = np.array(line).T
        (drawn,) = axes.plot(across, up, "o-", markersize=3, label=name)
        if spans and name in spans:
            axes.vlines(across, *np.array(spans[name]).T, color=drawn.get_color(), linewidth=1)
    if log_x:
        axes.set_xscale("log")
    axes.grid(color="0.9")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def histogram(sets: Mapping[str, Tensor], x: str, y: str = "images") -> Figure:
    """Histograms of sets of numbers [N], with 60 bins."""
    figure, axes = plot_area(x, y)
    values = {name: numbers.double().numpy() for name, numbers in sets.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), _BINS)
    for name, numbers in values.items():
        axes.hist(numbers, bins.tolist(), alpha=0.6, label=name)
    axes.legend(frameon=False, fontsize=9)
    return figure


def plot_area(x: str, y: str, size: tuple[float, float] = (7.6, 3.2)) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its axes with these labels."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
