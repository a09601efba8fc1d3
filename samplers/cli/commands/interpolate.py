"""``samplers interpolate``: from one picture to another. The work is in ``work/interpolate.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    NO_CLASS,
    Commands,
    add_command,
    add_flow_arguments,
    add_network_arguments,
    add_temperature_argument,
)
from samplers.cli.values import positive, seed_list
from samplers.probability_flow.codes import DEFAULT

_EPILOG = """\
examples:
  samplers interpolate assets/digits three.png eight.png --output strip.png
  samplers interpolate assets/digits --seeds 0,1,2 --label 3 --output strip.png

The way leads along a great circle between the codes of the pictures, or between starting noises,
and on to the next if more than two are given: a row of the picture for each pair. One --label
holds for the whole way.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``interpolate``."""
    parser = add_command(commands, "interpolate", "draw the way from picture to picture", _EPILOG)
    group = add_network_arguments(parser, NO_CLASS)
    group.add_argument(
        "--seeds", type=seed_list, metavar="LIST", help="of noise, in place of pictures: 0,1 or 0-3"
    )
    parser.add_argument(
        "images", type=Path, nargs="*", metavar="IMAGES", help="two or more PNG or JPEG files"
    )
    group.add_argument(
        "--frames", type=positive, default=8, metavar="N", help="of a way, both ends included [8]"
    )
    add_flow_arguments(parser, DEFAULT)
    add_temperature_argument(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, required=True, metavar="NAME.png", help="the strip")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the way."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import interpolate

    return interpolate.run(arguments)
