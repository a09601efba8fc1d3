"""Samples of a sampler in the plane that scatter less than independent ones.

Each sample has exactly the law that it would have by itself, but together they fill it evenly:
starting points are a scrambled Sobol sequence, and so is the noise of each step, given to the
samples in the order in which they lie along a Hilbert curve (array-RQMC; L'Ecuyer, Lecot and Tuffin
2008, Operations Research 56).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from samplers.solve import Model, Solver
from samplers.tableau import Tableau

_BITS = 12
_EDGE = 1e-9


class StratifiedNoise:
    """Noise [count, 2] of each row of a tableau for samples that are somewhere.

    seen: to be called with the samples whenever the network is asked, which a row does before it
        draws.
    """

    def __init__(self, count: int, seed: int) -> None:
        points = SobolEngine(3, scramble=True, seed=seed).draw(count, dtype=torch.float64)
        self.points = points[points[:, 0].argsort(), 1:]
        self.generator = torch.Generator().manual_seed(seed)
        self.places = torch.zeros(count, 2)

    def seen(self, x: Tensor) -> None:
        self.places = x

    def __call__(self, row: int) -> Tensor:
        shift = torch.rand(2, generator=self.generator, dtype=torch.float64)
        noise = torch.empty_like(self.points)
        noise[hilbert_index(self.places).argsort()] = normal((self.points + shift) % 1)
        return noise


def draw(
    model: Model,
    tableau: Tableau,
    count: int,
    seed: int,
    seen: Callable[[Tensor, Tensor], object] = lambda x, t: None,
) -> Tensor:
    """Samples [count, 2] of a score, in float32.

    seen: gets the samples and their time whenever the network is asked.
    """
    noise = StratifiedNoise(count, seed)

    def asked(x: Tensor, t: Tensor) -> Tensor:
        noise.seen(x)
        seen(x, t[0])
        return model(x, t)

    solver = Solver(tableau, "score", noise)
    uniform = SobolEngine(2, scramble=True, seed=seed).draw(count, dtype=torch.float64)
    *_, last = solver.run(asked, solver.init((tableau.start.sigma * normal(uniform)).float()))
    return last.x


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones, in their order."""
    return torch.special.ndtri(uniform.clamp(_EDGE, 1 - _EDGE))


def hilbert_index(x: Tensor) -> Tensor:
    """Where points [N, 2] lie along a Hilbert curve over the rectangle that holds them, [N]."""
    low, high = x.amin(dim=0), x.amax(dim=0)
    cells = ((x - low) / (high - low).clamp(min=1e-12) * (2**_BITS - 1)).long()
    a, b = cells.unbind(dim=1)
    index = torch.zeros_like(a)
    for level in reversed(range(_BITS)):
        side = 2**level
        right, up = (a & side > 0).long(), (b & side > 0).long()
        index += side * side * ((3 * right) ^ up)
        turned = up == 0
        mirrored = turned & (right == 1)
        a = torch.where(mirrored, 2**_BITS - 1 - a, a)
        b = torch.where(mirrored, 2**_BITS - 1 - b, b)
        a, b = torch.where(turned, b, a), torch.where(turned, a, b)
    return index
