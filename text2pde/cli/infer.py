"""``text2pde infer``: how a flow goes on. The work is in ``drawing.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.values import whole
from text2pde.cli.arguments import add_drawing_arguments, add_output_arguments

_EPILOG = """\
example:
  text2pde infer data/held-out/case-00000.safetensors --output after.gif

The model is told one frame and the numbers of the flow. If the clip has more frames, it is said how
far what was drawn is from these. What is written begins at time 0.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``infer``."""
    parser = add_command(commands, "infer", "draw how a flow goes on from one frame", _EPILOG)
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a file that holds the frame")
    parser.add_argument("--frame", type=whole, default=0, metavar="N", help="of the clip [0]")
    add_drawing_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    from text2pde.cli import drawing

    return drawing.infer(arguments)
