r"""Guidance by the gradient of the measurement's likelihood, through the network.

Given x_t, the data have mean D(x_t) and a covariance that is taken as ``r_t^2``, so the
measurement is normal with mean ``A D(x_t)``, and the score of the posterior is

.. math:: \nabla \log p(x_t \mid y) \approx \nabla \log p(x_t)
    + w \, J^T A^T (r_t^2 A A^T + \sigma_y^2)^{-1} (y - A D(x_t))

with J the Jacobian of D and a weight w (Song et al. 2023, Pseudoinverse-guided diffusion models,
section 3, https://openreview.net/forum?id=9_gsMA8MRKQ). Chung et al. 2023, eq. 16
(https://arxiv.org/abs/2209.14687), have a scalar of their choice in place of the inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from samplers.inverse_problems.operators import damped_inverse, pseudo_inverse
from samplers.inverse_problems.problem import InverseProblem, check_count
from samplers.prediction import Prediction, door, points_at, score_gain, value_and_pullback
from samplers.schedule import Point, Schedule
from samplers.solve import Model


@dataclass(frozen=True)
class NormalData:
    r"""The variance of x_0 given x_t for data N(m, std^2): ``1/r^2 = 1/std^2 + alpha^2/sigma^2``.

    With std = 1 and alpha = 1 it is that of Song et al. 2023, ``sigma^2 / (1 + sigma^2)``.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"The standard deviation of the data is {self.std}; need above 0.")

    def __call__(self, at: Point) -> Tensor:
        noise, signal = at.sigma.square(), (self.std * at.alpha).square()
        return self.std**2 * noise / (signal + noise)


@dataclass(frozen=True)
class Guidance:
    r"""Settings of :func:`guiding`.

    scale: the weight w of the measurement; 1 is Bayes' rule.
    variance: ``r_t^2``, the variance of a number of x_0 given x_t, as a function of the point t.
        Where A P A^T = r_t^2 A A^T holds for the true covariance P, the posterior is exact.
    """

    scale: float = 1.0
    variance: Callable[[Point], Tensor] = NormalData()

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"The guidance scale is {self.scale}; it must be zero or positive.")


def guiding(
    model: Model,
    problem: InverseProblem,
    schedule: Schedule,
    prediction: Prediction,
    settings: Guidance | None = None,
) -> Model:
    """The model of the posterior given the measurement, for any sampler.

    The adaptive ones need one measurement for all samples, because they call the model with some.
    It predicts what ``model`` predicts. One call costs a call of the model and a pass back through
    it, under ``torch.no_grad`` too. Raises ValueError at alpha = 0: start the grid at a smaller
    ``sigma_max``.
    """
    chosen = settings or Guidance()

    def guided(x: Tensor, t: Tensor) -> Tensor:
        check_count(problem, len(x))
        at = points_at(schedule, t, x)
        gain = score_gain(prediction, at)
        of_x, of_output = (number.to(x) for number in door(prediction, at))
        output, pull = value_and_pullback(lambda x: model(x, t), x)
        pulled = _weighted_residual(problem, of_x * x + of_output * output, chosen.variance(at))
        # D = of_x x + of_output output, and so is its Jacobian.
        gradient = of_x * pulled + of_output * pull(pulled)
        return output + (chosen.scale * gain).to(x) * gradient

    return guided


def _weighted_residual(problem: InverseProblem, x0: Tensor, variance: Tensor) -> Tensor:
    r"""``A^T (r^2 A A^T + sigma_y^2)^{-1} (y - A x_0)``, of the shape of x_0."""
    operator, r2 = problem.operator, variance.to(x0)
    residual = problem.measurement.to(x0) - operator.forward(x0)
    if problem.noise_std == 0:
        return pseudo_inverse(operator, residual) / r2
    return damped_inverse(operator, residual, problem.noise_std**2 / r2) / r2
