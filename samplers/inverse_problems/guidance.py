r"""Guidance by the gradient of the measurement's likelihood, through the network.

Given x_t, the data have mean D(x_t) and some covariance P, so the measurement is approximated as
normal with mean ``A D(x_t)`` and covariance ``A P A^T + sigma_y^2``. The score of the posterior is
then

.. math:: \nabla \log p(x_t \mid y) = \nabla \log p(x_t)
    + w \, J^T A^T (A P A^T + \sigma_y^2)^{-1} (y - A D(x_t)), \qquad J = \partial D / \partial x_t

with a weight w = 1. Chung et al. 2023 (https://arxiv.org/abs/2209.14687) replace the inverse by a
scalar step size; an estimate of P makes it unnecessary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_whole
from samplers.denoiser import Denoiser
from samplers.inverse_problems.operators import (
    Map,
    conjugate_gradients,
    damped_inverse,
    inner_product,
    pseudo_inverse,
    within_range,
)
from samplers.inverse_problems.problem import InverseProblem, check_count
from samplers.prediction import points_at, score_gain, to_data
from samplers.pullback import recorded, value_and_pullback
from samplers.schedule import Point


@dataclass(frozen=True)
class FromJacobian:
    r"""The covariance estimated by the network, ``P = (sigma^2 / alpha) J``.

    For an exact network it is the true covariance (Tweedie's formula of second order, Boys et al.
    2023, https://arxiv.org/abs/2310.06721). The inverse is computed by conjugate gradients (Rozet
    et al. 2024, section 4.2, https://arxiv.org/abs/2405.13712), each iteration of which takes one
    vector-Jacobian product of the network.

    Attributes:
        iterations: of conjugate gradients. One determines the length of a step along the gradient;
            as many as y has components make the posterior exact for normal data. The J of a trained
            network is not a covariance in every direction, so few iterations are better than many.
            No step changes A x by more than twice the residual, which bounds steps in directions
            where J is nearly zero.
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        check_whole("The number of iterations", self.iterations)


@dataclass(frozen=True)
class NormalData:
    r"""The covariance ``P = r^2 I`` of data N(m, std^2 I): ``1/r^2 = 1/std^2 + alpha^2/sigma^2``.

    With std = 1 and alpha = 1 it is that of Song et al. 2023, Pseudoinverse-guided diffusion
    models, section 3 (https://openreview.net/forum?id=9_gsMA8MRKQ). The directions in which images
    vary most matter: too small a std overshoots, too large a one gives the measurement too little
    weight.
    """

    std: float

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(
                f"The standard deviation of the data is {self.std}; it must be positive and finite."
            )

    def variance(self, at: Point) -> Tensor:
        """r^2."""
        noise, signal = at.sigma.square(), (self.std * at.alpha).square()
        return self.std**2 * noise / (signal + noise)


@dataclass(frozen=True)
class Guidance:
    """A method of ``solve_inverse_problem``: guidance by the gradient of the likelihood of y.

    Attributes:
        scale: the weight w of the measurement; 1 is Bayes' rule.
        covariance: the estimate of the covariance P of x_0 given x_t. With the true one, the
            posterior of normal data is exact.
    """

    scale: float = 1.0
    covariance: FromJacobian | NormalData = FromJacobian()

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(
                f"The guidance scale is {self.scale}; it must be zero or positive, and finite."
            )


def guiding(model: Denoiser, problem: InverseProblem, settings: Guidance | None = None) -> Denoiser:
    """A denoiser of the posterior given the measurement, for any sampler.

    Adaptive samplers need one measurement for all samples, because they evaluate the model on a
    part of the batch. It has the prediction type of ``model``. One evaluation takes an evaluation
    of the model and a vector-Jacobian product, and those of the covariance, under ``torch.no_grad``
    too. Raises ValueError at alpha = 0: start the grid at a smaller ``sigma_max``.
    """
    chosen = settings or Guidance()
    measurement = within_range(problem.operator, problem.measurement)

    network = recorded(model)

    def guided(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        check_count(problem, len(x))
        at = points_at(model.schedule, t, x)
        gain = score_gain(model.prediction, at)
        of_x, of_output = (number.to(x) for number in to_data(model.prediction, at))
        output, pull = value_and_pullback(lambda x: network(x, t, **conditions), x)

        def pull_data(cotangent: Tensor) -> Tensor:
            """J^T times a cotangent, for D = of_x * x + of_output * output."""
            return of_x * cotangent + of_output * pull(cotangent)

        residual = measurement.to(x) - problem.operator.forward(of_x * x + of_output * output)
        weighted = _weighted(chosen.covariance, problem, residual, at, pull_data)
        return output + (chosen.scale * gain).to(x) * pull_data(weighted)

    return model.wrapped(guided)


def _weighted(
    covariance: FromJacobian | NormalData,
    problem: InverseProblem,
    residual: Tensor,
    at: Point,
    pull_data: Map,
) -> Tensor:
    r"""``A^T (A P A^T + sigma_y^2)^{-1} residual``, of the shape of x_0."""
    operator, noise = problem.operator, problem.noise_std**2
    match covariance:
        case FromJacobian(iterations):
            factor = (at.sigma.square() / at.alpha).to(residual)

            def measured(v: Tensor) -> Tensor:
                return operator.forward(factor * pull_data(operator.adjoint(v))) + noise * v

            found = conjugate_gradients(measured, residual, iterations)
            return operator.adjoint(_capped(found.x, residual - found.residual, residual))
        case NormalData():
            r2 = covariance.variance(at).to(residual)
            if noise == 0:
                return pseudo_inverse(operator, residual) / r2
            return damped_inverse(operator, residual, noise / r2) / r2


def _capped(weights: Tensor, moved: Tensor, missing: Tensor) -> Tensor:
    """The weights, scaled down where they would change A x by more than twice the residual."""
    most, length = 4 * inner_product(missing, missing), inner_product(moved, moved)
    far = length > most
    return torch.where(far, most / torch.where(far, length, 1), 1).sqrt() * weights
