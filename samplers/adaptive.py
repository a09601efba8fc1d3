r"""Layer 5. The probability-flow ODE with adaptive steps, controlled sample by sample.

With the angle ``phi = arctan(sigma / alpha)`` and in the variance-preserving coordinates
``x / sqrt(alpha^2 + sigma^2) = cos(phi) x_0 + sin(phi) eps`` the ODE of every schedule is

.. math:: \frac{dx}{d\phi} = v(x, \phi) = \cos\phi \, \varepsilon - \sin\phi \, x_0

(Salimans and Ho 2022, appendix D, https://arxiv.org/abs/2202.00512), from pi/2, pure noise, to
0, the data. It is as smooth at one end as at the other and all its numbers are of order one, so
the length of a step is chosen in phi, whatever a method expands in.

Each sample has its own position and its own step. A trial step asks the network once for each
stage, with a time for each sample; a sample that has arrived leaves the batch. No sample's
result depends on the others, not by a bit, if the network treats samples alike.

:func:`integrate` knows no network: it carries :class:`Parts`, such as an image and a number that
belongs to it, along any slope, from noise to data or back.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.grid import Final, make_grid
from samplers.methods.embedded import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    Known,
    Parts,
    Slope,
    Trial,
    dpm_solver_12,
    dpm_solver_23,
    lanes,
    runge_kutta,
    spread,
)
from samplers.prediction import Correction, Prediction, door
from samplers.sample import NotFiniteError
from samplers.schedule import Point, Schedule
from samplers.solve import working_dtype

# The controller of step sizes: h <- h * clamp(0.9 E^(-1/q)), as in DPM-Solver's algorithm but for
# the bounds, which are those of every textbook.
_SAFETY = 0.9
_SHRINK, _GROW = 0.2, 5.0
# The share of the whole way that the first step tries.
_FIRST = 0.2
# Tolerances below this many units in the last place of the state would be met by chance alone.
_LEAST_ULPS = 8

# ------------------------------------------------------------------------------- the methods


class Pair(NamedTuple):
    """A method of two orders, of which the lower serves the estimate of the error.

    step: ``step(slope, known, angle)`` tries a step to the angles [b].
    order: q; the estimate falls with the q-th power of the step.
    calls: network calls of a trial step, the one at its beginning included.
    keeps_last: whether a step ends with the slope that the next one begins with.
    in_log_snr: whether the method expands in the log-SNR, and so can't touch pure noise.
    """

    name: str
    step: Callable[[Slope, Known, Tensor], Trial]
    order: int
    calls: int
    keeps_last: bool
    in_log_snr: bool
    reference: str
    aliases: tuple[str, ...] = ()

    @property
    def least_nfe(self) -> int:
        """The calls of a sample that takes one trial step: a DDIM step may stand on each side."""
        return self.calls if self.keeps_last else self.calls + 2


_LU = "Lu et al. 2022, arXiv:2206.00927, adaptive step size"
_BS = "Bogacki, Shampine 1989, A 3(2) pair of Runge-Kutta formulas"
_DP = "Dormand, Prince 1980, A family of embedded Runge-Kutta formulae"

# fmt: off
PAIRS: tuple[Pair, ...] = (
    # Runge-Kutta pairs in the angle.
    Pair("bogacki-shampine", partial(runge_kutta, pair=BOGACKI_SHAMPINE), order=3, calls=4,
         keeps_last=True, in_log_snr=False, reference=_BS, aliases=("rk23", "bosh3", "ode23")),
    Pair("dormand-prince", partial(runge_kutta, pair=DORMAND_PRINCE), order=5, calls=7,
         keeps_last=True, in_log_snr=False, reference=_DP, aliases=("rk45", "dopri5", "ode45")),
    # DPM-Solver: noise prediction, as published.
    Pair("dpm-solver-12", partial(dpm_solver_12, predicting="noise"), order=2, calls=2,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-12",)),
    Pair("dpm-solver-23", partial(dpm_solver_23, predicting="noise"), order=3, calls=3,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-23", "dpm-adaptive")),
    # The same formulas on the prediction of x_0.
    Pair("dpmpp-12", partial(dpm_solver_12, predicting="data"), order=2, calls=2,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-solver++-12",)),
    Pair("dpmpp-23", partial(dpm_solver_23, predicting="data"), order=3, calls=3,
         keeps_last=False, in_log_snr=True, reference=_LU, aliases=("dpm-solver++-23",)),
)
# fmt: on


def get_pair(name: str) -> Pair:
    """The adaptive method of this name or alias; ValueError with the nearest name if there is none.

    Case, ``_`` and a leading ``sample_`` do not matter.
    """
    names = {known: pair for pair in PAIRS for known in (pair.name, *pair.aliases)}
    plain = name.strip().lower().replace("_", "-").removeprefix("sample-")
    if plain in names:
        return names[plain]
    near = difflib.get_close_matches(plain, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"take one of {', '.join(list_adaptive())}."
    raise ValueError(f"There is no adaptive method named {name!r}; {hint}")


def list_adaptive() -> list[str]:
    """The names of the adaptive methods."""
    return [pair.name for pair in PAIRS]


# ------------------------------------------------------------------------------ the settings


@dataclass(frozen=True)
class Adaptive:
    """How the steps are chosen.

    method: a name from :func:`list_adaptive`.
    rtol, atol: a step is accepted if the root mean square, over the sample, of
        ``error / (atol + rtol max(|before|, |after|))`` is at most 1, with x in
        variance-preserving coordinates (for data of order one, x is too, at every noise level).
    max_nfe: the network calls that each sample may have. A trial step is made only if the sample
        can be finished within them after it. If not, one DDIM step goes the rest of the way, and
        the sample is reported as not within tolerance.

    Raises ValueError for an unknown method, a tolerance that is not positive and finite, or fewer
    calls than one step needs.
    """

    method: str = "bogacki-shampine"
    rtol: float = 0.01
    atol: float = 0.01
    max_nfe: int = 500

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite.")
        least = self.pair.least_nfe
        if isinstance(self.max_nfe, bool) or not isinstance(self.max_nfe, int):
            raise ValueError(f"max_nfe is {self.max_nfe!r}; it must be a whole number.")
        if self.max_nfe < least:
            raise ValueError(
                f"max_nfe is {self.max_nfe}; {self.pair.name!r} needs at least {least} network "
                "calls for one step."
            )

    @property
    def pair(self) -> Pair:
        return get_pair(self.method)


DEFAULT = Adaptive()


# -------------------------------------------------------------------------------- the driver


Field = Callable[[Parts, Tensor, Tensor], Parts]
"""The slope of some samples of a batch: (x, phi [b], their places in the batch [b]) -> dx / dphi.

