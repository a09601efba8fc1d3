r"""A regulariser that makes a network cheaper to sample: the local error of an adaptive solver.

An adaptive solver takes as many steps as its estimate E of the error of a step of length h makes
it take, in proportion to :math:`E^{1/q}` for a method of order q. The penalty is that estimate,
for a trial step from a noisy sample of the data at a random angle (Pal et al. 2021, section 3,
https://arxiv.org/abs/2105.03918, at all the steps of a solution; in the local form of Pal et al.
2023, https://arxiv.org/abs/2303.02262, at random times). It asks the network as often as a step of
the method does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from samplers.methods.embedded import Known, Parts, spread
from samplers.prediction import PredictionType
from samplers.probability_flow.adaptive import angle_of, ends, probability_flow
from samplers.probability_flow.integration import DEFAULT
from samplers.registry import get_pair
from samplers.schedule import Schedule
from samplers.training import Objective

WEIGHT = 1000.0
"""Squared errors of a step are small: at 2000 the bundled digits take a quarter fewer calls."""


def solver_cost_penalty(
    network: Callable[..., Tensor],
    schedule: Schedule,
    prediction: PredictionType,
    weight: float = WEIGHT,
    *,
    method: str = DEFAULT.method,
    steps: int = 10,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Objective:
    r"""``w E[|E|^2 / d] / h^2``, of the error of a step h towards the data, in the angle phi.

    Args:
        network: ``network(model, x_t, t, *conditions)``, as for
            :func:`samplers.training.denoising.denoising_loss`; batches are the same.
        method: the embedded pair, a name of :func:`samplers.list_adaptive`.
        steps: h is the whole way divided by so many.
        sigma_min, sigma_max: where the steps begin and end, as in
            :func:`samplers.sample_adaptive`.

    Raises ValueError for a negative weight, fewer than one step, or an unknown method.
    """
    if not weight >= 0:
        raise ValueError(f"The weight of the solver's error is {weight}; it must be 0 or more.")
    if steps < 1:
        raise ValueError(f"The way is divided in {steps} steps; it must be one at least.")
    pair = get_pair(method)
    clean, noisy = (angle_of(at) for at in ends(schedule, sigma_min, sigma_max))
    h = (noisy - clean) / steps

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        x0, *conditions = batch

        def ask(x: Tensor, t: Tensor, *given: Tensor) -> Tensor:
            return network(model, x, t, *given)

        field = probability_flow(ask, schedule, prediction, conditions=conditions)
        places = torch.arange(len(x0))
        u = torch.rand(len(x0), generator=generator, dtype=torch.float64)
        angle = clean + h + u * (noisy - clean - h)
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        x = Parts((spread(angle.cos(), x0) * x0 + spread(angle.sin(), x0) * eps,))
        known = Known(x, field(x, angle, places), angle)
        trial = pair.step(lambda x, angle: field(x, angle, places), known, angle - h)
        (error,) = trial.error.tensors
        return weight * error.square().mean() / h**2

    return objective
