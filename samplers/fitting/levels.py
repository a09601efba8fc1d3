r"""Noise levels as a few unconstrained numbers.

The steps in tau from the noisiest level to the last positive one are

.. math:: h_k = h^0_k \exp \Big( p_0 \, 0.3^k
    + \sum_{m \ge 1} p_m \cos \frac{(m - 1) \pi (k + 1/2)}{n - 1} \Big), \qquad k < n - 1

from those of a grid to start from, so that levels fall whatever the numbers, and change smoothly;
p_0 moves all levels together, by changing the first steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from samplers.fitting.pilots import Coordinate
from samplers.grid import Grid

_MOST = 6
_FADING = 0.3


@dataclass(frozen=True, eq=False)
class Levels:
    """The grids around one, of n steps of which the last is to clean data.

    Attributes:
        steps: the others, in tau, as positive numbers [n - 1].
    """

    coordinate: Coordinate
    steps: Tensor

    @classmethod
    def around(cls, coordinate: Coordinate, grid: Grid) -> Levels:
        """Around a grid, which is held in the range of the pilots."""
        return cls(coordinate, -coordinate.tau(grid.points)[:-1].diff())

    @classmethod
    def even(cls, coordinate: Coordinate, steps: int, last: float) -> Levels:
        """Around a grid that is even in tau, to a last positive sigma / alpha."""
        span = coordinate.first - math.log(last / (last + coordinate.c))
        return cls(coordinate, torch.full((steps - 1,), span / (steps - 1), dtype=torch.float64))

    @cached_property
    def _shapes(self) -> Tensor:
        """What each number adds to the logarithms of the steps [n - 1, count]."""
        n = len(self.steps)
        k = torch.arange(n, dtype=torch.float64)
        waves = [torch.cos(m * math.pi / n * (k + 0.5)) for m in range(_MOST - 1)]
        return torch.stack([_FADING**k, *waves], dim=1)[:, :n]

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return self._shapes.shape[1]

    @property
    def zeros(self) -> Tensor:
        return torch.zeros(self.count, dtype=torch.float64)

    def grid(self, numbers: Tensor) -> Grid:
        """The grid of these numbers; that of zeros is the one to start from."""
        steps = self.steps * torch.exp(self._shapes @ numbers)
        span = self.coordinate.first - self.coordinate.last
        steps = steps * (span / steps.sum()).clamp(max=1.0)
        return self.coordinate.grid(self.coordinate.first - steps.cumsum(0))
