"""Laws as places and their shares: of samples, of samples on cells, and of a potential."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.potential import Potential


class Law(NamedTuple):
    """Places [N, d] and their shares [N], which add up to 1."""

    places: Tensor
    shares: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Of values [N] at the places."""
        return self.shares.to(values) @ values


def of_samples(x: Tensor) -> Law:
    """Samples [N, d], which have equal shares."""
    return Law(x, x.new_full((len(x),), 1 / len(x)))


def on_cells(x: Tensor, width: float) -> Law:
    """Samples [N, d], each moved to the middle of its cell of this width."""
    cells, counts = (x / width).floor().unique(dim=0, return_counts=True)
    return Law((cells + 0.5) * width, counts.to(x) / len(x))


def of_potential(phi: Potential, t: Tensor, places: Tensor) -> Law:
    """``exp(phi_t) / Z`` on places that are equally far from each other, as those of a grid are."""
    values = phi(places, t.to(places).expand(len(places)))
    return Law(places, values.detach().softmax(dim=0))


def grid(edge: float, count: int, dimensions: int = 2) -> Tensor:
    """The places [count^d, d] of a regular grid over the cube from -edge to edge, in float64, on
    the CPU."""
    line = torch.linspace(-edge, edge, count, dtype=torch.float64)
    return torch.cartesian_prod(*[line] * dimensions).reshape(-1, dimensions)
