r"""Learning from a reward of finished images: an objective of the training loop.

:func:`samplers.training.train` does the rest: processes, precision, averages, exact resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adjoint.base import AbstractAdjoint
from adjoint.checkpoint import CheckpointAdjoint
from adjoint.rewards import Reward
from samplers.choices import DEFAULT_SAMPLER
from samplers.denoiser import Denoiser
from samplers.grid import Final, Grid, Spacing
from samplers.noise import initial_noise
from samplers.registry import Method
from samplers.sampling import build_tableau, grid_for, sample
from samplers.training import Objective

_SEEDS = 2**62


@dataclass(frozen=True)
class ImageSampler:
    """How a model samples images, differentiably.

    Attributes:
        model: its network is replaced by the one that is trained.
        shape: of one sample, [C, H, W].
        conditions: the names of the conditions in a batch, in order.
        sampler, steps, grid, sigma_min, sigma_max, final, options: as of :func:`samplers.sample`;
            set the steps to None for a sampler that has its own grid.
        adjoint: how gradients are backpropagated.

    Raises ValueError if the settings are impossible, or the adjoint cannot differentiate the
    sampler.
    """

    model: Denoiser
    shape: tuple[int, ...]
    conditions: tuple[str, ...] = ()
    sampler: str | Method = DEFAULT_SAMPLER
    steps: int | None = 15
    grid: Spacing | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    options: dict[str, Any] = field(default_factory=dict)
    adjoint: AbstractAdjoint = field(default_factory=CheckpointAdjoint)

    def __post_init__(self) -> None:
        self.adjoint.check(build_tableau(self.sampler, self._grid(), self.options))

    def _grid(self) -> Grid:
        return grid_for(
            self.sampler,
            self.model.schedule,
            self.steps,
            self.grid,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
            final=self.final,
        )

    def sample(
        self, network: Callable[..., Tensor], seeds: Sequence[int], conditions: Sequence[Tensor]
    ) -> Tensor:
        """One image for each seed, on the device of the conditions; gradients pass through.

        Args:
            network: in place of the model's.
            seeds: of the initial noise, and of the noise of stochastic samplers.
            conditions: in the order of their names.
        """
        device = conditions[0].device if conditions else torch.device("cpu")
        noise = initial_noise(seeds, self.shape).to(device, torch.float32)
        grid = self._grid()
        return sample(
            self.model.with_network(network),
            float(grid.start.sigma) * noise,
            sampler=self.sampler,
            grid=grid,
            seeds=seeds,
            options=self.options,
            conditions=dict(zip(self.conditions, conditions, strict=True)),
            adjoint=self.adjoint,
        )


SampleImages = Callable[..., Tensor]
"""``sample_images(trained, seeds, *conditions)``: images [B, C, H, W], one for each seed [B]."""


class SamplingModule(nn.Module):
    """A network inside its sampler: one forward pass samples finished images.

    A run is one call of the module and gives one gradient for each weight, however many evaluations
    of the network it has; distributed training relies on this. The network is always in evaluation
    mode, without dropout, also during training.

    Args:
        trained: the network, or a module that holds it.
        sample_images: how it samples; a plain function, so that copies of the module share it.
    """

    def __init__(self, trained: nn.Module, sample_images: SampleImages) -> None:
        super().__init__()
        self.trained, self.sample_images = trained, sample_images

    def forward(self, seeds: Tensor, *conditions: Tensor) -> Tensor:
        return self.sample_images(self.trained, seeds, *conditions)

    def train(self, mode: bool = True) -> SamplingModule:
        return super().train(False)


def reward_loss(reward: Reward) -> Objective:
    r"""Minus the mean reward of images that a :class:`SamplingModule` samples, ``-E r(x_0, c)``.

    It is differentiated through the whole sampler. Every batch has new noise.

    Returns an objective on batches ``(condition, ...)``, each with the batch as its first
    dimension. The first is what the images are conditioned on, which the reward receives.
    """

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        condition, *rest = batch
        seeds = torch.randint(_SEEDS, (len(condition),), generator=generator)
        return -reward(model(seeds, condition, *rest), condition).mean()

    return objective
