"""The latent points: a regular grid of square cells over a rectangle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from text2pde.mesh import FloatArray

_POINTS = 1024
_MULTIPLE = 4


def default_cells(length: float, height: float) -> tuple[int, int]:
    """Columns and rows of nearly square cells, about a thousand, both multiples of four."""
    rows = _MULTIPLE * max(1, round(math.sqrt(_POINTS * height / length) / _MULTIPLE))
    return _MULTIPLE * max(1, round(rows * length / height / _MULTIPLE)), rows


@dataclass(frozen=True)
class LatentGrid:
    """The centres of equal cells over a rectangle with a corner at the origin.

    Attributes:
        columns, rows: numbers of cells along x and y.
        length, height: of the rectangle, in metres.

    Raises:
        ValueError: for cells that are far from square, since neighbourhoods are circles.
    """

    columns: int = 64
    rows: int = 16
    length: float = 1.6
    height: float = 0.41

    def __post_init__(self) -> None:
        if self.columns < 1 or self.rows < 1:
            raise ValueError(
                f"The grid has {self.columns} x {self.rows} cells; it must have at least one."
            )
        width, height = self.length / self.columns, self.height / self.rows
        if not 2 / 3 < width / height < 3 / 2:
            raise ValueError(
                f"Cells of {width:.3g} x {height:.3g} m are far from square; choose columns and "
                f"rows in the ratio of {self.length:g} to {self.height:g}."
            )

    @property
    def spacing(self) -> float:
        """The longer side of a cell."""
        return max(self.length / self.columns, self.height / self.rows)

    @property
    def points(self) -> FloatArray:
        """[rows * columns, 2], row by row."""
        x = (np.arange(self.columns) + 0.5) * self.length / self.columns
        y = (np.arange(self.rows) + 0.5) * self.height / self.rows
        return np.stack([c.ravel() for c in np.meshgrid(x, y)], axis=1)
