r"""A regulariser that makes a network cheaper to sample: the local error of an adaptive solver.

An adaptive solver needs a number of steps proportional to :math:`E^{1/q}`, with E its estimate of
the error of a step of length h, for a method of order q. The penalty is this estimate, for a trial
step from a noisy sample of the data at a random angle (Pal et al. 2021, section 3,
https://arxiv.org/abs/2105.03918, at all steps of a solution; in the local form of Pal et al. 2023,
https://arxiv.org/abs/2303.02262, at random times). It evaluates the network as often as a step of
the method does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from samplers.denoiser import Denoiser
from samplers.methods.embedded import Known, Parts, spread
from samplers.probability_flow.adaptive import angle_of, ends, probability_flow
from samplers.probability_flow.integration import DEFAULT
from samplers.registry import get_adaptive_sampler
from samplers.training import Objective

WEIGHT = 1000.0
"""Squared errors of a step are small: at 2000 the bundled digits need a quarter fewer NFE."""


def solver_cost_penalty(
    model: Denoiser,
    weight: float = WEIGHT,
    *,
    conditions: Sequence[str] = (),
    method: str = DEFAULT.method,
    steps: int = 10,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Objective:
    r"""``w E[|E|^2 / d] / h^2``, of the error of a step h towards the data, in the angle phi.

    Args:
        model: what is trained, as for :func:`samplers.training.denoising.denoising_loss`; its
            correction is ignored. Batches are the same.
        weight: w.
        conditions: the names of the conditions in a batch, in order.
        method: the adaptive sampler, by name.
        steps: h is the whole interval divided by this number.
        sigma_min, sigma_max: where the steps end and begin, as in :func:`samplers.sample_adaptive`.

    Raises ValueError for a negative weight, fewer than one step, or an unknown method.
    """
    if not weight >= 0:
        raise ValueError(f"The weight of the solver's error is {weight}; it must be 0 or more.")
    if steps < 1:
        raise ValueError(f"The interval is divided into {steps} steps; it must be at least 1.")
    sampler = get_adaptive_sampler(method)
    clean, noisy = (angle_of(at) for at in ends(model.schedule, sigma_min, sigma_max))
    h = (noisy - clean) / steps

    def objective(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, *rows = batch
        given = dict(zip(conditions, rows, strict=True))
        field = probability_flow(model.uncorrected.with_network(network), given)
        places = torch.arange(len(x0))
        u = torch.rand(len(x0), generator=generator, dtype=torch.float64)
        angle = clean + h + u * (noisy - clean - h)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        x = Parts((spread(angle.cos(), x0) * x0 + spread(angle.sin(), x0) * eps,))
        known = Known(x, field(x, angle, places), angle)
        trial = sampler.method(lambda x, angle: field(x, angle, places), known, angle - h)
        (error,) = trial.error.tensors
        return weight * error.square().mean() / h**2

    return objective