phi is float64, the places are whole numbers; both lie on the CPU.
"""


class Integration(NamedTuple):
    """The states at the end and, for each sample [B], what they cost.

    nfe: network calls, those of rejected steps included.
    within_tolerance: whether the sample arrived by accepted steps alone.
    """

    x: Parts
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    within_tolerance: Tensor


class _Sample(NamedTuple):
    """A sample under way: its place in the batch, its state and slope (one row each) at its angle,
    the length of the step that it tries next, and its counts."""

    place: int
    x: Parts
    slope: Parts | None
    angle: float
    h: float
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
) -> Integration:
    r"""Carry every sample from the angle ``start`` to the angle ``end``, in either direction.

    field: it is asked about the samples that need a slope, which are not the same each time.
    land: where a last step of DDIM goes, ``cos(d) x - sin(d) v`` over an angle d; nowhere, if it
        is not given. A sample that may make no further call goes there from where it is.

    A method that expands in the log-SNR leaves and reaches pure noise by a DDIM step, too, short
    enough for the tolerance. The error of every part is controlled, the worst one decides; for
    parts that are no noisy data, such as a likelihood, take a Runge-Kutta pair.
    Gradients flow to x and through the field, for the steps that were taken; the choice of steps
    has none. Raises ValueError for a tolerance that the dtype of x can't resolve.
    """
    _check_precision(x, settings)
    first, last = _reachable(start, settings), _reachable(end, settings)
    land = end if land is None else land
    h = _FIRST * abs(last - first)
    samples = [_Sample(i, row, None, start, h) for i, row in enumerate(x.rows)]
    if first != start:
        samples = [_ddim(sample, first) for sample in _evaluated(field, samples)]
    moving, done = _split(samples, lambda sample: sample.angle != land)
    while moving:
        going, stopping = _split(
            _evaluated(field, moving), lambda sample: _goes_on(sample, last, land, settings)
        )
        done += [_landed(sample, last, land) for sample in stopping]
        tried = _tried(field, going, last, settings)
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

    DDIM errs by the square of the angle that it crosses.
    """
    if not settings.pair.in_log_snr or math.pi / 2 - angle > 1e-9:
        return angle
    return math.pi / 2 - 0.1 * math.sqrt(settings.rtol + settings.atol)


