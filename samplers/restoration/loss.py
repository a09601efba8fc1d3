r"""What a network that restores may learn, as objectives of the training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from samplers.denoising import perturb
from samplers.mean_reverting import MeanReverting
from samplers.prediction import target
from samplers.restoration.process import RestorationProcess, ml_noise
from samplers.training import Objective

Matching = Literal["output", "reverse-state"]

Degrade = Callable[..., tuple[Tensor, ...]]
"""``degrade(x_0, generator) -> (mu, *conditions)``: a degraded image for each of a batch, and what
else the network is told, such as the number of the degradation."""


def restoration_loss(
    process: RestorationProcess,
    network: Callable[..., Tensor],
    degrade: Degrade,
    matching: Matching = "output",
) -> Objective:
    r"""The mean absolute error of a network at times uniform over the schedule.

    network: ``network(model, x, mu, t, *conditions)``, how the model is called.
    degrade: draws mu; a new one for each batch.
    matching: ``output`` compares with what the process says that the network predicts.
        ``reverse-state`` (Luo et al. 2023, eq. 17) compares the mean of one Euler-Maruyama step
        of the reverse SDE with that of the exact posterior, which is

        .. math:: \lambda_\infty \frac{2 k}{\sigma_t}
            | \hat\varepsilon - \varepsilon_{ML} |, \qquad k = \Lambda_t - \Lambda_{t-1},

        for a network that predicts ``ml-noise`` (see
        :class:`samplers.restoration.process.RestorationProcess`), at whole times.

    Returns an objective on batches whose first tensor is x_0 [B, C, H, W]. Raises ValueError if
    the process and the matching do not belong together.
    """
    if (matching == "reverse-state") != (process.predicts == "ml-noise"):
        raise ValueError(
            f"A network that predicts {process.predicts!r} can't be trained by {matching!r}; "
            "reverse-state and ml-noise belong together."
        )

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, *_ = batch
        mu, *conditions = degrade(x0, generator)
        errors = _errors(process, network, model, x0, mu, conditions, generator)
        return errors.abs().mean()

    return objective


def _errors(
    process: RestorationProcess,
    network: Callable[..., Tensor],
    model: nn.Module,
    x0: Tensor,
    mu: Tensor,
    conditions: list[Tensor],
    generator: torch.Generator,
) -> Tensor:
    y0 = process.to_y(x0, mu)
    y, at, eps = perturb(process.schedule, y0, generator)
    t = at.t
    if process.predicts == "ml-noise":
        t = _whole(process.schedule, t)
        alpha, sigma = (_like(level, y0) for level in process.schedule.point(t)[1:])
        y = alpha * y0 + sigma * eps
    output = network(model, process.to_x(y, mu), mu, t.to(y0), *conditions)
    alpha, sigma = (_like(level, y0) for level in process.schedule.point(t)[1:])
    match process.predicts:
        case "data":
            return output - x0
        case "residual":
            return output - (x0 - mu)
        case "noise" | "velocity":
            scale = process.lambda_inf if process.predicts == "velocity" else 1.0
            return output - scale * target(process.prediction, y0, eps, alpha, sigma)
        case "ml-noise":
            slope, shift = (_like(number, y0) for number in ml_noise(process.schedule, t))
            weight = 2 * process.lambda_inf * _like(process.schedule.pull(t), y0) / sigma
            return weight * (output - (slope * eps - shift * y))


def _whole(schedule: MeanReverting, t: Tensor) -> Tensor:
    """Times uniform on 1 to T, each as likely, from times uniform on the trained range."""
    return (1 + schedule.fraction(t) * schedule.steps).floor().clamp(max=schedule.steps)


def _like(numbers: Tensor, x: Tensor) -> Tensor:
    return numbers.to(x).reshape(-1, *[1] * (x.ndim - 1))
