r"""Layer 5. An ODE solver with adaptive step size, controlled separately for each sample.

Each sample has its own position and step size. A trial step evaluates the slope once for each
stage, with an angle for each sample; a sample that is finished leaves the batch. The result of a
sample does not depend on the others, bit for bit, if the slope treats samples alike.

:func:`integrate` solves an ODE for :class:`Parts`, such as an image and its log-density, for any
slope, from noise to data or back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.checks import check_whole
from samplers.methods.embedded import Known, Parts, Slope, Trial
from samplers.probability_flow.units import Measure, Units, inward, outward
from samplers.registry import AdaptiveSampler, get_adaptive_sampler

# The controller of step sizes: h <- h * clamp(0.8 E^(-1/q)), as in DPM-Solver's algorithm, with
# the usual bounds. At its factor of 0.9 more steps are rejected than it saves.
_SAFETY = 0.8
_SHRINK, _GROW = 0.2, 5.0
# The share of the interval that the first step tries.
_FIRST = 0.2
# Tolerances below this many units in the last place of the state would be met by chance alone.
_LEAST_ULPS = 8

# ------------------------------------------------------------------------------ the settings


@dataclass(frozen=True)
class Adaptive:
    """Settings of an adaptive step size: the method, its tolerances, and a limit of evaluations.

    Attributes:
        method: a name from ``list_samplers("adaptive")``.
        rtol, atol: a step is accepted if the root mean square, over the sample, of
            ``error / (atol + rtol max(|before|, |after|))`` is at most 1, with x in
            variance-preserving coordinates and in units of the root mean square of the sample's
            data, so that it is of order one at every noise level.
        max_nfe: the maximum number of evaluations of a sample, where a guided one counts once. If a
            further trial step could exceed it, one DDIM step goes to the end, and the sample is
            reported as not within tolerance.

    Raises ValueError for an unknown method, a tolerance that is not positive and finite, or fewer
    evaluations than one step needs.
    """

    method: str = "bogacki-shampine"
    rtol: float = 0.01
    atol: float = 0.01
    max_nfe: int = 500

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite.")
        least = self.sampler.least_nfe
        check_whole("max_nfe", self.max_nfe)
        if self.max_nfe < least:
            raise ValueError(
                f"max_nfe is {self.max_nfe}; {self.sampler.name!r} needs at least {least} network "
                "evaluations for one step."
            )

    @property
    def sampler(self) -> AdaptiveSampler:
        return get_adaptive_sampler(self.method)


DEFAULT = Adaptive()


# -------------------------------------------------------------------------------- the driver


Field = Callable[[Parts, Tensor, Tensor], Parts]
"""The slope of some samples of a batch: (x, phi [b], their indices in the batch [b]) -> dx / dphi.

