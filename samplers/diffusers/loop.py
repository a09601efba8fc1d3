"""Layer 6. Settings, grid and tableau from the config of a SamplerScheduler, for custom loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplers.diffusers.classes import OWN_CLASS
from samplers.diffusers.config import read_config
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid
from samplers.registry import get_sampler
from samplers.tableau import Tableau


def settings_of(config: Mapping[str, Any]) -> SchedulerSettings:
    """The content of the scheduler's config."""
    return read_config({**config, "_class_name": OWN_CLASS})  # also of a derived class


def grid_of(config: Mapping[str, Any], steps: int) -> Grid:
    """The time grid of the config with this number of steps."""
    return settings_of(config).grid(steps, config["grid"])


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the config's sampler, those that follow from the network included."""
    return settings_of(config).options(get_sampler(config["sampler"]), config["sampler_options"])


def tableau_of(config: Mapping[str, Any], steps: int) -> Tableau:
    """The tableau of the config's sampler with this number of steps."""
    return get_sampler(config["sampler"]).tableau(grid_of(config, steps), options_of(config))
