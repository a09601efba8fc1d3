"""``text2pde generate``: a flow from a sentence. The work is in ``drawing.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from text2pde.cli.arguments import add_drawing_arguments, add_output_arguments

_EPILOG = """\
examples:
  text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120" \\
      --output street.gif
  text2pde generate "A cylinder of diameter 9 cm at x = 0.3 m, y = 19 cm; a speed of 1.3 m/s" \\
      --output flow.vtu --animation flow.gif
  text2pde generate "radius 5 cm, Re = 80" --mesh mesh.msh --sampler dpmpp-2m --steps 20 \\
      --output flow.safetensors

A sentence must state the size of the cylinder, and a Reynolds number or a speed; the cylinder
stands at (0.3, 0.2) m unless it is said. A mesh is made to fit, unless one is given. The bundled
model knows Reynolds numbers from 40 to 160, radii from 4 to 6 cm, and cylinders at x from 0.25 to
0.4 m and y from 0.17 to 0.24 m.

A model of smoke takes a radius and a buoyancy: "smoke of radius 4 m and buoyancy 0.4 m/s^2".
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``generate``."""
    parser = add_command(commands, "generate", "draw the flow that a sentence asks for", _EPILOG)
    parser.add_argument("prompt", metavar="SENTENCE", help="what flows, past what")
    parser.add_argument(
        "--mesh", type=Path, metavar="FILE", help="of gmsh, VTK or another that meshio reads"
    )
    add_drawing_arguments(parser)
    add_output_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    from text2pde.cli import drawing

    return drawing.generate(arguments)
