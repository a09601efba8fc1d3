"""``samplers restore``: draw large pictures for a small one. The work is in ``work/restore.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    ABOUT_NUMBERS,
    Commands,
    add_command,
    add_network_arguments,
    add_restoring_arguments,
    positive,
)

_EPILOG = """\
example:
  samplers restore assets/digits small.png --downsampled 4 --num-images 6 --output restored.png

A pixel of the given picture is the mean of a block of so many times so many pixels of the result.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``restore``."""
    parser = add_command(
        commands,
        "restore",
        "draw pictures of full size for one that was made smaller",
        _EPILOG + ABOUT_NUMBERS,
    )
    add_network_arguments(parser, "class of a class-conditional model [no class, if it knows one]")
    parser.add_argument("image", type=Path, metavar="SMALL", help="a PNG or JPEG")
    parser.add_argument(
        "--downsampled",
        type=positive,
        required=True,
        metavar="K",
        help="each side of the picture was made so many times smaller",
    )
    add_restoring_arguments(parser, "guidance")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import restore

    return restore.run(arguments)
