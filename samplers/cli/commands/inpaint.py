"""``samplers inpaint``: draw what is missing in a picture. The work is in ``work/inpaint.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_restoring_arguments, add_restoring_command

_EPILOG = """\
example:
  samplers inpaint assets/digits three.png --mask hole.png --num-images 6 --output completed.png

White in the mask is what is unknown and gets drawn; black stays as it is. The mask has the size of
the picture, and greys count as the nearer of the two.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``inpaint``."""
    parser = add_restoring_command(
        commands, "inpaint", "draw what is missing in a picture", _EPILOG
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a PNG or JPEG")
    parser.add_argument(
        "--mask",
        type=Path,
        required=True,
        metavar="MASK.png",
        help="a picture of the same size: white is unknown, black is known",
    )
    add_restoring_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import inpaint

    return inpaint.run(arguments)
