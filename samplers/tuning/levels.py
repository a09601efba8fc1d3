"""Noise levels in files, and the networks that they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from samplers.files import refuse_special
from samplers.schedule import FlowMatching, Point, Schedule

LevelRange = tuple[float | None, float | None]
"""Half log-SNR at the noisy and at the clean end; None where it is infinite."""

Kind = TypeVar("Kind")

_SAME_LEVEL = 0.05
"""By how much the half log-SNR at the ends of two schedules of one network may differ."""


class TunedError(OSError):
    """A file of a tuned sampler or a fitted grid can't be read, for the reason in the message."""


def read_file(
    path: Path | str, what: str, writer: str, parse: Callable[[str | bytes], Kind]
) -> Kind:
    """What a function makes of a file. Raises TunedError for a file of which it makes nothing."""
    path = Path(path)
    if not path.is_file():
        raise TunedError(f"There is no {what} at {path}: no such file.")
    refuse_special(path)
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TunedError(
            f"{path} is not the file of a {what} ({error}); give one that {writer} wrote."
        ) from error


def trained_range(schedule: Schedule) -> LevelRange:
    """The half log-SNR of a schedule's noisiest and cleanest point.

    The shift of a flow spaces its grids, and is no part of the training: it counts as 1.
    """
    if isinstance(schedule, FlowMatching):
        schedule = replace(schedule, shift=1.0)
    return plain(float(schedule.noisiest.lam)), plain(float(schedule.cleanest.lam))


def check_range(wanted: LevelRange, schedule: Schedule, what: str) -> None:
    """Raise ValueError for a schedule with another range; ``what`` was made for that one."""
    for own, level in zip(wanted, trained_range(schedule), strict=True):
        if own != level and not _near(own, level):
            raise ValueError(
                f"This {what} for a network trained from {_in_rho(wanted)}, and this schedule is "
                f"from {_in_rho(trained_range(schedule))}; make one for it."
            )


def _near(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and abs(a - b) <= _SAME_LEVEL


def _in_rho(ends: LevelRange) -> str:
    high, low = ends
    noisiest = "pure noise" if high is None else f"sigma/alpha = {math.exp(-high):.4g}"
    return f"{noisiest} to {0.0 if low is None else math.exp(-low):.4g}"


def differences(
    own_weights: str | None, own_guidance: float, weights: str | None, guidance: float | None
) -> Iterator[str]:
    """How a network differs from the one that something was tuned or fitted for, in words.

    What is None is not known, and does not differ.
    """
    if weights is not None and own_weights is not None and own_weights != weights:
        yield "other weights than those of this checkpoint"
    if guidance is not None and own_guidance != guidance:
        yield f"a guidance of {own_guidance:g}, and this one is {guidance:g}"


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


def with_tuple(about: object) -> object:
    """The facts of a file with its range as a tuple, which JSON has not."""
    if isinstance(about, Mapping) and isinstance(about.get("trained_range"), list):
        return {**about, "trained_range": tuple(about["trained_range"])}
    return about


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
