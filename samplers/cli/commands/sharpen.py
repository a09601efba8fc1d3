"""``samplers sharpen``: pictures for a small or blurred one. The work is in ``work/sharpen.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_restoring_arguments, add_restoring_command
from samplers.cli.values import positive, positive_number

_EPILOG = """\
example:
  samplers sharpen assets/digits small.png --downsampled 4 --num-images 6 --output restored.png
  samplers sharpen assets/colour soft.png --blurred 1.5 --noise-std 0.02 --output sharp.png

Downsampled: a pixel of the given picture is the mean of a block of so many times so many pixels of
the result. Blurred: by a Gaussian of so many pixels; say by --noise-std what else happened to the
picture, if only that it was rounded to 256 levels (0.003).
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``sharpen``."""
    parser = add_restoring_command(
        commands,
        "sharpen",
        "draw whole pictures for one that was made smaller or was blurred",
        _EPILOG,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a PNG or JPEG")
    measured = parser.add_mutually_exclusive_group(required=True)
    measured.add_argument(
        "--downsampled",
        type=positive,
        metavar="K",
        help="each side of the picture was made so many times smaller",
    )
    measured.add_argument(
        "--blurred",
        type=positive_number,
        metavar="S",
        help="the picture was blurred by a Gaussian of this standard deviation, in pixels",
    )
    add_restoring_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import sharpen

    return sharpen.run(arguments)
