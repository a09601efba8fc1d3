"""The arguments that commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from samplers.cli.values import (
    image_count,
    label_list,
    not_negative,
    positive,
    positive_number,
    sampler_name,
    seed_list,
    whole,
)
from samplers.grid import SPACINGS
from samplers.probability_flow.integration import Adaptive

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

NUM_IMAGES = 16
NUM_ANSWERS = 6
"""Images that are drawn for one measurement."""


_ABOUT_ANSWERS = """
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


class Command(Protocol):
    """The module of a command."""

    def add_parser(self, commands: Commands) -> None: ...


def program(name: str, purpose: str, tour: str, commands: Sequence[Command]) -> Parser:
    """The parser of a whole command line, with its commands."""
    parser = Parser(
        prog=name,
        description=purpose,
        epilog=tour,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        command.add_parser(places)
    return parser


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
    _add_noise_levels(group)
    group.add_argument(
        "--final",
        choices=("zero", "sigma_min"),
        help="where the last step ends: at sigma = 0, or at the last positive level [zero, unless "
        "the checkpoint's scheduler says otherwise]",
    )


def _add_noise_levels(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sigma-min",
        type=float,
        metavar="S",
        help="last positive noise level, in units of sigma/alpha [the lowest trained]",
    )
    group.add_argument(
        "--sigma-max", type=float, metavar="S", help="first noise level [the highest trained]"
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


def add_method_arguments(parser: argparse.ArgumentParser, steps: int) -> argparse._ArgumentGroup:
    """Which sampler takes the place of a checkpoint's own, and its steps; returns their group."""
    group = parser.add_argument_group("method")
    group.add_argument(
        "--sampler",
        type=sampler_name,
        metavar="NAME",
        help="see `samplers list` [the checkpoint's own]",
    )
    group.add_argument("--steps", type=positive, default=steps, metavar="N", help=f"[{steps}]")
    add_option_argument(group)
    group.add_argument("--grid", choices=SPACINGS, metavar="SPACING", help="[the checkpoint's own]")
    return group


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of a model of any kind, and where it runs."""
    group = add_network_arguments(parser, "class of a class-conditional model [all]")
    add_seed_arguments(group)
    group.add_argument("--prompt", help="text, for a model that takes one")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")


def add_place_arguments(
    parser: argparse.ArgumentParser, dtype: str = "float32"
) -> argparse._ArgumentGroup:
    """In which precision, and on which device; returns their group."""
    group = parser.add_argument_group("how to run")
    group.add_argument("--dtype", choices=DTYPES, default=dtype, help=f"of the network [{dtype}]")
    group.add_argument(
        "--device", default="auto", help="cpu, cuda or cuda:N [auto: the GPU, if there is one]"
    )
    return group


def add_network_arguments(
    parser: argparse.ArgumentParser, label_help: str, dtype: str = "float32"
) -> argparse._ArgumentGroup:
    """Which model without a prompt, and where it runs; returns the group of what is asked of it."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a diffusers folder")
    parser.set_defaults(prompt=None, negative_prompt=None)
    asked = group = parser.add_argument_group("what to draw")
    group.add_argument(
        "--label",
        type=label_list,
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
        metavar="R",
        help="share of the guided output brought back to its unguided contrast, 0 to 1 [0]",
    )
    group = add_place_arguments(parser, dtype)
    group.add_argument(
        "--null-label",
        type=whole,
        metavar="N",
        help="the class that stands for 'no class', if the checkpoint does not say",
    )
    group.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights from a pickle where there are no safetensors (tensors only)",
    )
    return asked


def add_seed_arguments(group: argparse._ArgumentGroup) -> None:
    """The seeds of the images."""
    seeds = group.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=whole, default=0, metavar="N", help="of the first image [0]")
    seeds.add_argument(
        "--seeds", type=seed_list, metavar="LIST", help="one for each image: 0,1,2 or 0-15 or both"
    )


def add_flow_arguments(parser: argparse.ArgumentParser, default: Adaptive) -> None:
    """What the commands share that follow the probability flow."""
    group = parser.add_argument_group("probability flow")
    group.add_argument(
        "--tolerance",
        type=positive_number,
        default=default.rtol,
        metavar="E",
        help=f"the error that a step may make, relative and absolute [{default.rtol:g}]",
    )
    group.add_argument(
        "--max-nfe",
        type=positive,
        default=default.max_nfe,
        metavar="N",
        help=f"the network calls that each image may have [{default.max_nfe}]",
    )
    group.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="images at once [16]"
    )
    _add_noise_levels(group)
    parser.set_defaults(grid=None, final=None)


NO_CLASS = "class of a class-conditional model [no class, if it knows one]"


def add_temperature_argument(parser: argparse.ArgumentParser) -> None:
    """What is made of codes before they are decoded."""
    parser.add_argument(
        "--temperature",
        type=not_negative,
        default=1.0,
        metavar="T",
        help="variance that the codes are brought to; below 1, pictures get more typical [1]",
    )


def add_restoring_command(commands: Commands, name: str, summary: str, epilog: str) -> Parser:
    """A parser for a command that draws images with a given measurement."""
    parser = add_command(commands, name, summary, epilog + _ABOUT_ANSWERS)
    add_seed_arguments(add_network_arguments(parser, NO_CLASS))
    return parser


def add_restoring_arguments(parser: argparse.ArgumentParser) -> None:
    """What such commands share beyond what is given to them."""
    parser.add_argument(
        "--noise-std",
        type=not_negative,
        default=0.0,
        metavar="S",
        help="standard deviation of noise in what is given, where pixels run from -1 to 1 [0]",
    )
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        choices=("guidance", "replacement"),
        default="guidance",
        help="guidance: the network is bent towards the measurement by a gradient; replacement: "
        "the measurement is put in before every step, which costs less and fits exactly, but the "
        "rest knows less of it [guidance]",
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
        "--num-images", type=image_count, metavar="N", help=f"[{NUM_ANSWERS}, or as --seeds]"
    )
    group.add_argument("--batch-size", type=positive, default=16, metavar="N", help="at once [16]")
    group.add_argument("--output", type=Path, required=True, metavar="NAME.png", help="the picture")
