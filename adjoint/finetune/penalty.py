"""What keeps a network a denoiser while a reward moves it: a penalty at images of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Generator, Tensor, nn

from adjoint.fokker_planck import score_penalty
from adjoint.solver_cost import solver_cost_penalty
from samplers.checkpoint import NetworkCheckpoint
from samplers.training import Objective


@dataclass(frozen=True)
class Penalty:
    """A penalty beside the reward.

    Attributes:
        what: ``residual``, of the Fokker-Planck equation, see
            :func:`adjoint.fokker_planck.score_penalty`; or ``solver-cost``, the local error of an
            adaptive solver, see :func:`adjoint.solver_cost.solver_cost_penalty`.
        weight: of it, where a reward has the weight 1.
        images: that the network draws before it learns, with noise on which the penalty is taken.
        batch: images at which a process takes it, for each accumulated part of a step.
    """

    what: Literal["residual", "solver-cost"]
    weight: float
    images: int = 32
    batch: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"The weight of the penalty is {self.weight}; it must be positive.")
        if not 1 <= self.batch <= self.images:
            raise ValueError(
                f"The penalty is taken at {self.batch} of {self.images} images; it must be at one "
                "or more, and not at more than there are."
            )


def penalty_of(
    settings: Penalty, checkpoint: NetworkCheckpoint, x0: Tensor, *conditions: Tensor
) -> Objective:
    """The penalty of the network that a model of the training loop has in its part.

    Args:
        x0: what the network works on, without noise [images, ...], and the conditions of each.
    """
    own = checkpoint.settings
    build: dict[str, Callable[..., Objective]] = {
        "residual": score_penalty,
        "solver-cost": solver_cost_penalty,
    }
    given = build[settings.what](_call(checkpoint), own.schedule, own.prediction, settings.weight)

    def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        chosen = torch.randint(len(x0), (settings.batch,), generator=generator).to(x0.device)
        return given(model, (x0[chosen], *(each[chosen] for each in conditions)), generator)

    return objective


def _call(checkpoint: NetworkCheckpoint) -> Callable[..., Tensor]:
    def call(model: nn.Module, x: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        network = extract_model_from_parallel(model).part.network
        return checkpoint.with_network(network).conditional()(x, t, *conditions)

    return call
