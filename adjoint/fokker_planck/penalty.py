r"""The residual as a regulariser in training (Deveney et al. 2023, Lai et al. 2022).

Both are objectives of :mod:`samplers.training`, passed as its ``penalty``:

    train(network, data, denoising_loss(model), config, folder, penalty=score_penalty(model))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adjoint.fokker_planck.coordinates import level_denoiser
from adjoint.fokker_planck.estimators import (
    Estimator,
    ResidualMethod,
    choose_method,
    estimate_by,
    squared_norms,
)
from adjoint.fokker_planck.potential import exact_residual, warn_of_kinks
from samplers.denoiser import Denoiser
from samplers.prediction import per_sample
from samplers.schedule import Point, Schedule
from samplers.training import Objective
from samplers.training.denoising import perturb

WEIGHT = 0.1
"""w_R, with which the models of Deveney et al. come nearest to the data."""

TimeWeight = Callable[[Point], Tensor]
"""One number for each time of a point."""


def score_penalty(
    model: Denoiser,
    weight: float = WEIGHT,
    *,
    conditions: Sequence[str] = (),
    probes: int = 2,
    estimator: Estimator | None = None,
    time_weight: TimeWeight | None = None,
) -> Objective:
    r"""``w_R E[w(t) |R|^2 / d]`` of a denoiser, at noisy samples of the data.

    Args:
        model: what is trained, as for :func:`samplers.training.denoising.denoising_loss`; its
            correction is ignored. Batches are the same.
        weight: w_R.
        conditions: the names of the conditions in a batch, in order.
        probes: two or more, so that the square has no bias.
        estimator: see :func:`adjoint.fokker_planck.score_residual`.
        time_weight: w; 1 if None. R has the unit of the data at every noise level.

    Raises ValueError for fewer than two probes or a negative weight.
    """
    _check(weight)
    if probes < 2:
        raise ValueError(f"{probes} probe gives a square that is too large; pass two or more.")
    method: ResidualMethod | None = None

    def objective(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        nonlocal method
        x0, *rows = batch
        x, at, _ = perturb(model.schedule, x0, generator)
        given = dict(zip(conditions, rows, strict=True))
        denoiser = level_denoiser(model.with_network(network), given)
        z, log_rho = x / per_sample(at.alpha, x), -at.lam.to(x)
        if method is None:  # once: it depends on the layers of the network alone
            method = choose_method(denoiser, z, log_rho, estimator)
        signs = torch.randint(2, (probes, *x.shape), generator=generator).to(x) * 2 - 1
        found = estimate_by(method, denoiser, z, log_rho, signs)
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
    r"""``w_R E[w(t) R^2]`` of a potential, at given points.

    Args:
        potential: ``potential(network, x, t)`` -> [N].
        schedule: of its diffusion.
        points: from a generator to x [T, M, d] and t [T], on the CPU: M points at each of T times.
        weight: w_R.
        centred: subtract the mean of R over the points of a time, since a function of t alone in R
            changes no score.
        time_weight: w; 1 if None.

    Raises ValueError for a negative weight.
    """
    _check(weight)
    checked = False

    def objective(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        nonlocal checked
        device = next(network.parameters()).device
        x, t = (each.to(device) for each in points(generator))
        times = t[:, None].expand(x.shape[:2])
        phi, at = partial(potential, network), (x.flatten(0, 1), times.flatten())
        if not checked:  # once: it depends on the layers of the network alone
            warn_of_kinks(phi, *at)
            checked = True
        found = exact_residual(phi, schedule, *at).reshape(x.shape[:2])
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
