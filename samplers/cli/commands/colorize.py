"""``samplers colorize``: draw colours for a grey picture. The work is in ``work/colorize.py``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from samplers.cli.arguments import Commands, add_restoring_arguments, add_restoring_command
from samplers.inverse_problems import Grey

_EPILOG = """\
example:
  samplers colorize assets/colour grey.png --num-images 6 --output coloured.png
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``colorize``."""
    parser = add_restoring_command(commands, "colorize", "draw colours for a grey picture", _EPILOG)
    parser.add_argument("image", type=Path, metavar="GREY", help="a grey PNG or JPEG")
    parser.add_argument(
        "--grey",
        choices=get_args(Grey),
        default="luma",
        help="how it was made of colours: by the luma of ITU-R BT.601, as most programs do, or as "
        "the mean of red, green and blue [luma]",
    )
    add_restoring_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import colorize

    return colorize.run(arguments)
