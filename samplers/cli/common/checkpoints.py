"""From options to a loaded checkpoint and a recipe, and the parameters that results store.

Importing this imports torch: commands do so when their cheap checks are done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from samplers.checkpoint import LoadOptions, Recipe, load_checkpoint
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.cli.common.options import ConditionOptions, ModelOptions, SchedulerOptions
from samplers.cli.common.processes import find_device
from samplers.cli.common.program import package_version
from samplers.cli.common.text import counted
from samplers.cli.common.tuned import chosen_sampler, loaded_grid, refuse_of_grids
from samplers.cli.common.values import FITTED
from samplers.diffusers.deferred import import_without_compiler
from samplers.fitting import FittedGrid
from samplers.registry import get_sampler
from samplers.tuning import Purpose

if TYPE_CHECKING:
    from samplers.checkpoint import Checkpoint
    from samplers.checkpoint.folder import Identity

_RECIPE = ("grid", "sigma_min", "sigma_max", "final", "guidance", "guidance_rescale",
           "guidance_interval", "prompt", "negative_prompt")  # fmt: skip
_ENDS = {"sigma_min": "--sigma-min", "sigma_max": "--sigma-max", "final": "--final"}
_BOOLEANS = {"true": True, "false": False}


# --------------------------------------------------------------------------------- to be loaded


def open_checkpoint(model: ModelOptions, device: torch.device) -> Checkpoint:
    """Load a checkpoint of any kind."""
    import_without_compiler()
    dtype = getattr(torch, model.dtype)
    options = LoadOptions(dtype, device, model.allow_pickle, model.null_label)
    return load_checkpoint(model.checkpoint, options)


def open_network(
    model: ModelOptions, device: torch.device | None = None, instead: str = ""
) -> NetworkCheckpoint:
    """Load a checkpoint, on the device of the options if none is given.

    Args:
        instead: a sentence about what can be done with a prompt.

    Raises ValueError if it is conditioned on a prompt.
    """
    checkpoint = open_checkpoint(model, device or find_device(model.device))
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise ValueError(
            f"{model.checkpoint} is a pipeline with a prompt; a network without one is needed "
            f"here. {instead}".rstrip()
        )
    return checkpoint


# ------------------------------------------------------------------------------------ the recipe


def in_python(function: str) -> str:
    """What can be done with a prompt instead of a command that takes none, in a sentence."""
    return (
        f"With a prompt, call samplers.{function}(pipeline_denoiser(pipe), x_T, …, "
        "conditions={'encoder_hidden_states': …}) in Python, see docs/tuning.md."
    )


def recipe_from(options: object) -> Recipe:
    """The recipe of a command's conditions and grid, without a sampler and not settled.

    Of a fitted grid it has the steps, too. Raises TunedError for a file that is no such grid.
    """
    said = {name: getattr(options, name, None) for name in _RECIPE}
    grid = fitted_grid(options)
    if grid is not None:
        said |= {"grid": grid, "steps": grid.steps}
    return Recipe(**{name: value for name, value in said.items() if value is not None})


def sampling_recipe(options: object, own: Recipe) -> Recipe:
    """The same for sampling with fixed steps: with the checkpoint's own grid if none is named."""
    said = recipe_from(options)
    if said.grid is not None or own.grid is None:
        return said
    return replace(said, grid=own.grid, steps=own.steps)


def fitted_grid(options: object) -> FittedGrid | None:
    """The fitted grid of a command, None if its grid is a spacing or not given.

    Raises ValueError for noise levels beside it.
    """
    name = getattr(options, "grid", None)
    if name is None or not name.endswith(FITTED):
        return None
    for field, written in _ENDS.items():
        if getattr(options, field) is not None:
            raise ValueError(f"{written} is not for a fitted grid, which has its own; omit it.")
    return loaded_grid(name)


def steps_of(asked: int | None, recipe: Recipe, default: int) -> int:
    """The steps that were asked for, else those of a fitted grid, else the default."""
    own = recipe.steps if isinstance(recipe.grid, FittedGrid) else default
    return own if asked is None else asked


def grid_settings(options: object, recipe: Recipe) -> dict[str, Any]:
    """The grid as results store it: a spacing, or the file of a fitted one and its hash."""
    grid = recipe.grid
    if not isinstance(grid, FittedGrid):
        return {"grid": grid}
    digest = hashlib.sha256(grid.to_json().encode()).hexdigest()
    return {"grid": getattr(options, "grid", None) or "fitted", "grid_sha256": digest}


