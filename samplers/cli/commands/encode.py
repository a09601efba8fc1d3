"""``samplers encode``: pictures as noise. The work is in ``work/encode.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    NO_CLASS,
    Commands,
    add_command,
    add_flow_arguments,
    add_network_arguments,
)
from samplers.probability_flow.codes import DEFAULT

_EPILOG = """\
example:
  samplers encode assets/digits three.png seven.png --label 3,7 --output codes.safetensors
  samplers decode assets/digits codes.safetensors --output decoded.png

The probability flow turns a picture into noise and back, one to one. The file holds the noise, in
units of its standard deviation, as the tensor "codes".
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``encode``."""
    parser = add_command(commands, "encode", "turn pictures into the noise they come from", _EPILOG)
    add_network_arguments(parser, NO_CLASS)
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGES", help="PNG or JPEG files, and folders"
    )
    add_flow_arguments(parser, DEFAULT)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output", type=Path, required=True, metavar="NAME.safetensors", help="the codes"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Encode the pictures."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import encode

    return encode.run(arguments)
