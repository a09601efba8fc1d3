r"""How far samples of the probability-flow ODE are from those of the reverse SDE.

Both have the law of the data if the score is exact and the steps are small. The gap that is left
when the steps get smaller and smaller is that of the score, which the residual bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adjoint.fokker_planck.law import Law, of_samples, on_cells

Distance = Callable[[Tensor, Tensor], float]
"""Of two sets of samples [N, ...]."""


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 256, seed: int = 0) -> float:
    r"""The squared distance W_2^2 of projections to a line, in the mean over random lines, times d.

    For two normal laws of one covariance it is the squared distance of their means. The sets must
    be equally large.
    """
    x, y = _flat(a, b)
    if len(x) != len(y):
        raise ValueError(f"The sets have {len(x)} and {len(y)} samples; make them equally large.")
    size = x.shape[1]
    drawn = torch.randn(
        directions, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    lines = F.normalize(drawn, dim=1).to(x).T
    gaps = (x @ lines).sort(dim=0).values - (y @ lines).sort(dim=0).values
    return size * float(gaps.square().mean())


def energy_distance(a: Tensor, b: Tensor) -> float:
    r"""``2 E|a - b| - E|a - a'| - E|b - b'|``, without a bias (Szekely, Rizzo 2013).

    Zero in the mean if the laws are one, and it may be negative by chance.
    """
    x, y = _flat(a, b)
    return 2 * float(torch.cdist(x, y).mean()) - _within(x) - _within(y)


def exact_wasserstein(a: Tensor, b: Tensor) -> float:
    """The squared distance W_2^2 of two sets of points, exact; for some thousands of points.

    Raises ValueError without the package POT.
    """
    return wasserstein(*map(of_samples, _flat(a, b)))


def binned_wasserstein(a: Tensor, b: Tensor, width: float) -> float:
    """The squared distance W_2^2 of two sets, each point moved to the middle of its cell.

    Args:
        width: of the cells, which lie wherever there are points. W_2 errs by ``width sqrt(d)`` at
            most. For 10^5 points in the plane and more.

    Raises ValueError without the package POT.
    """
    return wasserstein(*(on_cells(points, width) for points in _flat(a, b)))


def wasserstein(one: Law, other: Law) -> float:
    """The squared distance W_2^2 of two laws on some thousands of places each, exact.

    Raises ValueError without the package POT.
    """
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ValueError(
            "The exact distance needs the package POT; install it with "
            "pip install 'retrograde[transport]'."
        ) from error
    (x, p), (y, q) = (
        (each.places.cpu().numpy(), each.shares.cpu().numpy()) for each in (one, other)
    )
    return float(ot.emd2(p, q, ot.dist(x, y), numItermax=10_000_000))


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"The sets have the shapes {list(a.shape)} and {list(b.shape)}; samples must have one "
            "shape, and there must be two at least."
        )
    return a.flatten(1).double(), b.flatten(1).double()


def _within(x: Tensor) -> float:
    count = len(x)
    return float(torch.cdist(x, x).sum()) / (count * (count - 1))


class Gap(NamedTuple):
    """Distances at a number of steps; of each to data if there are any, else NaN."""

    steps: int
    ode_sde: float
    ode_data: float
    sde_data: float


def ode_sde_gap(
    ode: Callable[[int], Tensor],
    sde: Callable[[int], Tensor],
    steps: Sequence[int],
    distance: Distance = sliced_wasserstein,
    data: Tensor | None = None,
) -> list[Gap]:
    """The distances of samples of the ODE, of the SDE, and of data, at several numbers of steps.

    Args:
        ode, sde: draw samples [N, ...] in so many steps, by a deterministic and by a stochastic
            sampler. What the gap goes to with more steps is due to the score, and not to the steps.
    """
    found = []
    for count in steps:
        one, other = ode(count), sde(count)
        of_data = [math.nan if data is None else distance(x, data) for x in (one, other)]
        found.append(Gap(count, distance(one, other), *of_data))
    return found


def floor(
    samples: Tensor,
    distance: Distance = sliced_wasserstein,
    splits: int = 10,
    groups: Sequence[int] | None = None,
) -> float:
    """The distance of two halves of one set, in the mean over random halves.

    Args:
        groups: of the samples, such as classes, for sets that have equally many of each: halves do
            too, but for one of a group that can't be halved.

    Halves scatter more than whole sets: of sets as large as the whole, the squared distances of one
    law are half of this.
    """
    half = len(samples) // 2
    order = torch.tensor([0] * len(samples) if groups is None else groups)
    found = []
    for seed in range(splits):
        mixed = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
        # Neighbours are of one group, and go into different halves.
        mixed = mixed[order[mixed].argsort(stable=True)]
        found.append(distance(samples[mixed[0::2][:half]], samples[mixed[1::2]]))
    return sum(found) / splits


def centred(a: Tensor, b: Tensor, distance: Distance = sliced_wasserstein) -> float:
    """A squared distance of two laws, without what two sets of samples have of it by chance.

    The distances of the halves of one set from those of the other, in the mean over the four
    pairs, less those of the two halves of each set, in the mean over the two. Exact in the mean
    for laws that differ by a shift, and it may be negative by chance (Papp and Sherlock 2022,
    https://arxiv.org/abs/2203.11627).
    """
    ones, others = _halves(a), _halves(b)
    between = [distance(one, other) for one in ones for other in others]
    return sum(between) / 4 - (distance(*ones) + distance(*others)) / 2


def _halves(samples: Tensor) -> tuple[Tensor, Tensor]:
    half = len(samples) // 2
    if half < 2:
        raise ValueError(f"A set of {len(samples)} can't be halved; give 4 samples or more.")
    return samples[:half], samples[half : 2 * half]
