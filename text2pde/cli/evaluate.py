"""``text2pde evaluate``: a table of how good a model is. The work is in ``evaluating.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from text2pde.cli.arguments import add_drawing_arguments

_EPILOG = """\
example:
  text2pde evaluate data/held-out --training data/cylinder --output table.md

What comes back of clips through the latent, how flows move that are drawn from captions, and how
far flows are that are drawn from first frames, each beside what is had without a model: linear
interpolation, the nearest flow of training, the frame as it is.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``evaluate``."""
    parser = add_command(commands, "evaluate", "measure a model on clips it never saw", _EPILOG)
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder of `simulate --held-out`")
    parser.add_argument(
        "--training", type=Path, required=True, metavar="CLIPS", help="folder that it learned from"
    )
    add_drawing_arguments(parser)
    parser.add_argument("--output", type=Path, metavar="NAME.md", help="the table as a file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    from text2pde.cli import evaluating

    return evaluating.run(arguments)
