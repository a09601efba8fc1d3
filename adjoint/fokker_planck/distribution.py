"""Discrete distributions on points: of samples, of samples on cells, and of a potential."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.potential import Potential


class Distribution(NamedTuple):
    """Points [N, d] and their probabilities [N], which sum to 1."""

    points: Tensor
    probabilities: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of values [N] at the points."""
        return self.probabilities.to(values) @ values

    @property
    def centre(self) -> Tensor:
        """The expectation of the points, [d]."""
        return self.mean(self.points)


def empirical(x: Tensor) -> Distribution:
    """The empirical distribution of samples [N, d]."""
    return Distribution(x, x.new_full((len(x),), 1 / len(x)))


def binned(x: Tensor, width: float) -> Distribution:
    """Samples [N, d], each moved to the centre of its cell of this width."""
    cells, counts = (x / width).floor().unique(dim=0, return_counts=True)
    return Distribution((cells + 0.5) * width, counts.to(x) / len(x))


def of_potential(phi: Potential, t: Tensor, points: Tensor) -> Distribution:
    """``exp(phi_t) / Z`` on equally spaced points, such as those of :func:`regular_grid`."""
    values = phi(points, t.to(points).expand(len(points)))
    return Distribution(points, values.detach().softmax(dim=0))


def regular_grid(edge: float, count: int, dimensions: int = 2) -> Tensor:
    """The points [count^d, d] of a regular grid on [-edge, edge]^d, in float64 on the CPU."""
    line = torch.linspace(-edge, edge, count, dtype=torch.float64)
    return torch.cartesian_prod(*[line] * dimensions).reshape(-1, dimensions)
