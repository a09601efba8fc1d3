"""What is measured of a flow: its forces in time, and how often vortices leave the cylinder."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from text2pde.channel import Flow
from text2pde.mesh import Numbers


class Oscillation(NamedTuple):
    """The periodic end of a signal.

    Attributes:
        frequency: in Hz, by the times at which it rises through its middle.
        highest, lowest: in the mean over the periods.
    """

    frequency: float
    highest: float
    lowest: float

    @property
    def amplitude(self) -> float:
        return (self.highest - self.lowest) / 2


STEADY = Oscillation(math.nan, math.nan, math.nan)


def oscillation(values: Numbers, interval: float) -> Oscillation:
    """The oscillation of a signal of which a value is known every ``interval`` seconds.

    Between values it is taken as a straight line where it rises, and as a parabola where it turns.
    Returns numbers that are NaN if it rises through its middle less than three times.
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
    tops, bottoms = (_turns(sign * inner, sign * middle) for sign in (1.0, -1.0))
    return Oscillation(float(frequency), float(tops.mean()), float(-bottoms.mean()))


def _turns(values: Numbers, least: float) -> Numbers:
    """The values at the tops of the parabolas through each highest of three, beyond ``least``."""
    left, here, right = values[:-2], values[1:-1], values[2:]
    top = (here >= left) & (here > right) & (here > least)
    a, b, c = left[top], here[top], right[top]
    bend = a - 2 * b + c
    tops: Numbers = b - (c - a) ** 2 / (8 * bend)
    return tops


def coefficients(forces: Numbers, flow: Flow) -> Numbers:
    r"""Drag and lift coefficients ``2 F / (U^2 D)`` of forces [..., 2] by density."""
    found: Numbers = 2 * forces / (flow.speed**2 * flow.channel.diameter)
    return found


def strouhal(frequency: float, flow: Flow) -> float:
    """``f D / U``."""
    return frequency * flow.channel.diameter / flow.speed
