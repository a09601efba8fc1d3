"""``samplers sample``: draw images from a checkpoint. The work is in ``work/sample.py``."""

from __future__ import annotations

import argparse
from typing import get_args

from samplers.cli.arguments import (
    NUM_IMAGES,
    Commands,
    add_checkpoint_arguments,
    add_command,
    add_grid_arguments,
    add_option_argument,
)
from samplers.cli.values import any_sampler_name, image_count, place, positive, positive_number
from samplers.solve import NoiseKind

_EPILOG = """\
examples:
  samplers sample assets/digits --label 3 --guidance 1.5 --steps 15 --output digits.png
  samplers sample assets/digits --num-images 100 --output all-classes.png
  samplers sample assets/digits --sampler ancestral --option eta=0.5 --steps 50 --output noisy.png
  samplers sample assets/digits --sampler bogacki-shampine --tolerance 0.02 --output adaptive.png
  samplers sample assets/digits --steps 30 --trajectory run.gif --output digits.png
  samplers sample my-stable-diffusion --prompt "a lighthouse" --seeds 0-3 --output lighthouse/

Every picture holds, in its PNG text chunk "parameters", all that is needed to draw it again. An
image depends on its seed alone, not on the number of images, the batch size or the device (but for
the rounding of the network's own arithmetic). Only the samplers NAME+langevin (not the annealed
ones) make a step by the norms of the whole batch: with them an image depends on its batch.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``sample``."""
    parser = add_command(commands, "sample", "draw images from a checkpoint", _EPILOG)
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group("sampler")
    group.add_argument(
        "--sampler",
        type=any_sampler_name,
        default="dpmpp-2m",
        metavar="NAME",
        help="see `samplers list` [dpmpp-2m]",
    )
    group.add_argument("--steps", type=positive, metavar="N", help="[20]")
    add_option_argument(group)
    group.add_argument(
        "--noise",
        choices=get_args(NoiseKind),
        help="of samplers that draw any: independent from step to step, or along a brownian path, "
        "on which more steps with the same seed come to the same image [independent]",
    )
    group.add_argument(
        "--tolerance",
        type=positive_number,
        metavar="E",
        help="of adaptive methods, in place of --steps: the error that a step may make, relative "
        "and absolute [0.01]",
    )
    group.add_argument(
        "--max-nfe",
        type=positive,
        metavar="N",
        help="of adaptive methods: the network calls that each image may have [500]",
    )
    add_grid_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--num-images", type=image_count, metavar="N", help=f"[{NUM_IMAGES}, or as --seeds]"
    )
    group.add_argument(
        "--batch-size", type=positive, default=16, metavar="N",
        help="at once; decides the images of samplers whose step depends on the batch [16]",
    )  # fmt: skip
    group.add_argument(
        "--output",
        type=place,
        required=True,
        metavar="PATH",
        help="NAME.png for one picture of all images; a folder for single images and grid.png, "
        "where images that are there already are kept",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace images in the folder that were drawn with other settings",
    )
    group.add_argument(
        "--trajectory",
        type=place,
        metavar="NAME.gif|NAME.mp4|NAME.png",
        help="also show how the first images come about: what the network predicts at each call, "
        "as a film or as a strip with a row for each image",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import sample

    return sample.run(arguments)
