"""``text2pde show``: a clip as a film, or as a strip of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.output import prepare_folder, spread_out, write_animation
from samplers.cli.values import positive
from samplers.pictures import write_png

_EPILOG = """\
examples:
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
  text2pde show data/cylinder/case-00000.safetensors --output street.png

Colours are the vorticity, how fast the fluid turns: red against the clock, blue with it.
"""
_ROWS = 5


def add_parser(commands: Commands) -> None:
    """Add the command ``show``."""
    parser = add_command(commands, "show", "draw a clip of a flow", _EPILOG)
    parser.add_argument("clip", type=Path, metavar="CLIP", help="a file of `text2pde simulate`")
    parser.add_argument("--width", type=positive, default=640, metavar="N", help="in pixels [640]")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="NAME.gif|png", help="a film, or a strip"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw; returns the exit code."""
    from text2pde.flows.clip import load_clip
    from text2pde.pictures import frames, strip

    output: Path = arguments.output
    if output.suffix.lower() not in (".gif", ".png"):
        raise ValueError(f"The output is {output}; it is a film, NAME.gif, or a strip, NAME.png.")
    clip = load_clip(arguments.clip)
    pictures = frames(clip, arguments.width)
    prepare_folder(output.parent)
    if output.suffix.lower() == ".gif":
        write_animation(pictures, output)
    else:
        write_png(strip(spread_out(pictures, _ROWS)), output, {"clip": str(arguments.clip)})
    flow, channel = clip.flow, clip.flow.channel
    print(
        f"Re {flow.reynolds:.0f}, {flow.speed:.3g} m/s past a radius of {channel.radius:.3g} m at "
        f"({channel.x:.3g}, {channel.y:.3g}) m; {len(clip.times)} frames of "
        f"{clip.times[-1] - clip.times[0]:.3g} s, {len(clip.mesh.nodes)} nodes -> {output}"
    )
    return 0
