r"""Layer 5. A trial step in units of the data, whatever their scale.

Divide the data by their root mean square s: then ``phi = arctan(sigma / (alpha s))`` is the angle
in which the probability-flow ODE is smooth, and x is of order one at every noise level. For data of
order 40, the angle of s = 1 would have sigma / alpha from 300 to 5 within 0.2.

The driver keeps states and angles in units of one. Here they are converted for a trial step, which
the prediction of x_0 and that of eps at a point determine: ``x = cos(phi) x_0 + sin(phi) eps``,
``v = cos(phi) eps - sin(phi) x_0``, and x_0 becomes ``x_0 / s``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.methods.embedded import Known, Parts, Slope, Trial, lanes

Measure = Callable[[Parts, Parts, float], float]
"""The scale of the data of a sample, from its state, its slope and its angle."""

# Nearer to pure noise than this, a state says nothing of the data.
_PURE_NOISE = 1e-9
# Standard deviations of a mean over the noise that are taken as its bounds.
_DEVIATIONS = 2.0


def data_scale(x: Parts, slope: Parts, angle: float) -> float:
    r"""An estimate of the root mean square s of the data of a sample.

    With D the prediction of x_0 at ``y = x_0 + rho eps``, means over the sample satisfy

    .. math:: \overline{D^2} \le s^2, \qquad \overline{D^2} \ge \frac{s^4}{s^2 + \rho^2},
        \qquad \overline{y D} \approx s^2

    in expectation: by Jensen's inequality, because no linear denoiser is better than D, and since
    eps is independent of x_0. The last one holds up to ``rho D`` over the root of the sample's
    size. The estimate is the geometric mean of the bounds of s^2; it is 1 at pure noise, where
    there are none.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    (state,), (v,) = x.tensors, slope.tensors
    data = cos * state.detach().double() - sin * v.detach().double()
    square, product = torch.stack([data.square().mean(), (state.detach() * data).mean()]).tolist()
    if cos < _PURE_NOISE or square == 0:
        return 1.0
    rho = sin / cos
    largest = (square + math.sqrt(square**2 + 4 * square * rho**2)) / 2
    spread = _DEVIATIONS * rho * math.sqrt(square / data.numel())
    low, high = (min(max(product / cos + side * spread, square), largest) for side in (-1, 1))
    return math.pow(low * high, 1 / 4)


def inward(angle: float, unit: float) -> float:
    """The angle in units of the data, of an angle in units of one."""
    return math.atan2(math.sin(angle), unit * math.cos(angle))


def outward(angle: float, unit: float) -> float:
    """The inverse of :func:`inward`."""
    return math.atan2(unit * math.sin(angle), math.cos(angle))


class _At(NamedTuple):
    """Some angles [b]: their cosines and sines in units of one and in units of the data.

    Attributes:
        size: x in units of one, divided by x in units of the data.
    """

    unit: Tensor
    cos: Tensor
    sin: Tensor
    size: Tensor
    cos_in: Tensor
    sin_in: Tensor

    def slope_inward(self, x: Parts, v: Parts) -> Parts:
        data, noise = self.cos * x - self.sin * v, self.sin * x + self.cos * v
        return self.cos_in * noise - self.sin_in / self.unit * data

    def slope_outward(self, x: Parts, v: Parts) -> Parts:
        data = self.cos_in * x - self.sin_in * v
        noise = self.sin_in * x + self.cos_in * v
        return self.cos * noise - self.sin * self.unit * data


class Units(NamedTuple):
    """The scales of the data of some samples, float64 [b]."""

    scales: Tensor

    def inward(self, known: Known) -> Known:
        """The beginning of a trial step."""
        at = self._at(known.angle)
        slope = at.slope_inward(known.x, known.slope)
        return Known(known.x / at.size, slope, self.angle_inward(known.angle))

    def outward(self, trial: Trial, angle: Tensor) -> Trial:
        """The end of a trial step, at an angle in units of one; its error remains as it is."""
        at = self._at(angle)
        last = None if trial.last is None else at.slope_outward(trial.x, trial.last)
        return Trial(at.size * trial.x, trial.error, last)

    def slope(self, slope: Slope) -> Slope:
        """The same slope for states and angles in units of the data."""

        def inside(x: Parts, angle: Tensor) -> Parts:
            outside = _rotated(angle, self.scales)
            at = self._at(outside)
            state = at.size * x
            return at.slope_inward(state, slope(state, outside))

        return inside

    def angle_inward(self, angle: Tensor) -> Tensor:
        return _rotated(angle, 1 / self.scales)

    def _at(self, angle: Tensor) -> _At:
        wide = lanes(angle)
        cos, sin = wide.cos()[:, 0], wide.sin()[:, 0]
        size = torch.sqrt((self.scales * cos).square() + sin.square())
        return _At(self.scales, cos, sin, size, self.scales * cos / size, sin / size)


def _rotated(angle: Tensor, scales: Tensor) -> Tensor:
    """The angles [b] whose tangents are so many times larger."""
    wide = lanes(angle)
    return torch.atan2(scales[:, None] * wide.sin(), wide.cos())[:, 0]
