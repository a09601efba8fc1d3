"""A penalty that keeps a network a denoiser while a reward changes it, at images of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Generator, Tensor, nn

from adjoint.fokker_planck import score_penalty
from adjoint.solver_cost import solver_cost_penalty
from samplers.checkpoint import NetworkCheckpoint
from samplers.training import Objective


@dataclass(frozen=True)
class PenaltySettings:
    """A penalty beside the reward.

    Attributes:
        name: ``residual``, of the Fokker-Planck equation, see
            :func:`adjoint.fokker_planck.score_penalty`; or ``solver-cost``, the local error of an
            adaptive solver, see :func:`adjoint.solver_cost.solver_cost_penalty`.
        weight: relative to a reward of weight 1.
        num_images: sampled before training; the penalty is evaluated at noisy versions of them.
        batch_size: images of one evaluation, in each process and accumulated part of a step.
    """

    name: Literal["residual", "solver-cost"]
    weight: float
    num_images: int = 32
    batch_size: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"The weight of the penalty is {self.weight}; it must be positive.")
        if not 1 <= self.batch_size <= self.num_images:
            raise ValueError(
                f"The penalty is evaluated at {self.batch_size} of {self.num_images} images; its "
                "batch_size must be from 1 to num_images."
            )


def penalty_of(
    settings: PenaltySettings, checkpoint: NetworkCheckpoint, x0: Tensor, labels: Tensor | None
) -> Objective:
    """The penalty of the network inside a :class:`adjoint.finetune.trainable.Trainable`.

    Args:
        settings: which penalty.
        checkpoint: whose network is trained.
        x0: clean samples of what the network works on [N, ...].
        labels: the class of each [N]; None for an unconditional network.
    """
    build: dict[str, Callable[..., Objective]] = {
        "residual": score_penalty,
        "solver-cost": solver_cost_penalty,
    }
    rows = () if labels is None else (labels,)
    model = checkpoint.settings.denoiser(checkpoint.network, _call(checkpoint))
    # `_call` scales the time itself.
    model = replace(model, time_scale=1.0)
    given = build[settings.name](
        model, settings.weight, conditions=() if labels is None else ("labels",)
    )

    def objective(module: nn.Module, batch: Any, generator: Generator) -> Tensor:
        size = (settings.batch_size,)
        chosen = torch.randint(len(x0), size, generator=generator).to(x0.device)
        return given(module, (x0[chosen], *(each[chosen] for each in rows)), generator)

    return objective


def _call(checkpoint: NetworkCheckpoint) -> Callable[..., Tensor]:
    def call(module: nn.Module, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        network = extract_model_from_parallel(module).trained.network
        return checkpoint.with_network(network).denoiser()(x, t, **conditions)

    return call
