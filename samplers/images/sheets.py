"""Layer 6. Sheets: images side by side on one image, pixel for pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from PIL import Image

T = TypeVar("T")

_PAPER = "white"
# Smaller images are enlarged by a whole factor, without interpolation.
_READABLE = 96


def enlargement(size: tuple[int, int]) -> int:
    """The whole factor by which an image of this size is enlarged on a sheet."""
    return max(1, math.ceil(_READABLE / max(size)))


def enlarged(image: Image.Image) -> Image.Image:
    """The image, enlarged; each pixel becomes a square of pixels."""
    factor = enlargement(image.size)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def columns_for(count: int, classes: int) -> int:
    """The number of columns: one for each class if that fills all rows, else for a square sheet."""
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


def spread_out(items: Sequence[T], most: int) -> list[T]:
    """At most this number of items, evenly spread, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
