"""``text2pde show``: a clip as a film, as a strip of pictures, or for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.values import positive

_EPILOG = """\
examples:
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
  text2pde show data/cylinder/case-00000.safetensors --output street.png
  text2pde show data/cylinder/case-00000.safetensors --output flow.vtu

Colours are the vorticity, how fast the fluid turns: red against the clock, blue with it; or the
density of smoke. ParaView opens the series NAME.pvd that is beside files of VTK.
"""


LEAST_WIDTH = 16
"""In pixels, of a picture that shows anything."""


def add_parser(commands: Commands) -> None:
    """Add the command ``show``."""
    parser = add_command(commands, "show", "draw a clip of a flow", _EPILOG)
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a file of `text2pde simulate`")
    parser.add_argument("--width", type=positive, default=640, metavar="N", help="in pixels [640]")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="NAME.SUFFIX",
        help="gif or mp4 for a film, png for a strip, vtu for ParaView, safetensors for a clip",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    from samplers.cli.output import prepare_folder
    from text2pde.cli.writing import check_output, write_clip
    from text2pde.flows.clip import load_clip

    output: Path = arguments.output
    check_output(output)
    if arguments.width < LEAST_WIDTH:
        raise ValueError(f"--width is {arguments.width}; it must be {LEAST_WIDTH} pixels or more.")
    clip = load_clip(arguments.clip)
    prepare_folder(output.parent)
    where = write_clip(clip, output, {"clip": str(arguments.clip)}, arguments.width)
    print(
        f"{clip.flow}; {len(clip.times)} frames of {clip.times[-1] - clip.times[0]:.3g} s, "
        f"{len(clip.mesh.nodes)} nodes -> {where}"
    )
    return 0
