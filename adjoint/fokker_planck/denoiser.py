r"""A network as a denoiser of ``z = x / alpha`` at the noise level ``rho = sigma / alpha``.

In these coordinates all schedules are one, so the residual has one form on all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from samplers.prediction import Prediction, door, per_sample
from samplers.schedule import Schedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``D(z, log_rho)``: z [B, ...] and log(sigma / alpha) [B] in the dtype of z -> E[x_0 | z]."""


def denoiser_of(
    model: Callable[..., Tensor],
    schedule: Schedule,
    prediction: Prediction,
    *conditions: Tensor,
) -> Denoiser:
    """The denoiser of a network; derivatives pass through both of its arguments.

    Args:
        model: ``model(x, t, *conditions)``, as for :func:`samplers.sample`.
    """

    def denoise(z: Tensor, log_rho: Tensor) -> Tensor:
        at = schedule.at_lam(-log_rho.double())
        x = per_sample(at.alpha, z) * z
        output = model(x, at.t.to(z), *conditions)
        of_x, of_output = (per_sample(number, z) for number in door(prediction, at))
        return of_x * x + of_output * output

    return denoise
