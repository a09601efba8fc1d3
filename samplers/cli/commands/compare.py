"""``samplers compare``: samplers side by side. The work is in ``work/compare.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import (
    Commands,
    add_checkpoint_arguments,
    add_command,
    add_grid_arguments,
)
from samplers.cli.values import image_count, names, positive, positives, sampler_name

_EPILOG = """\
example:
  samplers compare assets/digits --samplers ddim,heun,dpmpp-2m,unipc --nfe 5,10,20 --label 3 \\
      --output compare.png

All start from the same noise. Each takes the most steps whose network calls (NFE) stay within the
column's budget. The error is the root mean square, over pixels from -1 to 1, of the difference to
the reference; samplers that draw noise of their own have no such error.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``compare``."""
    parser = add_command(
        commands, "compare", "draw one picture of samplers by number of network calls", _EPILOG
    )
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group("samplers")
    group.add_argument(
        "--samplers",
        type=names,
        default=("ddim", "heun", "dpmpp-2m", "unipc-2"),
        metavar="A,B,…",
        help="the rows [ddim,heun,dpmpp-2m,unipc-2]",
    )
    group.add_argument(
        "--nfe", type=positives, default=(5, 10, 20), metavar="N,M,…", help="the columns [5,10,20]"
    )
    group.add_argument(
        "--reference", type=sampler_name, default="dpmpp-3m-corrected", metavar="NAME",
        help="what the error is measured to [dpmpp-3m-corrected]",
    )  # fmt: skip
    group.add_argument(
        "--reference-steps", type=positive, default=200, metavar="N", help="its steps [200]"
    )
    add_grid_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--num-images", type=image_count, metavar="N", help="in every place [1, or as --seeds]"
    )
    group.add_argument("--output", type=Path, required=True, metavar="NAME.png", help="the picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw the comparison."""
    # diffusers takes seconds to import, and the other commands need nothing of it.
    from samplers.cli.work import compare

    return compare.run(arguments)
