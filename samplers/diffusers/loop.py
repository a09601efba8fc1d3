"""Layer 6. Settings, sampler, grid and tableau from the config of a SamplerScheduler.

For custom loops, and for the scheduler itself. The sampler of a config is a name, or a tuned one as
the plain values of its file; its grid a spacing, or a fitted one likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.diffusers.classes import OWN_CLASS
from samplers.diffusers.config import read_config
from samplers.diffusers.settings import Numbers, SchedulerSettings
from samplers.fitting.fitted import FittedGrid
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


def own_levels_of(config: Mapping[str, Any]) -> TunedSampler | FittedGrid | None:
    """What has its own noise levels in the config: a tuned sampler, or a fitted grid.

    Raises ValueError for damaged numbers, and for both.
    """
    own, grid = sampler_of(config), config["grid"]
    if isinstance(own, TunedSampler):
        if isinstance(grid, Mapping):
            raise ValueError("A fitted grid came with a tuned sampler, which has its own; omit it.")
        return own
    if grid is None or isinstance(grid, str):
        return None
    try:
        return FittedGrid.from_dict(grid)
    except ValueError as error:
        raise ValueError(
            f"The grid of the scheduler is neither a spacing nor a fitted one ({error}); give the "
            "name of a spacing, or what load_grid reads."
        ) from error


def plain(chosen: Any) -> Any:
    """A sampler or a grid as a config holds it: its name, or plain values."""
    if isinstance(chosen, TunedSampler | FittedGrid):
        return chosen.to_dict()
    return dict(chosen) if isinstance(chosen, Mapping) else chosen


_NAMED = {"sampler": DEFAULT_SAMPLER, "grid": DEFAULT_SPACING}


def without_fitted_grid(config: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The choices; with a tuned sampler they put away a fitted grid of the config."""
    puts_away = isinstance(chosen.get("sampler"), Mapping) and isinstance(
        config.get("grid"), Mapping
    )
    return {"grid": None, **chosen} if puts_away else dict(chosen)


def refuse_settings_of_levels(config: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of a grid that come to a tuned sampler, or to a fitted grid."""
    merged = {**config, **chosen}
    for what, names in (
        ("sampler", ("grid", "sigma_min", "sigma_max")),
        ("grid", ("sigma_min", "sigma_max")),
    ):
        given = [name for name in names if chosen.get(name) is not None]
        if given and isinstance(merged.get(what), Mapping):
            kind = "tuned sampler" if what == "sampler" else "fitted grid"
            if what in chosen:
                raise ValueError(f"{given[0]} came with a {kind}, which has its own grid; omit it.")
            raise ValueError(
                f"{given[0]} came to a config that holds a {kind}, which has its own grid; give a "
                f"{what} by name beside it, such as {_NAMED[what]!r}."
            )


def refuse_custom_levels(
    own: TunedSampler | FittedGrid, timesteps: Numbers | None, sigmas: Numbers | None
) -> None:
    if timesteps is not None or sigmas is not None:
        name = "sigmas" if timesteps is None else "timesteps"
        what = "a tuned sampler" if isinstance(own, TunedSampler) else "a fitted grid"
        raise ValueError(
            f"{name} came to {what}, which has its own noise levels; pass num_inference_steps="
            f"{own.steps} instead."
        )


def method_of(config: Mapping[str, Any]) -> str | TunedSampler:
    """The sampler of the config as :func:`samplers.sample` takes it."""
    own = sampler_of(config)
    return own if isinstance(own, TunedSampler) else own.name


def steps_of(config: Mapping[str, Any], steps: int | None, default: int) -> int:
    """The steps of a run: those asked for; else those of a tuned sampler or of a fitted grid, or a
    default.

    Raises ValueError for another number of steps than these have.
    """
    own = own_levels_of(config)
    if own is None:
        return default if steps is None else steps
    if steps not in (None, own.steps):
        tuned = isinstance(own, TunedSampler)
        what, other = ("sampler was tuned", "sampler") if tuned else ("grid was fitted", "grid")
        raise ValueError(
            f"The {what} for {own.steps} steps, and {steps} came; take {own.steps} (pass "
            f"num_inference_steps={own.steps} to a pipeline), or another {other}."
        )
    return own.steps


def grid_of(config: Mapping[str, Any], steps: int) -> Grid:
    """The time grid of the config with this number of steps, see :func:`own_levels_of`."""
    own, settings = own_levels_of(config), settings_of(config)
    if own is None:
        return settings.grid(steps, config["grid"])
    steps_of(config, steps, own.steps)
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
