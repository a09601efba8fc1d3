"""Samples that escape: some points of a wrong ODE run off, and rule every distance of their set."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

MARGIN = 0.1
"""By which the range of data is widened at both sides, relative to its width."""


class Box(NamedTuple):
    """The interval in which every coordinate of a sample should lie."""

    low: float
    high: float

    def holds(self, x: Tensor) -> Tensor:
        """Whether each of the samples [N, ...] lies in it, [N]; NaN does not."""
        flat = x.flatten(1)
        inside: Tensor = ((flat >= self.low) & (flat <= self.high)).all(dim=1)
        return inside

    def widened(self, share: float) -> Box:
        """By a share of its width, at both sides."""
        margin = share * (self.high - self.low)
        return Box(self.low - margin, self.high + margin)


class Escape(NamedTuple):
    """The samples outside a box.

    Attributes:
        share: of all samples.
        furthest: the largest absolute coordinate of a sample, infinite if one is not finite.
    """

    share: float
    furthest: float


def range_of(data: Tensor) -> Box:
    """The range of the data's coordinates, a tenth wider at both sides."""
    return Box(float(data.min()), float(data.max())).widened(MARGIN)


def bulk_of(x: Tensor) -> Box:
    """The range of all but the outermost hundredth of the coordinates, three times as wide.

    It is that of [-7.7, 7.7] for standard normal numbers, and some escaped samples don't move it.
    """
    values = x.flatten()
    values = values[values.isfinite()]
    if not len(values):
        return Box(-math.inf, math.inf)
    rank = 1 + len(values) // 200
    ends = (values.kthvalue(at).values for at in (rank, len(values) + 1 - rank))
    return Box(*map(float, ends)).widened(1.0)


def escaped(x: Tensor, box: Box) -> Escape:
    """The samples [N, ...] outside the box."""
    outside = 1 - float(box.holds(x).double().mean())
    return Escape(outside, float(x.abs().nan_to_num(math.inf).max()))