def _evaluated(field: Field, samples: Sequence[_Sample]) -> list[_Sample]:
    """The same samples, all with their slopes; one network call for those that lack it."""
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


def _goes_on(sample: _Sample, last: float, land: float, settings: Adaptive) -> bool:
    """Whether there is a step to try, and calls enough for it and for what must follow."""
    if sample.angle == last:
        return False
    pair = settings.pair
    finished = pair.keeps_last or _next_angle(sample, last) == land
    return sample.nfe + pair.calls - 1 + (0 if finished else 1) <= settings.max_nfe


def _next_angle(sample: _Sample, last: float) -> float:
    way = last - sample.angle
    # A rest of a few units in the last place is no step of its own.
    if sample.h >= abs(way) * (1 - 1e-12):
        return last
    return sample.angle + math.copysign(sample.h, way)


def _landed(sample: _Sample, last: float, land: float) -> _Sample:
    """The sample at the end; it kept the tolerance if only the last DDIM step was left to do."""
    return _ddim(sample, land)._replace(within_tolerance=sample.angle == last)


def _ddim(sample: _Sample, angle: float) -> _Sample:
    r"""The step that holds for every angle (Salimans and Ho 2022, appendix D).

    .. math:: x' = \cos(\phi - \phi') \, x - \sin(\phi - \phi') \, v
    """
    assert sample.slope is not None  # it was evaluated before
    crossed = sample.angle - angle
    x = math.cos(crossed) * sample.x - math.sin(crossed) * sample.slope
    return sample._replace(x=x, slope=None, angle=angle)


def _tried(
    field: Field, samples: Sequence[_Sample], last: float, settings: Adaptive
) -> list[_Sample]:
    """The same samples after one trial step each: moved on if it was accepted, or where they were
    with a shorter step."""
    if not samples:
        return []
    slopes = [sample.slope for sample in samples if sample.slope is not None]
    known = Known(_joined(sample.x for sample in samples), Parts.joined(slopes), _angles(samples))
    angles = [_next_angle(sample, last) for sample in samples]
    slope = _at_places(field, _places(samples))
    trial = settings.pair.step(slope, known, torch.tensor(angles, dtype=torch.float64))
    errors = _errors(trial, known.x, settings)
    slopes_there = [None] * len(samples) if trial.last is None else trial.last.rows
    rows = zip(samples, angles, errors, trial.x.rows, slopes_there, strict=True)
    return [_judged(*row, settings.pair) for row in rows]


def _at_places(field: Field, places: Tensor) -> Slope:
    return lambda x, angle: field(x, angle, places)


def _judged(
    sample: _Sample, angle: float, error: float, x: Parts, slope: Parts | None, pair: Pair
) -> _Sample:
    h = abs(angle - sample.angle) * _factor(error, pair.order)
    paid = sample._replace(h=h, nfe=sample.nfe + pair.calls - 1)
    if error <= 1:
        return paid._replace(x=x, slope=slope, angle=angle, accepted=sample.accepted + 1)
    return paid._replace(rejected=sample.rejected + 1)


