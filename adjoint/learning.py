r"""What is learned from a metric of finished images: an objective of the training loop.

:func:`samplers.training.train` does the rest: processes, precision, averages, exact resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adjoint.base import Adjoint
from adjoint.checkpoint import Checkpoint
from adjoint.rewards import Reward
from samplers.grid import Final, Grid, Spacing, make_grid
from samplers.noise import initial_noise
from samplers.prediction import Correction, Prediction
from samplers.sampling import build_tableau, sample
from samplers.schedule import Schedule
from samplers.training import Objective

_SEEDS = 2**62


@dataclass(frozen=True)
class Drawing:
    """How a network draws images, to be rewarded.

    Attributes:
        shape: of one sample, [C, H, W].
        schedule, prediction, correct: of the network, as for :func:`samplers.sample`.
        sampler, steps, grid, sigma_min, sigma_max, final, options: as there.
        adjoint: how the gradient passes back.

    Raises ValueError if the settings are impossible, or the way back can't serve the sampler.
    """

    shape: tuple[int, ...]
    schedule: Schedule
    prediction: Prediction
    sampler: str = "dpmpp-2m"
    steps: int = 15
    grid: Spacing = "log-snr"
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final = "zero"
    options: dict[str, Any] = field(default_factory=dict)
    correct: Correction | None = None
    adjoint: Adjoint = field(default_factory=Checkpoint)

    def __post_init__(self) -> None:
        self.adjoint.check(build_tableau(self.sampler, self._points(), self.options))

    def _points(self) -> Grid:
        return make_grid(
            self.schedule,
            self.steps,
            self.grid,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            final=self.final,
        )

    def draw(
        self, network: Callable[..., Tensor], seeds: Sequence[int], conditions: Sequence[Tensor]
    ) -> Tensor:
        """One image for each seed, on the device of the conditions, through which gradients pass.

        network: ``network(x, t, *conditions)``. The starting noise has deviation sigma, as the
        schedule says.
        """
        device = conditions[0].device if conditions else torch.device("cpu")
        noise = initial_noise(seeds, self.shape).to(device, torch.float32)
        grid = self._points()
        return sample(
            network,
            float(grid.start.sigma) * noise,
            schedule=self.schedule,
            prediction=self.prediction,
            sampler=self.sampler,
            grid=grid,
            seeds=seeds,
            options=self.options,
            correct=self.correct,
            conditions=conditions,
            adjoint=self.adjoint,
        )


Draw = Callable[..., Tensor]
"""``draw(part, seeds, *conditions)``: finished images [B, C, H, W], one for each seed [B]."""


class Sampled(nn.Module):
    """A network within the sampler that it is used by: one call draws finished images.

    So a run has one call of the module and one gradient for each weight, however many calls of the
    network there are, which is what processes that share a training count on. The network is asked
    as it is in use, without dropout, in training as well.

    Args:
        part: the network, or what holds it.
        draw: how it draws; a plain function, so that copies of the module share it.
    """

    def __init__(self, part: nn.Module, draw: Draw) -> None:
        super().__init__()
        self.part, self.draw = part, draw

    def forward(self, seeds: Tensor, *conditions: Tensor) -> Tensor:
        return self.draw(self.part, seeds, *conditions)

    def train(self, mode: bool = True) -> Sampled:
        return super().train(False)


def reward_loss(reward: Reward) -> Objective:
    r"""Minus the mean reward of images that a :class:`Sampled` draws, ``-E r(x_0, c)``.

    The gradient passes back through the whole sampler. Every batch draws new noise.

    Returns an objective on batches ``(condition, ...)``, each with the batch as its first
    dimension. The first is what the images are asked to show, of which the reward is told.
    """

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        asked, *rest = batch
        seeds = torch.randint(_SEEDS, (len(asked),), generator=generator)
        return -reward(model(seeds, asked, *rest), asked).mean()

    return objective
