"""Forces on a cylinder as dimensionless coefficients, and the frequency of vortex shedding."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from text2pde.mesh import FloatArray
from text2pde.subject.cylinder.channel import CylinderFlow


class Oscillation(NamedTuple):
    """A signal in its periodic regime.

    Attributes:
        frequency: in Hz, from the times of its upward crossings of the mid-level.
        highest, lowest: means of the maxima and of the minima.
    """

    frequency: float
    highest: float
    lowest: float

    @property
    def amplitude(self) -> float:
        return (self.highest - self.lowest) / 2


STEADY = Oscillation(math.nan, math.nan, math.nan)


def oscillation(values: FloatArray, interval: float) -> Oscillation:
    """The oscillation of a signal that is sampled every ``interval`` seconds.

    Crossings are interpolated linearly and extrema by parabolas.

    Returns:
        NaNs if the signal has fewer than three upward crossings of its mid-level.
    """
    middle = (values.max() + values.min()) / 2
    below = values < middle
    rises = np.flatnonzero(below[:-1] & ~below[1:])
    if len(rises) < 3:
        return STEADY
    step = values[rises + 1] - values[rises]
    times = (rises + (middle - values[rises]) / step) * interval
    frequency = (len(times) - 1) / (times[-1] - times[0])
    inner = values[rises[0] : rises[-1] + 1]
    maxima, minima = (_maxima(sign * inner, sign * middle) for sign in (1.0, -1.0))
    return Oscillation(float(frequency), float(maxima.mean()), float(-minima.mean()))


def _maxima(values: FloatArray, least: float) -> FloatArray:
    """The vertices of the parabolas through each local maximum above ``least``."""
    left, here, right = values[:-2], values[1:-1], values[2:]
    top = (here >= left) & (here > right) & (here > least)
    a, b, c = left[top], here[top], right[top]
    curvature = a - 2 * b + c
    maxima: FloatArray = b - (c - a) ** 2 / (8 * curvature)
    return maxima


def coefficients(forces: FloatArray, flow: CylinderFlow) -> FloatArray:
    """Drag and lift coefficients ``2 F / (U^2 D)`` of forces [..., 2] per density."""
    found: FloatArray = 2 * forces / (flow.speed**2 * flow.channel.diameter)
    return found


def strouhal(frequency: float, flow: CylinderFlow) -> float:
    """The Strouhal number ``f D / U``."""
    return frequency * flow.channel.diameter / flow.speed
