"""What all checkpoints have in common: how they are loaded, what they are asked, what they do."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Final, Grid, Spacing
from samplers.registry import get_sampler
from samplers.solve import NoiseKind, make_noise
from samplers.tableau import Tableau

Tick = Callable[[], object]
"""Called after every network call."""


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded.

    Attributes:
        allow_pickle: whether weights may come from a pickle where there are no safetensors.
        null_label: the class that stands for "no class", if the checkpoint does not say so itself.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    allow_pickle: bool = False
    null_label: int | None = None


@dataclass(frozen=True)
class Recipe:
    """What decides the images of a checkpoint, but for their seeds and classes.

    Attributes:
        grid: a spacing; None for the schedule's default, or the pipeline's own if it has a prompt.
        final: where the last step ends; None for what the checkpoint's scheduler says.
        noise: of stochastic samplers; see :func:`samplers.solve.make_noise`.
        guidance: the scale of classifier-free guidance; None for the checkpoint's own.
        prompt, negative_prompt: for checkpoints that draw what a text says.
    """

    sampler: str = "dpmpp-2m"
    steps: int = 20
    grid: Spacing | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: NoiseKind = "independent"
    guidance: float | None = None
    guidance_rescale: float = 0.0
    prompt: str | None = None
    negative_prompt: str | None = None


class Checkpoint(abc.ABC):
    """A model on disk, loaded, that draws images."""

    settings: SchedulerSettings
    """Its noise schedule, what its network predicts, and the grid that its scheduler asks for."""

    weights: dict[str, str]
    """The SHA-256 of every file of weights, by its path inside of the checkpoint."""

    classes: tuple[int, ...] = ()
    """The classes that can be asked for, but for the null label; none if the model knows none."""

    null_label: int | None = None
    """The class that stands for "no class", if there is one."""

    @abc.abstractmethod
    def settle(self, recipe: Recipe) -> Recipe:
        """The recipe with every choice made; ValueError if this model can't follow it."""

    @abc.abstractmethod
    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        """Draw one image for each seed: [B, C, H, W], values from -1 to 1.

        Raises NotFiniteError if the network returns NaN or infinity.
        """

    def tableau(self, recipe: Recipe) -> Tableau:
        """The table that the recipe's sampler runs; ValueError if its settings are impossible."""
        tableau = get_sampler(recipe.sampler).tableau(self.grid(recipe), recipe.options)
        make_noise(tableau, (0,), (), recipe.noise)  # an error here is better than in the middle
        return tableau

    def grid(self, recipe: Recipe) -> Grid:
        """The time grid of a recipe on this model's noise schedule."""
        settings = replace(self.settings, final=recipe.final or self.settings.final)
        return settings.grid(
            recipe.steps, recipe.grid, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max
        )
