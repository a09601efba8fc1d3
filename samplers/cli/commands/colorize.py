"""``samplers colorize``: draw colours for a grey picture. The work is in ``work/colorize.py``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from samplers.cli.arguments import (
    Commands,
    add_command,
    add_network_arguments,
    add_restoring_arguments,
)
from samplers.inverse_problems.operators import Grey

_EPILOG = """\
example:
  samplers colorize assets/colour grey.png --num-images 6 --output coloured.png

Two numbers are printed, root mean squares over pixels from -1 to 1: how far the images are from
what was given, and how far they deviate from each other in what was not.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``colorize``."""
    parser = add_command(commands, "colorize", "draw colours for a grey picture", _EPILOG)
    add_network_arguments(parser, "class of a class-conditional model [no class, if it knows one]")
    parser.add_argument("image", type=Path, metavar="GREY", help="a grey PNG or JPEG")
    parser.add_argument(
        "--grey",
        choices=get_args(Grey),
        default="luma",
        help="how it was made of colours: by the luma of ITU-R BT.601, as most programs do, or as "
        "the mean of red, green and blue [luma]",
    )
    add_restoring_arguments(parser, "replacement")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import colorize

    return colorize.run(arguments)
