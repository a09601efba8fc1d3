r"""Layer 6. The loss of diffusion models: denoising at every noise level.

The losses here are objectives of the loop in :mod:`samplers.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from samplers.denoiser import Denoiser
from samplers.prediction import PredictionName, per_sample, target, to_data
from samplers.schedule import Point, Schedule, shifted
from samplers.training.learner import Objective


@dataclass(frozen=True)
class LabelDropout:
    """Label dropout for classifier-free guidance: ``null`` replaces a share of the labels.

    A single network then learns p(x | y) and p(x) (Ho and Salimans 2022,
    https://arxiv.org/abs/2207.12598).
    """

    probability: float
    null: int

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"The probability of label dropout is {self.probability}; it must be in [0, 1]."
            )

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """``labels`` (batch,), each replaced by ``null`` with the given probability."""
        dropped = torch.rand(labels.shape, generator=generator) < self.probability
        return labels.masked_fill(dropped.to(labels.device), self.null)


class Perturbed(NamedTuple):
    """Noisy samples ``x = alpha x_0 + sigma eps``, each at a separate noise level."""

    x: Tensor
    at: Point
    eps: Tensor


def perturb(
    schedule: Schedule, x0: Tensor, generator: torch.Generator, time_shift: float = 1.0
) -> Perturbed:
    """Add noise to each sample of ``x0``, at a time uniform on the trained times of the schedule.

    Args:
        time_shift: shifts the times towards the noise, see :func:`samplers.schedule.shifted`.

    The points are (batch,) in float64 on the CPU, the noise is like ``x0``.
    """
    u = torch.rand(len(x0), generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator).to(x0)
    at = schedule.point(schedule.at_fraction(shifted(u, time_shift)))
    x = per_sample(at.alpha, x0) * x0 + per_sample(at.sigma, x0) * eps
    return Perturbed(x, at, eps)


ScoreWeighting = Callable[[Schedule, Point], Tensor]
r"""lambda(t) of denoising score matching, one number for each time of a point,

.. math::
    E_t \, \lambda(t) \, E \| s(x_t, t) - \nabla \log p_{0t}(x_t | x_0) \|^2,
    \qquad \nabla \log p_{0t}(x_t | x_0) = -\varepsilon / \sigma_t

(Song et al. 2021, eq. 7, https://arxiv.org/abs/2011.13456)."""

WeightingName = Literal["simple", "sigma-squared", "likelihood"]

Weighting = WeightingName | ScoreWeighting
"""The weighting of the loss over time, see :func:`target_weight`: a name, or a function lambda."""


def sigma_squared(schedule: Schedule, at: Point) -> Tensor:
    r"""lambda = sigma^2: the error is that of the noise, ``E || sigma s + eps ||^2``.

    It is proportional to ``1 / E || grad log p_0t ||^2``, the choice of the paper, which weights
    all noise levels equally (Song et al. 2021, section 3.3).
    """
    return at.sigma.square()


def likelihood(schedule: Schedule, at: Point) -> Tensor:
    r"""lambda = g^2: half the integral over t bounds the mean -log p(x_0), up to a constant.

    It is large at low noise, which increases the variance of the loss (Song, Durkan, Murray and
    Ermon 2021, theorem 1, https://arxiv.org/abs/2101.09258).
    """
    return schedule.diffusion_squared(at.t)


_SCORE_WEIGHTINGS: dict[WeightingName, ScoreWeighting] = {
    "sigma-squared": sigma_squared,
    "likelihood": likelihood,
}


def target_weight(
    weighting: Weighting, prediction: PredictionName, schedule: Schedule, at: Point
) -> Tensor:
    r"""The weight of the squared error of the network's output at each time.

    ``simple`` is 1 for every prediction type. The others are weights of the error of the score,
    which is linear in the output, so they are ``lambda (ds / do)^2`` with

    ================  ==========================================
    prediction        ds / do
    ================  ==========================================
    ``epsilon``       -1 / sigma
    ``sample``        alpha / sigma^2
    ``v_prediction``  -alpha / (sigma (alpha^2 + sigma^2))
    ``flow``          -alpha / (sigma (alpha + sigma))
    ``score``         1
    ================  ==========================================

    which is ``alpha b / sigma^2`` for the conversion ``x_0 = a x + b o``, since
    ``s = (alpha x_0 - x) / sigma^2``.
    """
    _check_weighting(weighting)
    if weighting == "simple":
        return torch.ones_like(at.t)
    slope = at.alpha * to_data(prediction, at).of_output / at.sigma.square()
    lam = _SCORE_WEIGHTINGS[weighting] if isinstance(weighting, str) else weighting
    return lam(schedule, at) * slope.square()


def _check_weighting(weighting: Weighting) -> None:
    names = get_args(WeightingName)
    if isinstance(weighting, str) and weighting not in names:
        raise ValueError(
            f"The weighting is {weighting!r}; it must be one of {', '.join(names)}, "
            "or a function lambda(schedule, point)."
        )


def denoising_loss(
    model: Denoiser,
    conditions: Sequence[str] = (),
    label_dropout: LabelDropout | None = None,
    weighting: Weighting = "simple",
    time_shift: float = 1.0,
) -> Objective:
    r"""Regression of a denoiser on its target,

    .. math::
        E_{t, \varepsilon} \, w(t) \| f(x_t, t) - \mathrm{target} \|^2,
        \qquad x_t = \alpha_t x_0 + \sigma_t \varepsilon,

    averaged over the elements of x, with t uniform on the trained times of the schedule and w of
    :func:`target_weight`.

    Args:
        model: the denoiser to train. Its network is replaced by the module that the training loop
            passes to the objective, and evaluated in the same way, at times t (batch,) in the dtype
            of x, which may be fractional on discrete schedules.
        conditions: the names of the conditions in a batch, in order.
        label_dropout: applied to the first condition.
        weighting: of the errors at different times.
        time_shift: shifts the times towards the noise, see :func:`samplers.schedule.shifted`.
            Low-frequency content of an image or film is determined at high noise levels, and at
            higher ones for larger images (Hoogeboom et al. 2023, https://arxiv.org/abs/2301.11093).

    Returns:
        An objective on batches ``(x_0, *conditions)``, each with the batch as its first dimension.

    Raises:
        ValueError: if the prediction type or the weighting is unknown, or the shift not positive.
    """
    prediction = model.prediction
    if not isinstance(prediction, str):
        raise ValueError(
            f"The model's prediction is {prediction!r}, a conversion alone, of which no training "
            "target follows; give the name of a prediction type."
        )
    _check_weighting(weighting)
    if not 0 < time_shift < math.inf:
        raise ValueError(f"The time shift is {time_shift}; it must be positive and finite.")

    def objective(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, *rows = batch
        if label_dropout is not None:
            rows[0] = label_dropout(rows[0], generator)
        x, at, eps = perturb(model.schedule, x0, generator, time_shift)
        weight = target_weight(weighting, prediction, model.schedule, at)
        alpha, sigma, weight = (per_sample(n, x0) for n in (at.alpha, at.sigma, weight))
        given = dict(zip(conditions, rows, strict=True))
        output = model.with_network(network)(x, at.t.to(x0), **given)
        error = output - target(prediction, x0, eps, alpha, sigma)
        return (weight * error.square()).mean()

    return objective
