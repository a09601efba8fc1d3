"""What all checkpoints have in common: options of loading, settings of sampling, the base class."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from samplers.checkpoint.folder import Identity, read_scheduler
from samplers.choices import DEFAULT_SAMPLER, ConfigSpacing
from samplers.diffusers.classes import OWN_CLASS, class_name, own_keys
from samplers.diffusers.config import read_config
from samplers.diffusers.loop import method_of, own_levels_of
from samplers.diffusers.settings import SchedulerSettings
from samplers.fitting.fitted import FittedGrid
from samplers.grid import Final, Grid
from samplers.registry import get_sampler
from samplers.solve import NoiseKind, make_noise
from samplers.tableau import Tableau
from samplers.tuning.sampler import TunedSampler

Tick = Callable[[], object]
"""Called after every network evaluation."""


@dataclass(frozen=True)
class LoadOptions:
    """Options for loading a checkpoint.

    Attributes:
        allow_pickle: whether weights may come from a pickle where there are no safetensors.
        null_label: the label that stands for "no class", if the checkpoint does not specify it.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    allow_pickle: bool = False
    null_label: int | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of sampling, which determine an image together with its seed and class.

    Attributes:
        sampler: a name; or a tuned sampler, which has its own steps and noise levels: the next five
            are ignored.
        grid: a spacing, or ``config`` for that of the checkpoint's scheduler; None for
            :attr:`samplers.diffusers.settings.SchedulerSettings.default_spacing`; or a fitted grid
            of as many steps, which has its own ends.
        final: where the last step ends; None for the end given by the checkpoint's scheduler.
        noise: of stochastic samplers; see :func:`samplers.solve.make_noise`.
        guidance: the scale of classifier-free guidance; None for the checkpoint's default.
        guidance_rescale: see :func:`samplers.classifier_free_guidance`.
        guidance_interval: the noise levels sigma / alpha between which there is guidance, see
            :class:`samplers.GuidanceInterval`; None for all.
        prompt, negative_prompt: for checkpoints with a text encoder.
    """

    sampler: str | TunedSampler = DEFAULT_SAMPLER
    steps: int = 20
    grid: ConfigSpacing | FittedGrid | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: NoiseKind = "independent"
    guidance: float | None = None
    guidance_rescale: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    prompt: str | None = None
    negative_prompt: str | None = None

    @property
    def name(self) -> str:
        """The name of the sampler, in words for a tuned one."""
        own = self.sampler
        return own if isinstance(own, str) else f"tuned, {own.nfe} evaluations"


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """What a checkpoint is sampled with where nothing else is chosen, by its scheduler's config.

    A :class:`samplers.SamplerScheduler` says it: a sampler with options and noise, and a grid.
    Every other class leaves it at the defaults. Raises ValueError for a config that can't be used.
    """
    if class_name(config) != OWN_CLASS:
        return Recipe(read_config(config).default_sampler)
    keys = {**_UNSAID, **own_keys(config)}
    own = own_levels_of(keys)
    chosen = Recipe(method_of(keys), options=keys["sampler_options"] or {}, noise=keys["noise"])
    if own is None:
        return replace(chosen, grid=keys["grid"])
    return replace(chosen, steps=own.steps, grid=own if isinstance(own, FittedGrid) else None)


_UNSAID = {
    "sampler": DEFAULT_SAMPLER,
    "sampler_options": None,
    "noise": "independent",
    "grid": None,
}


def read_recipe(path: Path) -> Recipe:
    """:func:`recipe_of` the scheduler of a checkpoint; reads no weights."""
    return read_scheduler(path, recipe_of)


class Checkpoint(abc.ABC):
    """A loaded checkpoint, which samples images."""

    settings: SchedulerSettings
    """The noise schedule, the prediction type, and the grid given by the scheduler."""

    identity: Identity
    """Which model this is, as results store it."""

    classes: tuple[int, ...] = ()
    """The classes of a class-conditional model, without the null label; else empty."""

    null_label: int | None = None
    """The label that stands for "no class", if there is one."""

    @property
    def recipe(self) -> Recipe:
        """What it is sampled with where nothing else is chosen, see :func:`recipe_of`."""
        return recipe_of(self.identity.scheduler)

    @abc.abstractmethod
    def settle(self, recipe: Recipe) -> Recipe:
        """The recipe with all defaults filled in; ValueError if this model does not support it."""

    def checked_sampler(self, recipe: Recipe, guidance: float | None) -> str | TunedSampler:
        """The sampler of a recipe by its name in the registry, or a tuned one.

        Warns if the sampler was tuned for other weights or another guidance. Raises ValueError for
        a sampler of denoisers if the network is distilled for another.
        """
        sampler = recipe.sampler
        if isinstance(sampler, str):
            sampler = get_sampler(sampler).name
            self._check_distilled(sampler, get_sampler(sampler).distilled)
            return sampler
        self._check_distilled("tuned", False)
        how = (guidance, recipe.guidance_interval, recipe.guidance_rescale)
        sampler.check_purpose(self.identity.weights_hash, *how, stacklevel=4)
        return sampler

    def check_fitted(self, recipe: Recipe, sampler: str, guidance: float | None) -> None:
        """Warn if the recipe's grid was fitted for another network, sampler or guidance.

        Raises ValueError for another number of steps, or for ends of the recipe.
        """
        grid = recipe.grid
        if not isinstance(grid, FittedGrid):
            return
        if recipe.steps != grid.steps:
            raise ValueError(
                f"The grid was fitted for {grid.steps} steps, and {recipe.steps} were asked for; "
                "take as many, or fit another grid."
            )
        ends = {name: getattr(recipe, name) for name in ("sigma_min", "sigma_max", "final")}
        given = [name for name, value in ends.items() if value is not None]
        if given:
            raise ValueError(f"{given[0]} came with a fitted grid, which has its own; omit it.")
        how = (guidance, recipe.guidance_interval, recipe.guidance_rescale)
        grid.check_purpose(sampler, self.identity.weights_hash, *how, stacklevel=4)

    def _check_distilled(self, sampler: str, distilled: bool) -> None:
        needed = self.settings.distilled_for
        if needed is not None and not distilled:
            raise ValueError(
                f"The network of this checkpoint is distilled for the sampler {needed!r}, and "
                f"{sampler!r} is for denoisers; choose {needed!r}."
            )

    @abc.abstractmethod
    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        """Sample one image for each seed: [B, C, H, W], values from -1 to 1.

        Raises NotFiniteError if the network returns NaN or infinity.
        """

    def tableau(self, recipe: Recipe) -> Tableau:
        """The tableau of the recipe's sampler; ValueError if its settings are impossible."""
        if not isinstance(recipe.sampler, str):
            return recipe.sampler.tableau(self.settings.schedule)
        sampler = get_sampler(recipe.sampler)
        options = self.settings.options(sampler, recipe.options)
        tableau = sampler.tableau(self.grid(recipe), options)
        make_noise(tableau, (0,), (), recipe.noise)  # raises errors before the run
        return tableau

    def nfe(self, recipe: Recipe) -> int:
        """The network evaluations of each image, those of guidance included.

        For a pipeline they are the timesteps, at each of which its guidance may evaluate the
        network twice.
        """
        return self.tableau(recipe).calls

    def grid(self, recipe: Recipe) -> Grid:
        """The time grid of a recipe on the noise schedule of this model."""
        if not isinstance(recipe.sampler, str):
            return recipe.sampler.grid(self.settings.schedule)
        if isinstance(recipe.grid, FittedGrid):
            return recipe.grid.grid(self.settings.schedule)
        settings = replace(self.settings, final=recipe.final or self.settings.final)
        return settings.grid(
            recipe.steps, recipe.grid, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max
        )
