"""``samplers restore``: degraded pictures, restored. The work is in ``work/restore.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    Commands,
    add_command,
    add_method_arguments,
    add_place_arguments,
)
from samplers.cli.values import place, whole

_EPILOG = """\
example:
  samplers restore assets/restore rainy.png --task rainy --output dry.png
                                                  one picture: before and after
  samplers restore assets/restore photographs/ --task noisy --output clean/
                                                  a folder of restored pictures
  samplers restore assets/restore photo.png --degrade snowy --output tried.png
                                                  a whole photograph, degraded first, to see what
                                                  becomes of it

Pictures may have any size from the network's stride up, and be grey or in colour.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``restore``."""
    parser = add_command(
        commands, "restore", "restore degraded photographs by mean-reverting diffusion", _EPILOG
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the folder of a RestorationPipeline"
    )
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a PNG or JPEG, or a folder of such"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--task", metavar="NAME", help="what happened to the pictures, as the checkpoint calls it"
    )
    what.add_argument(
        "--degrade",
        metavar="NAME",
        help="do this to the pictures first, and say how near to them the restored ones come",
    )
    add_method_arguments(parser, 10)
    group = add_place_arguments(parser)
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="of the first image [0]")
    parser.add_argument(
        "--output",
        type=place,
        required=True,
        metavar="PATH",
        help="NAME.png for one picture of before and after, of 20 images at most, or a folder for "
        "restored pictures",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Restore the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import restore

    return restore.run(arguments)
