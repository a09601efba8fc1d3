r"""Training losses of restoration networks, as objectives of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from samplers.prediction import per_sample, target
from samplers.restoration.process import RestorationProcess, ml_noise
from samplers.training import Objective
from samplers.training.denoising import Perturbed, perturb

Degrade = Callable[..., tuple[Tensor, ...]]
"""``degrade(x_0, generator) -> (mu, *conditions)``: degraded images of a batch, and further
conditions such as the index of the degradation."""


def restoration_loss(
    process: RestorationProcess,
    call: Callable[..., Tensor],
    degrade: Degrade,
    conditions: Sequence[str] = (),
) -> Objective:
    r"""The mean absolute error of a network's prediction, at times uniform over the schedule.

    Args:
        call: ``call(network, x, mu, t, **conditions)``, the network's output.
        degrade: degrades the images of a batch at random.
        conditions: the names of the conditions that ``degrade`` returns, in order.

    The target is that of the process. For ``ml-noise`` (see
    :class:`samplers.restoration.process.RestorationProcess`) it is the reverse-state loss (Luo et
    al. 2023, eq. 17), at whole times: the mean of one Euler-Maruyama step of the reverse SDE
    against that of the exact posterior, which is

    .. math:: \lambda_\infty \frac{2 k}{\sigma_t}
        | \hat\varepsilon - \varepsilon_{ML} |, \qquad k = \Lambda_t - \Lambda_{t-1}

    Returns an objective on batches whose first tensor is x_0 [B, C, H, W].
    """

    def objective(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, *_ = batch
        mu, *rows = degrade(x0, generator)
        given = dict(zip(conditions, rows, strict=True))
        noisy = _noisy(process, process.to_y(x0, mu), generator)
        x = process.to_x(noisy.x, mu)
        output = call(network, x, mu, noisy.at.t.to(x0), **given)
        return _errors(process, output, x0, mu, noisy).abs().mean()

    return objective


def _noisy(process: RestorationProcess, y0: Tensor, generator: torch.Generator) -> Perturbed:
    """y at a time uniform over the schedule, an integer for the reverse-state loss."""
    noisy, schedule = perturb(process.schedule, y0, generator), process.schedule
    if process.predicts != "ml-noise":
        return noisy
    # The times 1 to T are equally likely.
    times = 1 + (schedule.fraction(noisy.at.t) * schedule.steps).floor()
    at = schedule.point(times.clamp(max=schedule.steps))
    y = per_sample(at.alpha, y0) * y0 + per_sample(at.sigma, y0) * noisy.eps
    return Perturbed(y, at, noisy.eps)


def _errors(
    process: RestorationProcess, output: Tensor, x0: Tensor, mu: Tensor, noisy: Perturbed
) -> Tensor:
    y, at, eps = noisy
    alpha, sigma = per_sample(at.alpha, x0), per_sample(at.sigma, x0)
    match process.predicts:
        case "data":
            return output - x0
        case "residual":
            return output - (x0 - mu)
        case "noise":
            return output - eps
        case "velocity":
            v = target("v_prediction", process.to_y(x0, mu), eps, alpha, sigma)
            return output - process.lambda_inf * v
        case "ml-noise":
            slope, shift = (per_sample(n, x0) for n in ml_noise(process.schedule, at.t))
            weight = 2 * process.lambda_inf * per_sample(process.schedule.pull(at.t), x0) / sigma
            return weight * (output - (slope * eps - shift * y))
