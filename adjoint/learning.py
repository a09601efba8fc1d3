r"""What a network learns from a metric of finished images: an objective of the training loop.

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
from samplers.sample import build_tableau, sample
from samplers.schedule import Schedule
from samplers.training import Objective

_SEEDS = 2**62


@dataclass(frozen=True)
class Drawing:
    """How images are drawn, to be rewarded.

    shape: of one sample, [C, H, W].
    schedule, prediction, correct: of the network, as for :func:`samplers.sample.sample`.
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


def reward_loss(
    drawing: Drawing,
    reward: Reward,
    network: Callable[..., Tensor],
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Objective:
    r"""Minus the mean reward of images that the network draws, ``-E r(x_0)``.

    The gradient passes back through the whole sampler. Every batch draws new noise.

    reward: see :mod:`adjoint.rewards`.
    network: ``network(model, x_t, t, *conditions)``, how the model is called.
    decode: from samples to images, if the network works on something else.

    Returns an objective on batches ``(condition, ...)``, each with the batch as its first
    dimension; one of them, if only numbers that nothing reads, says how many images are drawn.
    """

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        count = len(batch[0])
        seeds = torch.randint(_SEEDS, (count,), generator=generator).tolist()
        finished = drawing.draw(lambda x, t, *given: network(model, x, t, *given), seeds, batch)
        images = finished if decode is None else decode(finished)
        return -reward(images).mean()

    return objective
