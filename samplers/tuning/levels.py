"""Levels of half log-SNR, of which the first and the last may be infinite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from samplers.schedule import Point, Schedule


def plain(level: float) -> float | None:
    """A level as it is in JSON, which has no infinite numbers."""
    return level if math.isfinite(level) else None


def levels_of(values: list[float | None]) -> Tensor:
    """Levels from JSON, of which the first may be pure noise and the last clean data."""
    last = len(values) - 1
    infinite = {0: -math.inf, last: math.inf}
    return torch.tensor(
        [infinite.get(i, math.nan) if value is None else value for i, value in enumerate(values)],
        dtype=torch.float64,
    )


def points_at_levels(schedule: Schedule, levels: Tensor) -> Point:
    """The points at levels of half log-SNR, the first and the last of which may be infinite."""
    finite = schedule.at_lam(levels[levels.isfinite()])
    first = [schedule.noisiest] if bool(levels[0] == -math.inf) else []
    last = [schedule.clean()] if bool(levels[-1] == math.inf) else []
    parts = [
        *(Point(*(value.reshape(1) for value in point)) for point in first),
        finite,
        *(Point(*(value.reshape(1) for value in point)) for point in last),
    ]
    return Point(*(torch.cat(values) for values in zip(*parts, strict=True)))