def _factor(error: float, order: int) -> float:
    """By how much the next step is longer than this one."""
    if error == 0:
        return _GROW
    if math.isnan(error):
        return _SHRINK
    return min(max(_SAFETY * math.pow(error, -1 / order), _SHRINK), _GROW)


def _errors(trial: Trial, before: Parts, settings: Adaptive) -> list[float]:
    """The error of each sample in units of the tolerance: that of its worst part."""
    of_parts = []
    tensors = zip(before.tensors, trial.x.tensors, trial.error.tensors, strict=True)
    for x, high, error in tensors:
        error = error.detach()
        size = torch.maximum(x.detach().abs(), (high.detach() - error).abs())
        of_parts.append(_mean((error / (settings.atol + settings.rtol * size)).square()).sqrt())
    worst: list[float] = torch.stack(of_parts).amax(dim=0).tolist()
    return worst


def _mean(values: Tensor) -> Tensor:
    """The mean over each sample, in an order of additions that does not depend on the batch."""
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
    """Those for which ``keep`` holds, and the others."""
    kept: list[_Sample] = []
    others: list[_Sample] = []
    for sample in samples:
        (kept if keep(sample) else others).append(sample)
    return kept, others


# ------------------------------------------------------------------------------ the networks


Network = Callable[..., Tensor]
"""A network: (x [b, ...], t [b], and rows [b, ...] of as many conditions as there are) -> its
output, shaped like x."""


def probability_flow(
    model: Network,
    schedule: Schedule,
    prediction: Prediction,
    correct: Correction | None = None,
    conditions: Sequence[Tensor] = (),
) -> Field:
    r"""The slope of the probability-flow ODE, from a network.

    .. math:: v = (\cos\phi \, x - D) / \sin\phi

    It takes Parts of one tensor, x in variance-preserving coordinates; the network is asked about
    x in the coordinates of the schedule, with a time for each sample, and the rows of the
    ``conditions`` [B, ...] that belong to the samples. Raises ValueError for an output of another
    shape, NotFiniteError for NaN or infinity.
    """

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        (x,) = parts.tensors
        at = _schedule_points(schedule, angle)
        scale = scale_of(at)
        asked = spread(scale, x) * x
        given = [condition[places.to(condition.device)] for condition in conditions]
        output = model(asked, at.t.to(x), *given)
        _check_output(output, asked, at.t)
        of_x, of_output = door(prediction, at)
        data = spread(of_x, x) * asked + spread(of_output, x) * output.to(x.dtype)
        data = data if correct is None else correct(data)
        return Parts(((spread(at.alpha / scale, x) * x - data) / spread(at.sigma / scale, x),))

    return field


def angle_of(at: Point) -> float:
    """The angle arctan(sigma / alpha) of a single point."""
    return math.atan2(float(at.sigma), float(at.alpha))


def scale_of(at: Point) -> Tensor:
    """sqrt(alpha^2 + sigma^2): what x is divided by in variance-preserving coordinates."""
    return torch.sqrt(at.alpha.square() + at.sigma.square())


def _schedule_points(schedule: Schedule, angle: Tensor) -> Point:
    rows = schedule.at_lam(-torch.log(torch.tan(lanes(angle))))
    return Point(*(column[:, 0] for column in rows))


def _check_output(output: Tensor, x: Tensor, t: Tensor) -> None:
    if output.shape != x.shape:
        raise ValueError(
            f"The network returned shape {tuple(output.shape)} for x of {tuple(x.shape)}; "
            "it must return one prediction of the shape of x."
        )
    bad = ~output.flatten(1).isfinite().all(dim=1)
    if bool(bad.any()):
        raise NotFiniteError(
            f"The network returned NaN or infinity for {int(bad.sum())} of {len(x)} samples "
            f"(t = {float(t[bad.cpu()][0]):.6g}).",
            x[bad],
        )


# ---------------------------------------------------------------------------- the front doors


