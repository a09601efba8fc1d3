"""What a sampler is tuned, or a grid fitted, for; and how well it does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NotRequired

from typing_extensions import TypedDict

from samplers.denoiser import Denoiser
from samplers.schedule import FlowMatching, Schedule
from samplers.tuning.levels import plain
from samplers.tuning.objective import Score

LevelRange = tuple[float | None, float | None]
"""Half log-SNR at the noisy and at the clean end; None where it is infinite."""

GuidedLevels = tuple[float, float | None]
"""Noise levels sigma / alpha of an interval of guidance; None for infinity."""

SAME_LEVEL = 0.05
"""By how much the half log-SNR at the ends of two schedules of one network may differ."""


_MOST = 700.0  # beyond it the exponential overflows


@dataclass(frozen=True)
class Purpose:
    """What a sampler is tuned for, in words that its file keeps.

    Attributes:
        weights: identifies the network's weights, such as a hash; None if that is not known.
        guidance: the scale of classifier-free guidance that the model has.
        conditions: such as ``all ten digits``.
        licence: of the file.
        interval: the noise levels sigma / alpha between which guidance is on; None for all.
        rescale: of the guidance, see :func:`samplers.classifier_free_guidance`.
    """

    weights: str | None = None
    guidance: float = 1.0
    conditions: str = "none"
    licence: str = "CC0-1.0"
    interval: tuple[float, float] | None = None
    rescale: float = 0.0


class Facts(TypedDict):
    """The network and the purpose, as they are in a file.

    Attributes:
        prediction: the prediction type of the network.
        schedule: of the network, in words.
        trained_range: its half log-SNR, noisiest and cleanest; None where it is infinite.
        weights: identifies the network's weights; None if it is not known.
        guidance: the scale of classifier-free guidance.
        guidance_interval: the noise levels sigma / alpha between which it is on, the second None
            for infinity; missing if it is on at all levels.
        guidance_rescale: the share of it that is rescaled; missing if that is zero.
        conditions: in words.
        licence: of the file.
    """

    prediction: str
    schedule: str
    trained_range: LevelRange
    weights: str | None
    guidance: float
    guidance_interval: NotRequired[GuidedLevels]
    guidance_rescale: NotRequired[float]
    conditions: str
    licence: str


def facts_of(model: Denoiser, purpose: Purpose) -> Facts:
    """The facts of a model."""
    named = model.prediction if isinstance(model.prediction, str) else repr(model.prediction)
    facts = Facts(
        prediction=named,
        schedule=repr(model.schedule),
        trained_range=trained_range(model.schedule),
        weights=purpose.weights,
        guidance=purpose.guidance,
        conditions=purpose.conditions,
        licence=purpose.licence,
    )
    if purpose.interval is not None:
        facts["guidance_interval"] = _stored(purpose.interval)
    if purpose.rescale:
        facts["guidance_rescale"] = purpose.rescale
    return facts


class Scores(TypedDict):
    """See :class:`samplers.tuning.objective.Score`."""

    geometric_mean: float
    quantile_95: float
    rms: float


def scores(score: Score) -> Scores:
    """A score as it is in a file."""
    return Scores(geometric_mean=score.geometric_mean, quantile_95=score.quantile_95, rms=score.rms)


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
        if not same_level(own, level):
            raise ValueError(
                f"This {what} for a network trained from {_in_rho(wanted)}, and this schedule is "
                f"from {_in_rho(trained_range(schedule))}; make one for it."
            )


def same_level(a: float | None, b: float | None) -> bool:
    """Whether two half log-SNRs, infinite if None, are that of one training up to rounding."""
    return a == b or (a is not None and b is not None and abs(a - b) <= SAME_LEVEL)


def _in_rho(ends: LevelRange) -> str:
    high, low = ends
    noisiest = "pure noise" if high is None else f"sigma/alpha = {_rho(high):.4g}"
    return f"{noisiest} to {0.0 if low is None else _rho(low):.4g}"


def _rho(lam: float) -> float:
    return math.exp(-lam) if lam > -_MOST else math.inf


def differences(
    own: Facts,
    weights: str | None,
    guidance: float | None,
    interval: tuple[float, float] | None,
    rescale: float,
) -> Iterator[str]:
    """How a network differs from the one that something was tuned or fitted for, in words.

    Weights or a guidance of None are not known, and do not differ.
    """
    if weights is not None and own["weights"] is not None and own["weights"] != weights:
        yield "other weights than those of this checkpoint"
    tuned = guidance_of(own)
    stored = None if interval is None else _stored(interval)
    given = tuned if guidance is None else _in_words(guidance, stored, rescale)
    if tuned != given:
        yield f"a guidance of {tuned}, and this one is {given}"


def _stored(interval: tuple[float, float]) -> GuidedLevels:
    """An interval as a file has it, since JSON has no infinity."""
    low, high = interval
    return low, high if math.isfinite(high) else None


def guidance_of(about: Mapping[str, Any]) -> str:
    """The guidance that something is for, in words."""
    rescale = about.get("guidance_rescale", 0.0)
    return _in_words(about["guidance"], about.get("guidance_interval"), rescale)


def _in_words(scale: float, interval: GuidedLevels | None, rescale: float) -> str:
    """The scale, the noise levels between which it is on, and the share that is rescaled."""
    if scale == 1:
        return "1"
    words = f"{scale:g}"
    if interval is not None:
        low, high = interval
        words += f" from {low:g} on" if high is None else f" between {low:g} and {high:g}"
    return f"{words}, rescaled by {rescale:g}" if rescale else words


def warn_of(what: str, found: Iterable[str], stacklevel: int) -> None:
    """Warn that ``what`` was made for something else, once for each difference."""
    for difference in found:
        warnings.warn(
            f"The {what} for {difference}; its scores do not hold here.", stacklevel=stacklevel + 1
        )


_RANGES = ("trained_range", "guidance_interval")


def in_order(about: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The facts as a file has them: in the order of their kind, whatever order they came in."""
    listed = {name: list(v) if isinstance(v, tuple) else v for name, v in about.items()}
    return {name: listed[name] for name in kind.__annotations__ if name in listed}


def with_tuple(about: object) -> object:
    """The facts of a file with its ranges as tuples, which JSON has not."""
    if not isinstance(about, Mapping):
        return about
    return {
        name: tuple(v) if name in _RANGES and isinstance(v, list) else v
        for name, v in about.items()
    }
