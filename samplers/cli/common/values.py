"""Types of values: the words of the command line, read into the library's own types."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from samplers.choices import CONFIG_SPACINGS, MOST_STEPS
from samplers.spacings import spacing_name

ALL = "all"
_MOST_SEEDS = 1_000_000


class Number(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4
    """A finite number that passes a test, which ``allowed`` says in words."""

    def __init__(self, kind: type, allowed: str, test: Callable[[Any], bool]) -> None:
        self.name = "N" if kind is int else "X"
        self._kind, self._allowed, self._test = kind, allowed, test

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self._kind(value)
        except ValueError:
            number = math.nan
        if not (number < math.inf and self._test(number)):
            self.fail(f"{value} is not {self._allowed}.", param, ctx)
        return number


class Value(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4
    """What a function makes of a text; it raises ValueError, in words, for a wrong one."""

    def __init__(self, name: str, read: Callable[[str], object]) -> None:
        self.name, self._read = name, read

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Place(Value):
    """A file or a folder, which the shell completes."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class Output(Place):
    """A file that is written, and is not to exist; or a folder, which the command checks."""


class SamplerName(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4
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


class GridName(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4
    """A spacing by name with its parameters, ``config``, or the file of a fitted grid, if there may
    be one, which commands read: that imports torch."""

    name = "SPACING"

    def __init__(self, *, fitted: bool) -> None:
        self._fitted = fitted

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "config" or (self._fitted and value.endswith(FITTED)):
            return value
        try:
            return spacing_name(value)
        except ValueError as error:
            other = f"config, or a file NAME{FITTED}" if self._fitted else "config"
            self.fail(f"{error} Or take {other}.", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in CONFIG_SPACINGS if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


FITTED = ".json"
"""How the name of a file of a fitted grid ends."""


# ------------------------------------------------------------------------- what texts are read as


def _place(text: str) -> Path:
    if not text:
        raise ValueError("the name is empty; name a file or a folder.")
    return Path(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"{text!r} is no device; it must be auto, cpu, cuda or cuda:N.")
    return text


def listed(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Reads values that are separated by commas."""
    return lambda text: tuple(map(kind, text.split(",")))


def _interval(text: str) -> tuple[float, float]:
    levels = listed(NOT_NEGATIVE)(text)
    if len(levels) != 2 or not levels[0] < levels[1]:
        raise ValueError(f"{text} is no interval; it must be LOW,HIGH, two rising numbers.")
    return levels[0], levels[1]


def _labels(text: str) -> tuple[int, ...] | str:
    return ALL if text == ALL else listed(WHOLE)(text)


def _seeds(text: str) -> tuple[int, ...]:
    ranges = [_seed_range(part) for part in text.split(",")]
    if sum(map(len, ranges)) > _MOST_SEEDS:
        raise ValueError(f"{text} names more than {_MOST_SEEDS:,} seeds; split the job.")
    found = tuple(seed for seeds in ranges for seed in seeds)
    if len(set(found)) < len(found):
        raise ValueError(f"{text} names a seed twice.")
    return found


def _seed_range(text: str) -> Sequence[int]:
    first, dash, last = text.partition("-")
    start, end = WHOLE(first), WHOLE(last if dash else first)
    if end < start:
        raise ValueError(f"the range {text} runs backwards.")
    return range(start, end + 1)


def seeds_text(numbers: Sequence[int]) -> str:
    """Seeds as they are written on the command line, neighbours as ranges: 0-15,20."""
    runs: list[list[int]] = []
    for seed in numbers:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


# ---------------------------------------------------------------------------------------- types


def count(most: int) -> Number:
    """A number of things, bounded so that they are not too many for any memory."""
    allowed = f"a whole number from 1 to {most:,}"
    return Number(int, allowed, lambda number: 1 <= number <= most)


WHOLE = Number(int, "a whole number from 0 up to 2^63 - 1", lambda number: 0 <= number < 2**63)
EDGE = Number(float, "a number from 0.02 to 2", lambda number: 0.02 <= number <= 2)
PERIODS = Number(float, "a number from 0 to 10,000", lambda number: 0 <= number <= 10_000)
UPDATES = count(1_000_000_000)
"""Numbers that take time only, such as the updates of a training."""
IMAGE_COUNT = count(_MOST_SEEDS)
POSITIVE = count(MOST_STEPS)
"""Numbers that take memory: the steps of a sampler, the sides of an image, channels."""
FINITE = Number(float, "a finite number", lambda number: number > -math.inf)
POSITIVE_NUMBER = Number(float, "a finite number above 0", lambda number: number > 0)
NOT_NEGATIVE = Number(float, "a finite number from 0 up", lambda number: number >= 0)
COUNTS = Value("N,N,…", listed(POSITIVE))
INTERVAL = Value("LOW,HIGH", _interval)
LABELS = Value("N,N,…|all", _labels)
SEEDS = Value("N,N-N,…", _seeds)
PATH = Place("PATH", _place)
OUTPUT = Output("PATH", _place)
DEVICE = Value("NAME", _device)
SAMPLER = SamplerName()
GRID, SPACING = GridName(fitted=True), GridName(fitted=False)
SAMPLERS = Value("NAME,NAME,…", listed(str))


def fixed_sampler(name: str) -> str:
    """The registry's name of a sampler of fixed steps, from any of its names; imports torch."""
    from samplers.registry import AdaptiveSampler, get_sampler

    sampler = get_sampler(name)
    if isinstance(sampler, AdaptiveSampler):
        raise ValueError(
            f"{name!r} has adaptive step sizes, and this command takes samplers of fixed steps "
            "only; `samplers list` has them."
        )
    return sampler.name
