"""Layer 6. Settings, sampler, grid and tableau from the config of a SamplerScheduler.

For custom loops, and for the scheduler itself. The sampler of a config is a name, or a tuned one as
the plain values of its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplers.diffusers.classes import OWN_CLASS
from samplers.diffusers.config import read_config
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid
from samplers.registry import Sampler, get_sampler
from samplers.tableau import Tableau
from samplers.tuning.sampler import TunedSampler


def settings_of(config: Mapping[str, Any]) -> SchedulerSettings:
    """The content of the scheduler's config."""
    return read_config({**config, "_class_name": OWN_CLASS})  # also of a derived class


def sampler_of(config: Mapping[str, Any]) -> Sampler | TunedSampler:
    """The sampler of the config: one of the registry, or a tuned one.

    Raises ValueError for an unknown name, damaged numbers, or options of a tuned sampler.
    """
    chosen = config["sampler"]
    if isinstance(chosen, str):
        return get_sampler(chosen)
    if config["sampler_options"]:
        raise ValueError(
            f"The options {', '.join(config['sampler_options'])} came with a tuned sampler, which "
            "has none; omit them."
        )
    try:
        return TunedSampler.from_dict(chosen)
    except ValueError as error:
        raise ValueError(
            f"The sampler of the scheduler is neither a name nor a tuned one ({error}); give a "
            "name, or what load_sampler reads."
        ) from error


def method_of(config: Mapping[str, Any]) -> str | TunedSampler:
    """The sampler of the config as :func:`samplers.sample` takes it."""
    own = sampler_of(config)
    return own if isinstance(own, TunedSampler) else own.name


def steps_of(config: Mapping[str, Any], steps: int | None, default: int) -> int:
    """The steps of a run: those asked for; else those of a tuned sampler, or a default.

    Raises ValueError for another number of steps than a tuned sampler has.
    """
    own = sampler_of(config)
    if not isinstance(own, TunedSampler):
        return default if steps is None else steps
    if steps not in (None, own.nfe):
        raise ValueError(
            f"The sampler was tuned for {own.nfe} network evaluations, and {steps} steps came; "
            f"take {own.nfe} steps, or another sampler."
        )
    return own.nfe


def grid_of(config: Mapping[str, Any], steps: int) -> Grid:
    """The time grid of the config with this number of steps; a tuned sampler has its own."""
    own, settings = sampler_of(config), settings_of(config)
    if not isinstance(own, TunedSampler):
        return settings.grid(steps, config["grid"])
    steps_of(config, steps, own.nfe)
    return own.grid(settings.schedule)


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the config's sampler, those that follow from the network included."""
    own = sampler_of(config)
    if isinstance(own, TunedSampler):
        return {}
    return settings_of(config).options(own, config["sampler_options"])


def calls_of(config: Mapping[str, Any]) -> int:
    """The network evaluations of a step of the config's sampler."""
    own = sampler_of(config)
    return 1 if isinstance(own, TunedSampler) else own.calls_with(options_of(config))


def tableau_on(config: Mapping[str, Any], grid: Grid) -> Tableau:
    """The tableau of the config's sampler on a grid."""
    own = sampler_of(config)
    return own(grid) if isinstance(own, TunedSampler) else own.tableau(grid, options_of(config))


def tableau_of(config: Mapping[str, Any], steps: int) -> Tableau:
    """The tableau of the config's sampler with this number of steps."""
    return tableau_on(config, grid_of(config, steps))