phi is float64, the indices are integers; both are on the CPU.
"""


class Integration(NamedTuple):
    """The states at the end, with the cost of each sample [B].

    Attributes:
        nfe: evaluations of the slope, including those of rejected steps.
        within_tolerance: whether all steps of the sample were accepted.
    """

    x: Parts
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    within_tolerance: Tensor


class _Sample(NamedTuple):
    """A sample during the integration: its index in the batch, its state and slope (one row each)
    at its angle, the scale of its data, the angle where the next trial step ends, and its
    counts."""

    place: int
    x: Parts
    slope: Parts | None
    angle: float
    scale: float = 1.0
    goal: float | None = None
    nfe: int = 0
    accepted: int = 0
    rejected: int = 0
    within_tolerance: bool = True


def integrate(
    field: Field,
    x: Parts,
    start: float,
    end: float,
    settings: Adaptive = DEFAULT,
    land: float | None = None,
    measure: Measure | None = None,
) -> Integration:
    r"""Solve the ODE for every sample from the angle ``start`` to ``end``, in either direction.

    Args:
        field: the slope; it is evaluated on the samples that need it, which vary from call to call.
        land: the angle of a last DDIM step, ``cos(d) x - sin(d) v`` over an angle d; no such step
            if None. A sample without evaluations left goes there from where it is.
        measure: the scale of the data, for Parts of one tensor: steps are chosen and errors
            measured in units of it. Units of one if None.

    A method that expands in the log-SNR takes a DDIM step from or to pure noise, short enough for
    the tolerance. The error of every part is controlled; the largest one decides. For parts that
    are not noisy data, such as a likelihood, use a Runge-Kutta pair. Gradients flow to x and
    through the field, but not through the step sizes. Raises ValueError for a tolerance that the
    dtype of x can't resolve.
    """
    _check_precision(x, settings)
    first, last = _reachable(start, settings), _reachable(end, settings)
    land = end if land is None else land
    samples = [_Sample(i, row, None, start) for i, row in enumerate(x.rows)]
    if first != start:
        samples = [_ddim(sample, first) for sample in _evaluated(field, samples)]
    moving, done = _split(samples, lambda sample: sample.angle != land)
    while moving:
        ready = [_aimed(sample, last, measure) for sample in _evaluated(field, moving)]
        going, stopping = _split(ready, lambda sample: _goes_on(sample, last, land, settings))
        done += [_landed(sample, last, land) for sample in stopping]
        tried = _tried(field, going, last, settings, measure)
        moving, arrived = _split(tried, lambda sample: sample.angle != land)
        done += arrived
    return _collected(done)


def _check_precision(x: Parts, settings: Adaptive) -> None:
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in x.tensors)
    if settings.rtol + settings.atol < _LEAST_ULPS * epsilon:
        raise ValueError(
            f"rtol + atol is {settings.rtol + settings.atol:.3g}, which {x.tensors[0].dtype} can't "
            f"resolve; give at least {_LEAST_ULPS * epsilon:.3g}, or float64."
        )


def _reachable(angle: float, settings: Adaptive) -> float:
    """The angle, or one near it if that is pure noise and the method needs a finite log-SNR.

    The error of a DDIM step is of the order of its angle squared.
    """
    if not settings.sampler.in_log_snr or math.pi / 2 - angle > 1e-9:
        return angle
    return math.pi / 2 - 0.1 * math.sqrt(settings.rtol + settings.atol)


def _evaluated(field: Field, samples: Sequence[_Sample]) -> list[_Sample]:
    """The same samples, all with their slopes; one network evaluation for those without."""
    lacking = [sample for sample in samples if sample.slope is None]
    if not lacking:
        return list(samples)
    x = _joined(sample.x for sample in lacking)
    slopes = field(x, _angles(lacking), _places(lacking)).rows
    found = {sample.place: slope for sample, slope in zip(lacking, slopes, strict=True)}
    return [
        sample._replace(slope=found[sample.place], nfe=sample.nfe + 1)
        if sample.place in found
        else sample
        for sample in samples
    ]


def _aimed(sample: _Sample, last: float, measure: Measure | None) -> _Sample:
    """The sample with the scale of its data and the end of its first trial step."""
    assert sample.slope is not None  # it was evaluated before
    if measure is not None:
        sample = sample._replace(scale=measure(sample.x, sample.slope, sample.angle))
    if sample.goal is not None:
        return sample
    return sample._replace(goal=_further(sample, sample.angle, _FIRST * _way(sample, last)))


def _way(sample: _Sample, angle: float) -> float:
    """The angle from the sample to ``angle``, in units of its data."""
    return inward(angle, sample.scale) - inward(sample.angle, sample.scale)


def _further(sample: _Sample, angle: float, h: float) -> float:
    """The angle that is further than ``angle`` by h in units of the data."""
    # No way is longer; a sum beyond pi would be another angle.
    h = math.copysign(min(abs(h), math.pi / 2), h)
    return outward(inward(angle, sample.scale) + h, sample.scale)


def _goes_on(sample: _Sample, last: float, land: float, settings: Adaptive) -> bool:
    """Whether a step is left, and enough evaluations for it and for a last DDIM step."""
    if sample.angle == last:
        return False
    sampler = settings.sampler
    finished = sampler.keeps_last or _next_angle(sample, last) == land
    return sample.nfe + sampler.calls - 1 + (0 if finished else 1) <= settings.max_nfe


def _next_angle(sample: _Sample, last: float) -> float:
    assert sample.goal is not None  # it was aimed before
    # A remainder of a few units in the last place is included in the step.
    if abs(sample.goal - sample.angle) >= abs(last - sample.angle) * (1 - 1e-12):
        return last
    return sample.goal


def _landed(sample: _Sample, last: float, land: float) -> _Sample:
    """The sample at the end, by a last DDIM step; within tolerance if that was all that was
    left."""
    return _ddim(sample, land)._replace(within_tolerance=sample.angle == last)


def _ddim(sample: _Sample, angle: float) -> _Sample:
    r"""The DDIM step, which holds for every angle (Salimans and Ho 2022, appendix D).

    .. math:: x' = \cos(\phi - \phi') \, x - \sin(\phi - \phi') \, v
    """
    assert sample.slope is not None  # it was evaluated before
    crossed = sample.angle - angle
    x = math.cos(crossed) * sample.x - math.sin(crossed) * sample.slope
    return sample._replace(x=x, slope=None, angle=angle)


def _tried(
    field: Field,
    samples: Sequence[_Sample],
    last: float,
    settings: Adaptive,
    measure: Measure | None,
) -> list[_Sample]:
    """The samples after one trial step each: advanced if it was accepted, else with a smaller step
    size."""
    if not samples:
        return []
    slopes = [sample.slope for sample in samples if sample.slope is not None]
    known = Known(_joined(sample.x for sample in samples), Parts.joined(slopes), _angles(samples))
    angles = [_next_angle(sample, last) for sample in samples]
    slope = _at_places(field, _places(samples))
    scales = [sample.scale for sample in samples]
    units = None if measure is None else Units(torch.tensor(scales, dtype=torch.float64))
    end = torch.tensor(angles, dtype=torch.float64)
    trial, errors = _trial(slope, known, end, settings, units)
    slopes_there = [None] * len(samples) if trial.last is None else trial.last.rows
    rows = zip(samples, angles, errors, trial.x.rows, slopes_there, strict=True)
    return [_judged(*row, settings.sampler) for row in rows]


def _trial(
    slope: Slope, known: Known, end: Tensor, settings: Adaptive, units: Units | None
) -> tuple[Trial, list[float]]:
    """A trial step to the angles ``end`` and its errors, in units of the tolerance."""
    method = settings.sampler.method
    if units is None:
        trial = method(slope, known, end)
        return trial, _errors(trial, known.x, settings)
    inside = units.inward(known)
    trial = method(units.slope(slope), inside, units.angle_inward(end))
    return units.outward(trial, end), _errors(trial, inside.x, settings)


def _at_places(field: Field, places: Tensor) -> Slope:
    return lambda x, angle: field(x, angle, places)


def _judged(
    sample: _Sample,
    angle: float,
    error: float,
    x: Parts,
    slope: Parts | None,
    sampler: AdaptiveSampler,
) -> _Sample:
    h = _way(sample, angle) * _factor(error, sampler.order)
    goal = _further(sample, angle if error <= 1 else sample.angle, h)
    paid = sample._replace(goal=goal, nfe=sample.nfe + sampler.calls - 1)
    if error <= 1:
        return paid._replace(x=x, slope=slope, angle=angle, accepted=sample.accepted + 1)
    return paid._replace(rejected=sample.rejected + 1)


def _factor(error: float, order: int) -> float:
    """The factor by which the next step size is larger than this one."""
    if error == 0:
        return _GROW
    if math.isnan(error):
        return _SHRINK
    return min(max(_SAFETY * math.pow(error, -1 / order), _SHRINK), _GROW)


def _errors(trial: Trial, before: Parts, settings: Adaptive) -> list[float]:
    """The error of each sample in units of the tolerance: the largest of its parts."""
    of_parts = []
    tensors = zip(before.tensors, trial.x.tensors, trial.error.tensors, strict=True)
    for x, high, error in tensors:
        error = error.detach()
        size = torch.maximum(x.detach().abs(), (high.detach() - error).abs())
        of_parts.append(_mean((error / (settings.atol + settings.rtol * size)).square()).sqrt())
    worst: list[float] = torch.stack(of_parts).amax(dim=0).tolist()
    return worst


def _mean(values: Tensor) -> Tensor:
    """The mean over each sample, added in an order that does not depend on the batch."""
    rows = values.reshape(len(values), -1)
    count = rows.shape[1]
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = torch.cat([rows[:, :half] + rows[:, half : 2 * half], rows[:, 2 * half :]], dim=1)
    return rows[:, 0] / count


def _collected(samples: Sequence[_Sample]) -> Integration:
    samples = sorted(samples, key=lambda sample: sample.place)
    return Integration(
        _joined(sample.x for sample in samples),
        torch.tensor([sample.nfe for sample in samples]),
        torch.tensor([sample.accepted for sample in samples]),
        torch.tensor([sample.rejected for sample in samples]),
        torch.tensor([sample.within_tolerance for sample in samples]),
    )


def _joined(rows: Iterable[Parts]) -> Parts:
    return Parts.joined(list(rows))


def _angles(samples: Sequence[_Sample]) -> Tensor:
    return torch.tensor([sample.angle for sample in samples], dtype=torch.float64)


def _places(samples: Sequence[_Sample]) -> Tensor:
    return torch.tensor([sample.place for sample in samples])


def _split(
    samples: Iterable[_Sample], keep: Callable[[_Sample], bool]
) -> tuple[list[_Sample], list[_Sample]]:
    """The samples for which ``keep`` holds, and the others."""
    kept: list[_Sample] = []
    others: list[_Sample] = []
    for sample in samples:
        (kept if keep(sample) else others).append(sample)
    return kept, others
