r"""Layer 5. The probability-flow ODE of a denoiser, solved with adaptive step size.

With the angle ``phi = arctan(sigma / alpha)`` and in the variance-preserving coordinates
``x / sqrt(alpha^2 + sigma^2) = cos(phi) x_0 + sin(phi) eps`` the ODE of every schedule is

.. math:: \frac{dx}{d\phi} = v(x, \phi) = \cos\phi \, \varepsilon - \sin\phi \, x_0

(Salimans and Ho 2022, appendix D, https://arxiv.org/abs/2202.00512), from pi/2, pure noise, to
0, the data. For data of order one it is equally smooth at both ends and its values are of order
one, so the step size is chosen in phi, whatever variable a method expands in. Data of another scale
are divided by it for each step (:mod:`samplers.probability_flow.units`).

:mod:`samplers.probability_flow.integration` has the step size control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from samplers.checks import check_numbers
from samplers.denoiser import Denoiser, check_conditions, check_denoiser, select_rows
from samplers.errors import NotFiniteError
from samplers.grid import Final, make_grid
from samplers.methods.embedded import Parts, lanes, spread
from samplers.prediction import to_data
from samplers.probability_flow.integration import DEFAULT, Adaptive, Field, Integration, integrate
from samplers.probability_flow.units import data_scale
from samplers.schedule import Point, Schedule
from samplers.solve import working_dtype


def probability_flow(model: Denoiser, conditions: Mapping[str, Any] | None = None) -> Field:
    r"""The right-hand side of the probability-flow ODE of a denoiser.

    .. math:: v = (\cos\phi \, x - D) / \sin\phi

    It takes Parts of one tensor, x in variance-preserving coordinates; the network is evaluated at
    x in the coordinates of the schedule, with a time for each sample, and with the rows of the
    ``conditions`` [B, ...] of these samples. Raises ValueError for an output of another shape,
    NotFiniteError for NaN or infinity.
    """
    given = conditions or {}

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        (x,) = parts.tensors
        at = _schedule_points(model.schedule, angle)
        scale = scale_of(at)
        state = spread(scale, x) * x
        output = model(state, at.t.to(x), **select_rows(given, places))
        _check_output(output, state, at.t)
        of_x, of_output = to_data(model.prediction, at)
        data = spread(of_x, x) * state + spread(of_output, x) * output.to(x.dtype)
        data = data if model.correction is None else model.correction(data)
        return Parts(((spread(at.alpha / scale, x) * x - data) / spread(at.sigma / scale, x),))

    return field


class CountedField:
    """A slope that counts the network evaluations of each sample of the batch, ``nfe`` [B]."""

    def __init__(self, field: Field, model: Denoiser, count: int) -> None:
        self._field, self._model = field, model
        self.nfe = torch.zeros(count, dtype=torch.int64)

    def __call__(self, parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        self.nfe[places] += self._model.nfe(_schedule_points(self._model.schedule, angle))
        return self._field(parts, angle, places)


def angle_of(at: Point) -> float:
    """The angle arctan(sigma / alpha) of a single point."""
    return math.atan2(float(at.sigma), float(at.alpha))


def scale_of(at: Point) -> Tensor:
    """sqrt(alpha^2 + sigma^2), by which x is divided in variance-preserving coordinates."""
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


# ---------------------------------------------------------------------------- public functions


class AdaptiveResult(NamedTuple):
    """Samples x [B, ...] in the dtype of the input, with the cost of each [B].

    Attributes:
        nfe: network evaluations, including those of rejected steps; a guided one counts as the two
            that it makes.
        within_tolerance: False where ``max_nfe`` ran out and a DDIM step went to the end.
    """

    x: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    within_tolerance: Tensor


def sample_adaptive(
    model: Denoiser,
    x_T: Tensor,
    *,
    conditions: Mapping[str, Any] | None = None,
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final = "zero",
) -> AdaptiveResult:
    """Sample x_0 from the initial noise ``x_T``, with a separate adaptive step size for each
    sample.

    Args:
        model: its network is evaluated on those samples of the batch that need it, x [b, ...], with
            a time for each sample, t [b].
        x_T: initial noise [B, ...] at ``sigma_max``; its dtype decides the arithmetic (float64
            stays float64, half precision is accumulated in float32).
        conditions: by name; of a tensor [B, ...] the network is given the rows of its b samples.
        settings: the method, the tolerances, and the maximum number of evaluations.
        sigma_min, sigma_max: the last and the first noise level, as sigma / alpha; those of the
            trained range if not given.
        final: ``zero`` returns the prediction of x_0 at ``sigma_min``, ``sigma_min`` the state
            there.

    Gradients flow through everything but the step sizes: call it under ``torch.no_grad()`` if none
    are wanted. Raises ValueError for impossible settings, or if the network predicts eps or the
    score and the start is pure noise; NotFiniteError if it returns NaN or infinity.
    """
    check_denoiser(model)
    if final not in get_args(Final):
        raise ValueError(f"final is {final!r}; it must be one of {', '.join(get_args(Final))}.")
    check_numbers("x_T", x_T)
    check_conditions(conditions or {}, len(x_T))
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    to_data(model.prediction, noisy)  # an error here is better than one in the middle
    reached = clean if final == "sigma_min" else model.schedule.clean()
    field = CountedField(probability_flow(model, conditions), model, len(x_T))
    way = (angle_of(noisy), angle_of(clean))
    found = integrate(field, _parts(x_T, noisy), *way, settings, angle_of(reached), data_scale)
    return _result(found._replace(nfe=field.nfe), reached, x_T.dtype)


def encode_adaptive(
    model: Denoiser,
    x: Tensor,
    *,
    conditions: Mapping[str, Any] | None = None,
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> AdaptiveResult:
    """The noise at ``sigma_max`` from which :func:`sample_adaptive` reconstructs x at
    ``sigma_min``.

    Args:
        x: states [B, ...] at ``sigma_min`` in the coordinates of the schedule; for an image x_0
            that is alpha x_0, with alpha near 1 for most schedules.

    The other arguments, and the errors, are those of :func:`sample_adaptive`.
    """
    check_denoiser(model)
    check_numbers("x", x)
    check_conditions(conditions or {}, len(x))
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    to_data(model.prediction, noisy)
    field = CountedField(probability_flow(model, conditions), model, len(x))
    way = (angle_of(clean), angle_of(noisy))
    found = integrate(field, _parts(x, clean), *way, settings, measure=data_scale)
    return _result(found._replace(nfe=field.nfe), noisy, x.dtype)


def ends(
    schedule: Schedule, sigma_min: float | None, sigma_max: float | None
) -> tuple[Point, Point]:
    """The cleanest point and the noisiest of an integration."""
    grid = make_grid(schedule, 1, sigma_min=sigma_min, sigma_max=sigma_max, final="sigma_min")
    if grid.end.clean:
        raise ValueError(
            "This schedule's cleanest level has no noise, where the ODE is not defined; pass a "
            "sigma_min."
        )
    return grid.end, grid.start


def _parts(x: Tensor, at: Point) -> Parts:
    if len(x) == 0:
        raise ValueError("The batch is empty; pass at least one sample.")
    return Parts((x.to(working_dtype(x.dtype)) / float(scale_of(at)),))


def _result(found: Integration, at: Point, dtype: torch.dtype) -> AdaptiveResult:
    (x,) = found.x.tensors
    return AdaptiveResult((float(scale_of(at)) * x).to(dtype), *found[1:])
