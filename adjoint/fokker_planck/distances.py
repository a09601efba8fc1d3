"""Distances of two sets of samples, and what of them is due to the finite number of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adjoint.fokker_planck.distribution import Distribution, binned, empirical

Distance = Callable[[Tensor, Tensor], float]
"""A squared distance of two sets of samples [N, ...]."""


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 256, seed: int = 0) -> float:
    r"""The sliced Wasserstein distance: W_2^2 of projections on random lines, in the mean, times d.

    For two normal distributions with one covariance it is the squared distance of their means.
    Raises ValueError unless the sets have the same size.
    """
    x, y = _flat(a, b)
    if len(x) != len(y):
        raise ValueError(f"The sets have {len(x)} and {len(y)} samples; pass sets of one size.")
    size = x.shape[1]
    random = torch.randn(
        directions, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    lines = F.normalize(random, dim=1).to(x).T
    gaps = (x @ lines).sort(dim=0).values - (y @ lines).sort(dim=0).values
    return size * float(gaps.square().mean())


def energy_distance(a: Tensor, b: Tensor) -> float:
    r"""``2 E|a - b| - E|a - a'| - E|b - b'|``, without bias (Szekely, Rizzo 2013).

    Zero in the mean for samples of one distribution, so a value may be negative.
    """
    x, y = _flat(a, b)
    return 2 * float(torch.cdist(x, y).mean()) - _within(x) - _within(y)


def exact_wasserstein(a: Tensor, b: Tensor) -> float:
    """The exact squared distance W_2^2 of two sets of points; for some thousands of points.

    Raises ValueError without the package POT.
    """
    return wasserstein(*map(empirical, _flat(a, b)))


def binned_wasserstein(a: Tensor, b: Tensor, width: float) -> float:
    """The squared distance W_2^2 of two sets, each point moved to the centre of its cell.

    Args:
        width: of the cells. W_2 errs by ``width sqrt(d)`` at most. For 10^5 points in the plane and
            more.

    Raises ValueError without the package POT.
    """
    return wasserstein(*(binned(points, width) for points in _flat(a, b)))


def wasserstein(one: Distribution, other: Distribution) -> float:
    """The exact squared distance W_2^2 of two distributions on some thousands of points each.

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
        (each.points.cpu().numpy(), each.probabilities.cpu().numpy()) for each in (one, other)
    )
    return float(ot.emd2(p, q, ot.dist(x, y), numItermax=10_000_000))


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"The sets have the shapes {list(a.shape)} and {list(b.shape)}; samples must have one "
            "shape, and each set at least two."
        )
    return a.flatten(1).double(), b.flatten(1).double()


def _within(x: Tensor) -> float:
    count = len(x)
    return float(torch.cdist(x, x).sum()) / (count * (count - 1))


# ----------------------------------------------------------------------- finite numbers of samples


def split_half_distance(
    samples: Tensor,
    distance: Distance = sliced_wasserstein,
    splits: int = 10,
    groups: Sequence[int] | None = None,
) -> float:
    """The distance of two halves of one set, in the mean over random splits.

    Args:
        splits: number of random splits.
        groups: one number for each sample, such as its class, for stratified sets: each group is
            halved, too, as far as its size allows.

    Halves scatter more than whole sets: the expected squared distance of two sets of one
    distribution, each as large as ``samples``, is half of this.
    """
    half = len(samples) // 2
    order = torch.tensor([0] * len(samples) if groups is None else groups)
    found = []
    for seed in range(splits):
        mixed = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
        # Neighbours belong to one group, and go into different halves.
        mixed = mixed[order[mixed].argsort(stable=True)]
        found.append(distance(samples[mixed[0::2][:half]], samples[mixed[1::2]]))
    return sum(found) / splits


def debiased(a: Tensor, b: Tensor, distance: Distance = sliced_wasserstein) -> float:
    """A squared distance of two distributions, without the bias of finite sets of samples.

    The distances of the halves of one set from those of the other, in the mean over the four pairs,
    minus those of the two halves of each set, in the mean over the two. Unbiased for distributions
    that differ by a shift, so a value may be negative (Papp and Sherlock 2022,
    https://arxiv.org/abs/2203.11627).
    """
    ones, others = _halves(a), _halves(b)
    between = [distance(one, other) for one in ones for other in others]
    return sum(between) / 4 - (distance(*ones) + distance(*others)) / 2


def _halves(samples: Tensor) -> tuple[Tensor, Tensor]:
    half = len(samples) // 2
    if half < 2:
        raise ValueError(f"A set of {len(samples)} can't be halved; pass at least 4 samples.")
    return samples[:half], samples[half : 2 * half]