def sampler_options(
    sampler: str, texts: Sequence[str], own: Recipe | None = None
) -> dict[str, Any]:
    """The options of a sampler from NAME=VALUE, each of the type of its default.

    Args:
        own: of the checkpoint, whose options of the same sampler are kept.
    """
    known = get_sampler(sampler).options
    found = dict(own.options) if own is not None and own.sampler == sampler else {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"The option {text!r} has no value; write it as NAME=VALUE.")
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"The sampler {sampler!r} has no option {name!r}; it has {has}.")
        found[name] = _value(name, value, known[name])
    return found


def _value(name: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"The option {name} is {text!r}; it must be true or false.")
        return _BOOLEANS[text.lower()]
    if not isinstance(default, int | float):
        return text
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"The option {name} is {text!r}; it must be {kind}.") from None


def changed_scheduler(scheduler: Any, options: SchedulerOptions) -> Any:
    """A copy of a SamplerScheduler with the sampler, options and grid of the command.

    Options of the same sampler are kept unless they are given.
    """
    from samplers.diffusers.loop import method_of
    from samplers.diffusers.settings import named_settings

    config = scheduler.config
    sampler = method_of(config) if options.sampler is None else chosen_sampler(options.sampler)
    if not isinstance(sampler, str):
        refuse_of_grids(options)
        return type(scheduler).from_config(config, sampler=sampler)
    chosen = sampler_options(sampler, options.options)
    named = named_settings(config, sampler, chosen, options.grid)
    return type(scheduler).from_config(config, **named)


# ------------------------------------------------------------------------------------ the classes


def labels_in_turn(
    conditions: ConditionOptions, checkpoint: Checkpoint, count: int
) -> tuple[int, ...] | None:
    """The classes that ``count`` images take in turn, or None for a model without classes.

    They are those of ``--label``, by default all classes of the model.
    """
    asked, classes, null = conditions.label, checkpoint.classes, checkpoint.null_label
    if not classes:
        if asked is not None:
            raise ValueError("This checkpoint has no classes; omit --label.")
        return None
    if asked is None or isinstance(asked, str):
        return tuple(classes)
    wrong = [label for label in asked if label not in classes and label != null]
    if wrong:
        none = "" if null is None else f" ({null} stands for 'no class')"
        raise ValueError(
            f"There is no class {wrong[0]}; this checkpoint has the classes {min(classes)} to "
            f"{max(classes)}{none}."
        )
    if len(asked) > count:
        raise ValueError(
            f"--label names {len(asked)} classes for {counted(count, 'image')}; name fewer."
        )
    return asked


def labels_of(
    conditions: ConditionOptions, checkpoint: Checkpoint, count: int
) -> tuple[int, ...] | None:
    """The class of each of ``count`` images; None for a model without classes."""
    unlabelled = conditions.label is None and not conditions.every_class
    if unlabelled and checkpoint.null_label is not None:
        return (checkpoint.null_label,) * count
    turn = labels_in_turn(conditions, checkpoint, count)
    return None if turn is None else tuple(turn[i % len(turn)] for i in range(count))


def purpose_of(
    checkpoint: Checkpoint, recipe: Recipe, turn: tuple[int, ...] | None, licence: str
) -> Purpose:
    """What a sampler is tuned or a grid fitted for: a settled recipe with classes in turn."""
    classes = "none" if turn is None else f"classes {', '.join(map(str, turn))}"
    guidance = 1.0 if recipe.guidance is None else recipe.guidance
    how = (recipe.guidance_interval, recipe.guidance_rescale) if guidance != 1 else ()
    return Purpose(checkpoint.identity.weights_hash, guidance, classes, licence, *how)


# ------------------------------------------------------------------------------ what results say


def made_by(checkpoint: Path, dtype: str, identity: Identity) -> dict[str, Any]:
    """The parameters that every PNG file stores: program, version and checkpoint."""
    return {
        "software": "retrograde",
        "version": package_version(),
        "checkpoint": str(checkpoint),
        **identity._asdict(),
        "dtype": dtype,
    }


def parameters(
    model: ModelOptions,
    checkpoint: Checkpoint,
    recipe: Recipe,
    seeds: Sequence[int] | None,
    labels: Sequence[int | None] | None,
) -> dict[str, Any]:
    """The same with the settings of sampling; the recipe is a settled one."""
    interval = recipe.guidance_interval
    return made_by(model.checkpoint, model.dtype, checkpoint.identity) | {
        "sigma_min": recipe.sigma_min,
        "sigma_max": recipe.sigma_max,
        "final": recipe.final,
        "guidance": recipe.guidance,
        "guidance_rescale": recipe.guidance_rescale,
        "guidance_interval": None if interval is None else list(interval),
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt,
        "null_label": model.null_label,
        "labels": None if labels is None else list(labels),
        "seeds": None if seeds is None else list(seeds),
    }
