"""Types of values: the words of the command line, read into the library's own types.

A reader is a function from a text to a value that raises ValueError in words; :class:`Value` makes
a type of click of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

T = TypeVar("T")

ALL = "all"
_MOST_SEEDS = 1_000_000


class Value(click.ParamType[Any]):
    """A type of click from a reader; ``name`` is what the help shows in a value's place."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name, self._read = name, read

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        if not isinstance(value, str):
            return value  # a default
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Place(Value):
    """A file or a folder, which the shell completes."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class SamplerName(click.ParamType[str]):
    """The name of a sampler, as it was written; commands look it up, which imports torch."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from samplers.registry import list_samplers

        names = list_samplers()
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


# ------------------------------------------------------------------------------------- readers


def whole(text: str) -> int:
    """A whole number from 0 up."""
    if not text.strip().removeprefix("-").isdecimal():
        raise ValueError(f"{text!r} is not a whole number.")
    if int(text) < 0:
        raise ValueError(f"{text} is negative; it must be zero or more.")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = whole(text)
    if number < 1:
        raise ValueError(f"{text} is too small; it must be at least 1.")
    return number


def image_count(text: str) -> int:
    """A whole number from 1 to a million."""
    number = positive(text)
    if number > _MOST_SEEDS:
        raise ValueError(f"{text} is more than {_MOST_SEEDS:,}; split the job into several runs.")
    return number


def finite(text: str) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number.") from None
    if not math.isfinite(number):
        raise ValueError(f"{text} is not possible; it must be a finite number.")
    return number


def positive_number(text: str) -> float:
    """A finite number above 0."""
    if not finite(text) > 0:
        raise ValueError(f"{text} is not possible; it must be above 0.")
    return finite(text)


def not_negative(text: str) -> float:
    """A finite number from 0 up."""
    if not finite(text) >= 0:
        raise ValueError(f"{text} is not possible; it must be 0 or above.")
    return finite(text)


def place(text: str) -> Path:
    """A file or a folder; an empty name is no name for the present one."""
    if not text:
        raise ValueError("the name is empty; name a file or a folder.")
    return Path(text)


def listed(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Reads values that are separated by commas."""
    return lambda text: tuple(read(part) for part in text.split(","))


def labels(text: str) -> tuple[int, ...] | str:
    """Classes separated by commas, or the word for all of them."""
    return ALL if text == ALL else listed(whole)(text)


def seeds(text: str) -> tuple[int, ...]:
    """Seeds, single or in ranges, separated by commas; none twice."""
    found = tuple(seed for part in text.split(",") for seed in _seed_range(part))
    if len(set(found)) < len(found):
        raise ValueError(f"{text} names a seed twice.")
    return found


def _seed_range(text: str) -> Sequence[int]:
    first, dash, last = text.partition("-")
    if not dash:
        return (whole(text),)
    if not whole(first) <= whole(last):
        raise ValueError(f"the range {text} runs backwards.")
    if int(last) - int(first) >= _MOST_SEEDS:
        raise ValueError(
            f"the range {text} is longer than {_MOST_SEEDS:,}; split the job into several runs."
        )
    return range(int(first), int(last) + 1)


def seeds_text(numbers: Sequence[int]) -> str:
    """Seeds as they are written on the command line, neighbours as ranges: 0-15,20."""
    runs: list[list[int]] = []
    for seed in numbers:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


# --------------------------------------------------------------------------------------- types

WHOLE = Value("N", whole)
POSITIVE = Value("N", positive)
COUNTS = Value("N,N,…", listed(positive))
IMAGE_COUNT = Value("N", image_count)
FINITE = Value("X", finite)
POSITIVE_NUMBER = Value("X", positive_number)
NOT_NEGATIVE = Value("X", not_negative)
PATH = Place("PATH", place)
LABELS = Value("N,N,…|all", labels)
SEEDS = Value("N,N-N,…", seeds)
SAMPLER = SamplerName()
