"""A model as a denoiser of ``z = x / alpha`` at the noise level ``rho = sigma / alpha``.

In these coordinates all schedules are the same, so the residual has one form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.prediction import per_sample, to_data

LevelDenoiser = Callable[[Tensor, Tensor], Tensor]
"""``D(z, log_rho)``: z [B, ...] and log(sigma / alpha) [B] in the dtype of z -> E[x_0 | z]."""


def level_denoiser(model: Denoiser, conditions: Mapping[str, Any] | None = None) -> LevelDenoiser:
    """The model, without its correction, as a function of z and ln rho.

    Derivatives pass through both of its arguments.
    """
    given = conditions or {}

    def denoise(z: Tensor, log_rho: Tensor) -> Tensor:
        at = model.schedule.at_lam(-log_rho.double())
        x = per_sample(at.alpha, z) * z
        output = model(x, at.t.to(z), **given)
        of_x, of_output = (per_sample(number, z) for number in to_data(model.prediction, at))
        return of_x * x + of_output * output

    return denoise
