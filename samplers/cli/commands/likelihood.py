"""``samplers likelihood``: how likely pictures are. The work is in ``work/likelihood.py``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from samplers.cli.arguments import (
    NO_CLASS,
    Commands,
    add_command,
    add_flow_arguments,
    add_network_arguments,
    add_seed_arguments,
)
from samplers.cli.values import positive
from samplers.probability_flow.likelihood import DEFAULT, ProbeLaw

_EPILOG = """\
examples:
  samplers likelihood assets/digits three.png seven.png --label 3,7
  samplers likelihood assets/digits digits/ clothes/ --csv bits.csv --histogram bits.png

What is printed are bits per dimension: how many bits a byte of the picture takes, at most. The
picture's 256 levels are made continuous by uniform noise, and the density follows the probability
flow. For a network of latents it is the density of these that is printed, in nats.

--probes is how often the divergence is estimated; from 2 on its standard error is known. --exact
sums it instead, which costs as many passes back through the network as a picture has numbers.

With --csv every finished picture is kept, and the same command goes on after an interruption. The
noise of a picture follows from its content and --seed, so others beside it change nothing.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``likelihood``."""
    parser = add_command(commands, "likelihood", "measure how likely pictures are", _EPILOG)
    add_seed_arguments(add_network_arguments(parser, NO_CLASS))
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGES", help="PNG or JPEG files, and folders"
    )
    group = parser.add_argument_group("divergence")
    trace = group.add_mutually_exclusive_group()
    trace.add_argument(
        "--probes", type=positive, default=1, metavar="N", help="random probes a picture [1]"
    )
    trace.add_argument("--exact", action="store_true", help="the exact sum instead, at a high cost")
    group.add_argument(
        "--law", choices=get_args(ProbeLaw), default="rademacher", help="of probes [rademacher]"
    )
    add_flow_arguments(parser, DEFAULT)
    group = parser.add_argument_group("output")
    group.add_argument("--csv", type=Path, metavar="NAME.csv", help="the table, for programs")
    group.add_argument(
        "--histogram", type=Path, metavar="NAME.png", help="a picture, a colour for each folder"
    )
    parser.set_defaults(run=run, num_images=None)


def run(arguments: argparse.Namespace) -> int:
    """Measure the pictures."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import likelihood

    return likelihood.run(arguments)
