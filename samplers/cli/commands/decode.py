"""``samplers decode``: pictures from codes. The work is in ``work/decode.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    Commands,
    add_command,
    add_flow_arguments,
    add_network_arguments,
    add_temperature_argument,
)
from samplers.cli.values import place
from samplers.probability_flow.codes import DEFAULT

_EPILOG = """\
examples:
  samplers decode assets/digits codes.safetensors --output decoded.png
  samplers decode assets/digits codes.safetensors --label 5 --temperature 0.7 --output fives/

With the classes, the guidance and the noise levels that the codes were found with, which are taken
unless others are given, a code gives its picture back.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``decode``."""
    parser = add_command(commands, "decode", "draw the pictures of codes", _EPILOG)
    add_network_arguments(parser, "class of a class-conditional model [as the codes say]")
    parser.add_argument("codes", type=Path, metavar="CODES", help="written by `samplers encode`")
    add_flow_arguments(parser, DEFAULT)
    add_temperature_argument(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=place,
        required=True,
        metavar="PATH",
        help="NAME.png for one picture of all; or a folder for single ones",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decode the codes."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import decode

    return decode.run(arguments)
