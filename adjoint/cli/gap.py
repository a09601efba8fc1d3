"""``adjoint gap``: ODE against SDE samples of a network. The work is in ``work/gap.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    Commands,
    add_command,
    add_network_arguments,
    add_seed_arguments,
)
from samplers.cli.values import positive, positives, sampler_name

_EPILOG = """\
examples:
  adjoint gap assets/digits --num-images 200 --output gap.png
  adjoint gap assets/digits data/ --steps 20,40,80 --distance energy --output gap.png

Images drawn by the probability-flow ODE are compared with as many drawn by the reverse SDE, as
sets, at several numbers of steps. What the distance goes to with more steps is the gap of the
network's score; two sets of one law have a distance, too, and its mean is printed beside. With
images of the data, both sets are compared with those, too.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``gap``."""
    parser = add_command(
        commands, "gap", "measure how far samples of the ODE are from those of the SDE", _EPILOG
    )
    label = "class of a class-conditional model [all]"
    add_seed_arguments(add_network_arguments(parser, label))
    parser.add_argument(
        "images", type=Path, nargs="*", metavar="IMAGES", help="of the data: files, and folders"
    )
    group = parser.add_argument_group("measurement")
    group.add_argument("--num-images", type=positive, metavar="N", help="images of each set [64]")
    group.add_argument(
        "--steps", type=positives, default=(10, 20, 40), metavar="N,N…", help="[10,20,40]"
    )
    group.add_argument(
        "--ode", default="dpmpp-2m", metavar="SAMPLER", type=sampler_name, help="[dpmpp-2m]"
    )
    group.add_argument(
        "--sde", default="sde-dpmpp-2m", metavar="SAMPLER", type=sampler_name, help="[sde-dpmpp-2m]"
    )
    group.add_argument(
        "--distance",
        choices=("sliced", "energy"),
        default="sliced",
        help="the squared Wasserstein distance of projections, or the energy distance [sliced]",
    )
    group.add_argument(
        "--batch-size", type=positive, default=16, metavar="N", help="images at once [16]"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="NAME.png", help="the picture"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and draw."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from adjoint.cli.work import gap

    return gap.run(arguments)
