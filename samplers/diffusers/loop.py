"""Layer 6. Settings, grid and tableau from the config of a SamplerScheduler, for custom loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplers.diffusers.config import DEFAULTS, read_keys
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid
from samplers.sampling import build_tableau
from samplers.tableau import Tableau


def settings_of(config: Mapping[str, Any]) -> SchedulerSettings:
    """The noise schedule and prediction type of the scheduler's config."""
    return read_keys(config["schedule"], {**DEFAULTS, **config})


def grid_of(config: Mapping[str, Any], steps: int) -> Grid:
    """The time grid of the config with this number of steps."""
    low, high = config["sigma_min"], config["sigma_max"]
    return settings_of(config).grid(steps, config["grid"], sigma_min=low, sigma_max=high)


def tableau_of(config: Mapping[str, Any], steps: int) -> Tableau:
    """The tableau of the config's sampler with this number of steps."""
    return build_tableau(config["sampler"], grid_of(config, steps), config["sampler_options"])