class AdaptiveResult(NamedTuple):
    """The samples x [B, ...] in the dtype they came in and, for each [B], what they cost.

    nfe: network calls, those of rejected steps included.
    within_tolerance: False where ``max_nfe`` ran out, and DDIM went the rest of the way.
    """

    x: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    within_tolerance: Tensor


def sample_adaptive(
    model: Network,
    x_T: Tensor,
    *,
    schedule: Schedule,
    prediction: Prediction = "epsilon",
    conditions: Sequence[Tensor] = (),
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final = "zero",
    correct: Correction | None = None,
) -> AdaptiveResult:
    """Draw one sample for each starting noise in ``x_T``, each with steps of its own.

    model: ``model(x, t)`` with x [b, ...] and t [b], the schedule's own time. The b samples are
        those that need the call, and their times differ.
    x_T: starting noise [B, ...] at ``sigma_max``; its dtype decides the arithmetic (float64 stays
        float64, half precision is accumulated in float32).
    conditions: tensors [B, ...] of what belongs to each sample, such as labels; the model is given
        the rows of its b samples after x and t.
    sigma_min, sigma_max: where the steps begin and end, in units of sigma / alpha; the whole
        trained range if not given.
    final: ``zero`` returns the prediction of x_0 at ``sigma_min``, ``sigma_min`` the state there.
    correct: a change of every predicted x_0, such as :func:`samplers.prediction.clip`.

    Gradients flow through everything but the choice of the steps: call it under
    ``torch.no_grad()`` if none are wanted. Raises ValueError for impossible settings, or if the
    network predicts eps or the score and the start is pure noise; NotFiniteError if it returns NaN
    or infinity.
    """
    clean, noisy = ends(schedule, sigma_min, sigma_max)
    door(prediction, noisy)  # an error here is better than one in the middle
    reached = clean if final == "sigma_min" else schedule.clean()
    field = probability_flow(model, schedule, prediction, correct, conditions)
    way = (angle_of(noisy), angle_of(clean))
    found = integrate(field, _parts(x_T, noisy), *way, settings, land=angle_of(reached))
    return _result(found, reached, x_T.dtype)


def encode_adaptive(
    model: Network,
    x: Tensor,
    *,
    schedule: Schedule,
    prediction: Prediction = "epsilon",
    conditions: Sequence[Tensor] = (),
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    correct: Correction | None = None,
) -> AdaptiveResult:
    """The noise at ``sigma_max`` from which :func:`sample_adaptive` comes to x at ``sigma_min``.

    x: states [B, ...] at ``sigma_min`` in the coordinates of the schedule; for an image x_0 that
        is alpha x_0, which most schedules make x_0 itself.

    The other arguments, and the errors, are those of :func:`sample_adaptive`.
    """
    clean, noisy = ends(schedule, sigma_min, sigma_max)
    door(prediction, noisy)
    field = probability_flow(model, schedule, prediction, correct, conditions)
    found = integrate(field, _parts(x, clean), angle_of(clean), angle_of(noisy), settings)
    return _result(found, noisy, x.dtype)


def ends(
    schedule: Schedule, sigma_min: float | None, sigma_max: float | None
) -> tuple[Point, Point]:
    """The cleanest point and the noisiest."""
    grid = make_grid(schedule, 1, sigma_min=sigma_min, sigma_max=sigma_max, final="sigma_min")
    if grid.end.clean:
        raise ValueError(
            "This schedule's cleanest level holds no noise, and the network can't be asked there "
            "for a slope; give a sigma_min."
        )
    return grid.end, grid.start


def _parts(x: Tensor, at: Point) -> Parts:
    if len(x) == 0:
        raise ValueError("The batch is empty; give at least one sample.")
    return Parts((x.to(working_dtype(x.dtype)) / float(scale_of(at)),))


def _result(found: Integration, at: Point, dtype: torch.dtype) -> AdaptiveResult:
    (x,) = found.x.tensors
    return AdaptiveResult((float(scale_of(at)) * x).to(dtype), *found[1:])
