"""``adjoint residual``: the residual of a network. The work is in ``work/residual.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    NO_CLASS,
    Commands,
    add_command,
    add_network_arguments,
    add_seed_arguments,
)
from samplers.cli.values import positive, positive_number

_EPILOG = """\
examples:
  adjoint residual assets/digits --output residual.png
  adjoint residual assets/digits digits/ --label 3 --levels 20 --output threes.png

Where the residual is zero, samples of the ODE and of the SDE have one law. It is measured at images
with noise, which the network draws itself if none are given, in units of the images, and printed
with its standard error beside its two parts, which cancel where the network is exact. In float32
differences of second order are rounding, so --dtype float32 measures the residual of the gradient's
form instead, which is another number where the network is no gradient: compare like with like.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``residual``."""
    parser = add_command(
        commands, "residual", "measure how far a network is from the score of a process", _EPILOG
    )
    add_seed_arguments(add_network_arguments(parser, NO_CLASS, "float64"))
    parser.add_argument(
        "images", type=Path, nargs="*", metavar="IMAGES", help="PNG or JPEG files, and folders"
    )
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--num-images", type=positive, metavar="N", help="images that are drawn [16]"
    )
    group.add_argument("--levels", type=positive, default=12, metavar="N", help="two or more [12]")
    group.add_argument("--probes", type=positive, default=4, metavar="N", help="two or more [4]")
    group.add_argument("--sigma-min", type=positive_number, metavar="S", help="[0.02]")
    group.add_argument("--sigma-max", type=positive_number, metavar="S", help="[50]")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="NAME.png", help="the picture"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and draw."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from adjoint.cli.work import residual

    return residual.run(arguments)
