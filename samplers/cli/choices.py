"""What was asked for, once it is known what there is to choose from: seeds, classes, options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from samplers.cli.text import counted
from samplers.diffusers.settings import named_settings
from samplers.registry import get_sampler

_SWITCH = {"true": True, "false": False}


def chosen_seeds(arguments: argparse.Namespace, default_count: int) -> tuple[int, ...]:
    """The seeds that were asked for, in one way or the other."""
    count: int | None = arguments.num_images
    if arguments.seeds is None:
        return tuple(arguments.seed + i for i in range(count or default_count))
    if count not in (None, len(arguments.seeds)):
        raise ValueError(
            f"--num-images is {count}, but --seeds lists {len(arguments.seeds)}; give only one."
        )
    return tuple(arguments.seeds)


def chosen_labels(
    asked: tuple[int, ...] | str | None, classes: Sequence[int], null_label: int | None
) -> tuple[int, ...] | None:
    """The classes that are taken in turn, or None for a model that knows none."""
    if not classes:
        if asked is not None:
            raise ValueError("This checkpoint knows no classes; leave --label away.")
        return None
    if asked is None or isinstance(asked, str):
        return tuple(classes)
    wrong = [label for label in asked if label not in classes and label != null_label]
    if wrong:
        none = "" if null_label is None else f" ({null_label} stands for 'no class')"
        raise ValueError(
            f"There is no class {wrong[0]}; this checkpoint knows the classes {min(classes)} to "
            f"{max(classes)}{none}."
        )
    return asked


def check_count(asked: tuple[int, ...] | str | None, count: int) -> None:
    """Raise ValueError if more classes were named than there will be images."""
    if isinstance(asked, tuple) and len(asked) > count:
        raise ValueError(
            f"--label names {len(asked)} classes for {counted(count, 'image')}; name fewer."
        )


def classes_or_none(
    asked: tuple[int, ...] | str | None,
    classes: Sequence[int],
    null_label: int | None,
    count: int,
) -> tuple[int, ...] | None:
    """The class of each of so many images: as asked, or no class if the model knows that label."""
    if asked is None and null_label is not None:
        return (null_label,) * count
    turn = chosen_labels(asked, classes, null_label)
    check_count(asked, count)
    return None if turn is None else tuple(turn[i % len(turn)] for i in range(count))


def chosen_options(sampler: str, texts: Sequence[str]) -> dict[str, Any]:
    """The settings of a sampler from NAME=VALUE, each of the type of its default."""
    known = get_sampler(sampler).options
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"The option {text!r} has no value; write it as NAME=VALUE.")
        if name not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"The sampler {sampler!r} has no option {name!r}; it has {has}.")
        found[name] = _value(name, value, known[name])
    return found


def changed_scheduler(scheduler: Any, arguments: argparse.Namespace) -> Any:
    """A SamplerScheduler with the sampler, the settings and the grid that were asked for.

    Settings of the same sampler that it had stay, unless they are named.
    """
    config = scheduler.config
    options = chosen_options(arguments.sampler or config.sampler, arguments.option)
    named = named_settings(config, arguments.sampler, options, arguments.grid)
    return type(scheduler).from_config(config, **named)


def _value(name: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() not in _SWITCH:
            raise ValueError(f"The option {name} is {text!r}; it must be true or false.")
        return _SWITCH[text.lower()]
    if not isinstance(default, int | float):
        return text
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"The option {name} is {text!r}; it must be {kind}.") from None
