r"""Mean-reverting diffusion: the mean of x_T is a degraded image, not zero.

The drift of the forward SDE is towards mu, with rate theta,

.. math:: dx = \theta_t (\mu - x) \, dt + \sigma_t \, dw, \qquad
    \sigma_t^2 = 2 \lambda_\infty^2 \theta_t

(Luo et al. 2023, *Image Restoration with Mean-Reverting SDEs*, https://arxiv.org/abs/2301.11699),
so with :math:`\Lambda_t = \int_0^t \theta` and :math:`\alpha_t = e^{-\Lambda_t}`

.. math:: x_t = \mu + \alpha_t (x_0 - \mu) + \lambda_\infty \sqrt{1 - \alpha_t^2} \, \varepsilon.

In the coordinates :math:`y = (x - \mu) / \lambda_\infty` this is variance-preserving diffusion,
``y_t = alpha y_0 + sigma eps`` with ``alpha^2 + sigma^2 = 1``. So every function of a schedule
applies to it. MR Sampler (Li et al. 2025, https://arxiv.org/abs/2502.07856) is DPM-Solver in these
coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from samplers.schedule.discrete import interpolated, inverted
from samplers.schedule.variance_preserving import VariancePreserving

Theta = Literal["constant", "linear", "cosine"]
Convention = Literal["ir-sde", "mr-sampler"]


@dataclass(frozen=True)
class MeanReverting(VariancePreserving):
    r"""The schedule of y, trained at the times 0 to T; Lambda is linear between them.

    Attributes:
        theta: the rates theta_i at i = 0 to T: ``constant`` (1), ``linear`` (from 1e-4 to 0.02,
            times 1000 / (T + 1)) or ``cosine`` (1 - alpha_bar of Nichol and Dhariwal's schedule).
        steps: T.
        eps: alpha_T, the factor of x_0 - mu at the end. It determines the length dt of a step.
        convention: the value of Lambda at t = 0: ``ir-sde`` has zero, Lambda_i = dt (theta_1 + ...
            + theta_i), so that t = 0 is the data and the first time with noise is 1; ``mr-sampler``
            with theta_0, so that there is some noise at t = 0. Trained networks are given times of
            the first.

    Raises ValueError for impossible settings.
    """

    theta: Theta = "cosine"
    steps: int = 100
    eps: float = 0.005
    convention: Convention = "ir-sde"

    def __post_init__(self) -> None:
        for name, allowed in (("theta", Theta), ("convention", Convention)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"The {name} of a mean-reverting schedule is {getattr(self, name)!r}; it must "
                    f"be one of {', '.join(get_args(allowed))}."
                )
        if self.steps < 2:
            raise ValueError(f"A mean-reverting schedule of {self.steps} steps; it has 2 or more.")
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is {self.eps}; alpha ends between 0 and 1.")

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 1.0 if self.convention == "ir-sde" else 0.0

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return float(self.steps)

    @cached_property
    def _nodes(self) -> Tensor:
        """log alpha = -Lambda at the times 0 to T."""
        rates = _rates(self.theta, self.steps)
        total = rates.cumsum(0)
        if self.convention == "ir-sde":
            total = total - rates[0]
        return total * (math.log(self.eps) / float(total[-1]))

    def log_alpha(self, t: Tensor) -> Tensor:
        return interpolated(self._nodes, t)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        return inverted(self._nodes, log_alpha)

    def pull(self, t: Tensor) -> Tensor:
        r"""k = Lambda(t) - Lambda(t - 1), theta dt of the trained step that ends at t."""
        return self.log_alpha(t - 1) - self.log_alpha(t)


def _rates(theta: Theta, steps: int) -> Tensor:
    """theta_i at i = 0 to T."""
    count = steps + 1
    match theta:
        case "constant":
            return torch.ones(count, dtype=torch.float64)
        case "linear":
            scale = 1000 / count
            return torch.linspace(scale * 1e-4, scale * 0.02, count, dtype=torch.float64)
        case "cosine":
            u = torch.arange(count + 2, dtype=torch.float64) / (count + 1)
            alpha_bar = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)).square()
            return 1 - (alpha_bar / alpha_bar[0])[1 : count + 1]
