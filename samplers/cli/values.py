"""Words of the command line, read into the library's own types; each raises for a wrong one."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
from collections.abc import Sequence
from pathlib import Path

from samplers.registry import get_pair, get_sampler, list_adaptive, list_samplers

ALL = "all"


def place(text: str) -> Path:
    """A file or a folder; an empty name is no name for the present one."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; it must be at least 1")
    return number


def image_count(text: str) -> int:
    """A whole number from 1 to a million."""
    number = positive(text)
    if number > _MOST_SEEDS:
        raise argparse.ArgumentTypeError(
            f"{text} is more than {_MOST_SEEDS:,}; draw so many in several runs"
        )
    return number


def positives(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, separated by commas."""
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Names of samplers, separated by commas; each is looked up."""
    return tuple(sampler_name(part) for part in text.split(","))


def sampler_name(text: str) -> str:
    """The registry's name of a sampler of fixed steps, from any of its names."""
    if _adaptive_name(text) is not None:
        raise argparse.ArgumentTypeError(
            f"{text!r} chooses its own steps, and this command takes samplers of fixed steps only; "
            "`samplers list` has them"
        )
    try:
        return get_sampler(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def any_sampler_name(text: str) -> str:
    """The name of a sampler or of an adaptive method, from any of its names."""
    adaptive = _adaptive_name(text)
    if adaptive is not None:
        return adaptive
    near = difflib.get_close_matches(text, [*list_samplers(), *list_adaptive()], n=1)
    if near and near[0] in list_adaptive():
        raise argparse.ArgumentTypeError(
            f"There is no sampler named {text!r}; did you mean {near[0]!r}?"
        )
    return sampler_name(text)


def _adaptive_name(text: str) -> str | None:
    with contextlib.suppress(ValueError):
        return get_pair(text).name
    return None


def positive_number(text: str) -> float:
    """A finite number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not possible; it must be positive and finite")
    return number


def not_negative(text: str) -> float:
    """A finite number from 0 up."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text} is not possible; it must be zero or positive, and finite"
        )
    return number


def finite(text: str) -> float:
    """A finite number."""
    number = _number(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not possible; it must be finite")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def whole(text: str) -> int:
    """A whole number from 0 up."""
    if not text.strip().removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; it must be zero or more")
    return int(text)


def label_list(text: str) -> tuple[int, ...] | str:
    """Classes separated by commas, or the word for all of them."""
    return ALL if text == ALL else tuple(whole(part) for part in text.split(","))


_MOST_SEEDS = 1_000_000


def seed_list(text: str) -> tuple[int, ...]:
    """Seeds, single or in ranges, separated by commas; none twice."""
    seeds = tuple(seed for part in text.split(",") for seed in _seed_range(part))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text} names a seed twice")
    return seeds


def _seed_range(text: str) -> Sequence[int]:
    first, dash, last = text.partition("-")
    if not dash:
        return (whole(text),)
    if not whole(first) <= whole(last):
        raise argparse.ArgumentTypeError(f"the range {text} runs backwards")
    if int(last) - int(first) >= _MOST_SEEDS:
        raise argparse.ArgumentTypeError(
            f"the range {text} is longer than {_MOST_SEEDS:,}; draw so many in several runs"
        )
    return range(int(first), int(last) + 1)


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as they are written on the command line, neighbours as ranges: 0-15,20."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
