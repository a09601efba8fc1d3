r"""Embedded pairs: a trial step of the probability-flow ODE with an estimate of its error.

A step starts from known states and slopes of a batch, ends at a separate angle for each sample, and
gives two solutions of consecutive orders. The one of higher order is returned, and the difference
estimates the error. The angle is ``phi = arctan(sigma / alpha)``, the states are in
variance-preserving coordinates ``x = cos(phi) x_0 + sin(phi) eps``, and the slope is

.. math:: \frac{dx}{d\phi} = v(x, \phi) = \cos\phi \, \varepsilon - \sin\phi \, x_0

(Salimans and Ho 2022, appendix D, https://arxiv.org/abs/2202.00512). The step sizes are chosen in
:mod:`samplers.probability_flow.integration`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.draft import Number
from samplers.methods.dpm_solver import constant, linear, midpoint
from samplers.methods.interval import Interval, Predicting
from samplers.methods.pf_ode import Butcher
from samplers.schedule import Point


@dataclass(frozen=True, eq=False)
class Parts:
    """Tensors [b, ...] that are integrated together, each with one row per sample.

    A coefficient is a number, or a float64 vector [b]; it is applied in the dtype of each tensor.
    """

    tensors: tuple[Tensor, ...]

    def __add__(self, other: Parts) -> Parts:
        return Parts(tuple(a + b for a, b in zip(self.tensors, other.tensors, strict=True)))

    def __sub__(self, other: Parts) -> Parts:
        return Parts(tuple(a - b for a, b in zip(self.tensors, other.tensors, strict=True)))

    def __rmul__(self, factor: Number) -> Parts:
        return Parts(tuple(spread(factor, tensor) * tensor for tensor in self.tensors))

    def __truediv__(self, divisor: Number) -> Parts:
        return (1 / divisor) * self

    @property
    def rows(self) -> list[Parts]:
        """Split into samples; each tensor keeps its first dimension."""
        return [Parts(row) for row in zip(*(t.split(1) for t in self.tensors), strict=True)]

    @classmethod
    def joined(cls, rows: Sequence[Parts]) -> Parts:
        """Concatenate samples to a batch."""
        columns = zip(*(row.tensors for row in rows), strict=True)
        return cls(tuple(torch.cat(column) for column in columns))


def spread(factor: Number, like: Tensor) -> Number:
    """A coefficient in the dtype of ``like`` [b, ...], shaped to be multiplied with it."""
    if not isinstance(factor, Tensor):
        return factor
    return factor.to(like).reshape(-1, *(1 for _ in like.shape[1:]))


Slope = Callable[[Parts, Tensor], Parts]
"""(x, phi [b], float64) -> dx / dphi."""


class Known(NamedTuple):
    """The beginning of a trial step: the states, their slopes and the angles [b]."""

    x: Parts
    slope: Parts
    angle: Tensor


class Trial(NamedTuple):
    """The end of a trial step: the solution of higher order, and its difference to the lower one.

    Attributes:
        last: the slope at x, if the method has evaluated it.
    """

    x: Parts
    error: Parts
    last: Parts | None


class Embedded(NamedTuple):
    """A Runge-Kutta pair whose last stage is the new point itself, and the higher solution minus
    the lower as a combination of its slopes."""

    butcher: Butcher
    error: tuple[float, ...]


BOGACKI_SHAMPINE = Embedded(
    Butcher(
        c=(0, 1 / 2, 3 / 4, 1),
        a=((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0),
    ),
    error=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
)
DORMAND_PRINCE = Embedded(
    Butcher(
        c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        b=(35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


def runge_kutta(slope: Slope, known: Known, angle: Tensor, pair: Embedded) -> Trial:
    r"""A step of an embedded Runge-Kutta pair in phi.

    .. math:: x_i = x + h \sum_j a_{ij} v_j, \qquad v_i = v(x_i, \phi + c_i h)
    """
    h = angle - known.angle
    x, slopes = known.x, [known.slope]
    for c, weights in zip(pair.butcher.c[1:], pair.butcher.a[1:], strict=True):
        x = known.x + _weighted(h, weights, slopes)
        slopes.append(slope(x, angle if c == 1 else known.angle + c * h))
    return Trial(x, _weighted(h, pair.error, slopes), slopes[-1])


def _weighted(h: Tensor, weights: Sequence[float], slopes: Sequence[Parts]) -> Parts:
    return reduce(add, (w * h * v for w, v in zip(weights, slopes, strict=True) if w))


def dpm_solver_12(slope: Slope, known: Known, angle: Tensor, predicting: Predicting) -> Trial:
    """DDIM, and the second-order singlestep solver with its stage in the middle.

    (Lu et al. 2022, adaptive step size, https://arxiv.org/abs/2206.00927)
    """
    step = _Steps.between(known.angle, angle, predicting)
    x, f = known.x, step.f(known)
    part = step.part(1 / 2)
    f_r = part.evaluate(slope, constant(part, x, f))
    low, high = constant(step, x, f), midpoint(step, x, f, f_r, 1 / 2)
    return Trial(high, high - low, None)


def dpm_solver_23(slope: Slope, known: Known, angle: Tensor, predicting: Predicting) -> Trial:
    """The second-order singlestep solver with its stage at a third, and the third-order one.

    (Lu et al. 2022, adaptive step size, https://arxiv.org/abs/2206.00927)
    """
    step = _Steps.between(known.angle, angle, predicting)
    x, f = known.x, step.f(known)
    part_1, part_2 = step.part(1 / 3), step.part(2 / 3)
    f_1 = part_1.evaluate(slope, constant(part_1, x, f))
    f_2 = part_2.evaluate(slope, linear(part_2, x, f, f_1, 1 / 2))
    low, high = midpoint(step, x, f, f_1, 1 / 3), linear(step, x, f, f_2, 2 / 3)
    return Trial(high, high - low, None)


@dataclass(frozen=True)
class _Steps:
    """A step in the log-SNR for each sample, with its weights as vectors [b]."""

    interval: Interval

    @classmethod
    def between(cls, start: Tensor, end: Tensor, predicting: Predicting) -> _Steps:
        return cls(Interval(_point(lanes(start)), _point(lanes(end)), predicting))

    @property
    def decay(self) -> Tensor:
        return self.interval.decay[:, 0]

    def gain(self, k: int) -> Tensor:
        return self.interval.gain(k)[:, 0]

    def part(self, r: float) -> _Steps:
        """The intervals of the first fraction r of the steps."""
        lam = self.interval.now.lam + r * self.interval.h
        end = _point(torch.atan(torch.exp(-lam)))
        return _Steps(Interval(self.interval.now, end, self.interval.predicting))

    def f(self, known: Known) -> Parts:
        """The integrand at the beginning of the steps."""
        return self._predicted(known.x, known.slope, self.interval.now)

    def evaluate(self, slope: Slope, x: Parts) -> Parts:
        """The integrand at the end of the steps."""
        at = self.interval.nxt
        return self._predicted(x, slope(x, at.t[:, 0]), at)

    def _predicted(self, x: Parts, slope: Parts, at: Point) -> Parts:
        cos, sin = at.alpha[:, 0], at.sigma[:, 0]
        if self.interval.predicting == "data":
            return cos * x - sin * slope
        return sin * x + cos * slope


def _point(angle: Tensor) -> Point:
    """The point at an angle, in variance-preserving coordinates; the angle is its time."""
    return Point(angle, angle.cos(), angle.sin())


_LANES = 16


def lanes(values: Tensor) -> Tensor:
    """Repeat each value of [b] sixteen times, in a row of its own.

    Vectorised functions such as exp may round differently in the remainder of a tensor that does
    not fill a vector register. Rows of sixteen have no remainder, so that the result for a sample
    does not depend on its index in the batch.
    """
    return values[:, None].expand(-1, _LANES).contiguous()
