"""The arguments that commands share, read into the library's own types."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from samplers.grid import SPACINGS
from samplers.registry import get_pair, get_sampler, list_adaptive, list_samplers

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

ALL = "all"
NUM_IMAGES = 16
NUM_ANSWERS = 6
"""Images that are drawn for one measurement."""


ABOUT_NUMBERS = """
Two numbers are printed, root mean squares over pixels from -1 to 1: how far the images are from
what was given, and how far they deviate from each other in what was not.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that they leave the command as all others do."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see `{self.prog} --help`)")


_DEFAULT_SPACINGS = (
    "trailing over trained steps and for flow models, log-snr for others; for prompts the "
    "pipeline's own"
)

Commands = Any  # argparse gives the type of add_subparsers() no public name.


def add_command(commands: Commands, name: str, summary: str, epilog: str = "") -> Parser:
    """A parser for the command ``name``."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_grid_arguments(parser: argparse.ArgumentParser, default: str = _DEFAULT_SPACINGS) -> None:
    """Where the sampler steps; ``default`` says on what grid, if none is named."""
    group = parser.add_argument_group("time grid")
    group.add_argument(
        "--grid",
        choices=SPACINGS,
        metavar="SPACING",
        help=f"{', '.join(SPACINGS)} [{default}]",
    )
    group.add_argument(
        "--sigma-min",
        type=float,
        metavar="S",
        help="last positive noise level, in units of sigma/alpha [the lowest trained]",
    )
    group.add_argument(
        "--sigma-max", type=float, metavar="S", help="first noise level [the highest trained]"
    )
    group.add_argument(
        "--final",
        choices=("zero", "sigma_min"),
        help="where the last step ends: at sigma = 0, or at the last positive level [zero, unless "
        "the checkpoint's scheduler says otherwise]",
    )


def add_option_argument(parser: argparse._ActionsContainer) -> None:
    """Settings of one sampler."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting, such as eta=0.5; repeatable (`samplers show NAME` lists all)",
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of a model of any kind, and where it runs."""
    group = add_network_arguments(parser, "class of a class-conditional model [all]")
    group.add_argument("--prompt", help="text, for a model that takes one")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")


def add_network_arguments(
    parser: argparse.ArgumentParser, label_help: str
) -> argparse._ArgumentGroup:
    """What is asked of a model without a prompt, and where it runs; returns the first group."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a diffusers folder")
    parser.set_defaults(prompt=None, negative_prompt=None)
    asked = group = parser.add_argument_group("what to draw")
    group.add_argument(
        "--label",
        type=_labels,
        metavar="N[,N…]|all",
        help=f"{label_help}; several are taken in turn",
    )
    group.add_argument(
        "--guidance",
        type=float,
        metavar="W",
        help="scale of classifier-free guidance; 1 is none [1, unless a pipeline has its own]",
    )
    group.add_argument(
        "--guidance-rescale",
        type=float,
        default=0.0,
        metavar="R",
        help="share of the guided output brought back to its unguided contrast, 0 to 1 [0]",
    )
    seeds = group.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_whole, default=0, metavar="N", help="of the first image [0]")
    seeds.add_argument(
        "--seeds", type=_seeds, metavar="LIST", help="one for each image: 0,1,2 or 0-15 or both"
    )
    group = parser.add_argument_group("how to run")
    group.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="of the network [float32]"
    )
    group.add_argument(
        "--device", default="auto", help="cpu, cuda or cuda:N [auto: the GPU, if there is one]"
    )
    group.add_argument(
        "--null-label",
        type=_whole,
        metavar="N",
        help="the class that stands for 'no class', if the checkpoint does not say",
    )
    group.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights from a pickle where there are no safetensors (tensors only)",
    )
    return asked


def add_restoring_arguments(parser: argparse.ArgumentParser, method: str) -> None:
    """What the commands share that draw images with a given measurement."""
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        choices=("guidance", "replacement"),
        default=method,
        help="guidance: the network is bent towards the measurement by a gradient; replacement: "
        "the measurement is put in before every step, which costs less and fits exactly, but the "
        f"rest knows less of it [{method}]",
    )
    group.add_argument(
        "--visits",
        type=positive,
        metavar="N",
        help="of replacement: take every step so often, which brings the parts together and costs "
        "as many times the network calls [1]",
    )
    group.add_argument(
        "--sampler",
        type=sampler_name,
        default="ancestral",
        metavar="NAME",
        help="see `samplers list` [ancestral]",
    )
    group.add_argument("--steps", type=positive, default=50, metavar="N", help="[50]")
    add_option_argument(group)
    add_grid_arguments(parser, "log-snr")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--num-images", type=positive, metavar="N", help=f"[{NUM_ANSWERS}, or as --seeds]"
    )
    group.add_argument("--batch-size", type=positive, default=16, metavar="N", help="at once [16]")
    group.add_argument("--output", type=Path, required=True, metavar="NAME.png", help="the picture")


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small; it must be at least 1")
    return number


def positives(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, separated by commas."""
    return tuple(positive(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Names of samplers, separated by commas; each is looked up."""
    return tuple(sampler_name(part) for part in text.split(","))


def sampler_name(text: str) -> str:
    """The registry's name of a sampler, from any of its names."""
    try:
        return get_sampler(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def any_sampler_name(text: str) -> str:
    """The name of a sampler or of an adaptive method, from any of its names."""
    with contextlib.suppress(ValueError):
        return get_pair(text).name
    near = difflib.get_close_matches(text, [*list_samplers(), *list_adaptive()], n=1)
    if near and near[0] in list_adaptive():
        raise argparse.ArgumentTypeError(
            f"There is no sampler named {text!r}; did you mean {near[0]!r}?"
        )
    return sampler_name(text)


def positive_number(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not possible; it must be positive and finite")
    return number


def _whole(text: str) -> int:
    if not text.strip().removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative; it must be zero or more")
    return int(text)


def _labels(text: str) -> tuple[int, ...] | str:
    return ALL if text == ALL else tuple(_whole(part) for part in text.split(","))


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(seed for part in text.split(",") for seed in _seed_range(part))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text} names a seed twice")
    return seeds


def _seed_range(text: str) -> Sequence[int]:
    first, dash, last = text.partition("-")
    if not dash:
        return (_whole(text),)
    if not _whole(first) <= _whole(last):
        raise argparse.ArgumentTypeError(f"the range {text} runs backwards")
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
