r"""The residual as a regulariser of a training (Deveney et al. 2023, Lai et al. 2022).

Both are objectives of :mod:`samplers.training`, to be given as its ``penalty``:

    train(model, data, denoising_loss(...), config, folder, penalty=score_penalty(...))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from adjoint.fokker_planck.denoiser import denoiser_of
from adjoint.fokker_planck.potential import potential_residual
from adjoint.fokker_planck.residual import (
    Estimator,
    choose_estimator,
    residual,
    squared_norms,
)
from samplers.prediction import Prediction, per_sample
from samplers.schedule import Point, Schedule
from samplers.training import Objective
from samplers.training.denoising import perturb

WEIGHT = 0.1
"""w_R, at which the paper's own models come nearest to the data."""

TimeWeight = Callable[[Point], Tensor]
"""One number for each time of a point."""


def score_penalty(
    network: Callable[..., Tensor],
    schedule: Schedule,
    prediction: Prediction,
    weight: float = WEIGHT,
    *,
    probes: int = 2,
    estimator: Estimator | None = None,
    time_weight: TimeWeight | None = None,
) -> Objective:
    r"""``w_R E[w(t) |R|^2 / d]`` of a denoiser, at noisy samples of the data.

    Args:
        network: ``network(model, x_t, t, *conditions)``, as for
            :func:`samplers.training.denoising.denoising_loss`; batches are the same.
        probes: two or more, so that the square has no bias.
        estimator: see :func:`adjoint.fokker_planck.residual.residual`.
        time_weight: w; 1 if None. R has the unit of the data at every noise level.

    Raises ValueError for fewer than two probes or a negative weight.
    """
    _check(weight)
    if probes < 2:
        raise ValueError(f"{probes} probe gives a square that is too large; take two or more.")
    chosen = estimator

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        nonlocal chosen
        x0, *conditions = batch
        x, at, _ = perturb(schedule, x0, generator)
        denoiser = denoiser_of(
            lambda x, t, *given: network(model, x, t, *given), schedule, prediction, *conditions
        )
        z, log_rho = x / per_sample(at.alpha, x), -at.lam.to(x)
        if chosen is None:  # once: it depends on the layers of the network alone
            chosen = choose_estimator(denoiser, z, log_rho)
        signs = torch.randint(2, (probes, *x.shape), generator=generator).to(x) * 2 - 1
        found = residual(denoiser, z, log_rho, signs, chosen)
        return weight * (_weights(time_weight, at).to(x) * squared_norms(found)).mean()

    return objective


def potential_penalty(
    potential: Callable[..., Tensor],
    schedule: Schedule,
    points: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    weight: float = WEIGHT,
    *,
    centred: bool = False,
    time_weight: TimeWeight | None = None,
) -> Objective:
    r"""``w_R E[w(t) R^2]`` of a potential, at points of one's own choice.

    Args:
        potential: ``potential(model, x, t)`` -> [N].
        points: draws x [T, M, d] and t [T], on the CPU: M points at each of T times.
        centred: take R less its mean over the points of a time, since a function of t alone in R
            changes no score.
    """
    _check(weight)

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        device = next(model.parameters()).device
        x, t = (drawn.to(device) for drawn in points(generator))
        every = t[:, None].expand(x.shape[:2])
        found = potential_residual(
            lambda x, t: potential(model, x, t), schedule, x.flatten(0, 1), every.flatten()
        ).reshape(x.shape[:2])
        if centred:
            found = found - found.mean(dim=1, keepdim=True)
        weights = _weights(time_weight, schedule.point(t.double())).to(x)
        return weight * (weights[:, None] * found.square()).mean()

    return objective


def _weights(time_weight: TimeWeight | None, at: Point) -> Tensor:
    return torch.ones_like(at.t) if time_weight is None else time_weight(at)


def _check(weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"The weight of the residual is {weight}; it must be zero or positive.")
