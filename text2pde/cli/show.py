"""``text2pde show``: a clip as a film, as a figure, or in the format of another program."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.output import prepare_folder, refuse_folder
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH, POSITIVE
from text2pde.cli.common import FORMATS

_EXAMPLES = """\
Examples:
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
  text2pde show data/cylinder/case-00000.safetensors --output street.png
  text2pde show data/cylinder/case-00000.safetensors --output flow.vtu
"""
_LEAST_WIDTH = 160


@command(_EXAMPLES)
def run(
    *,
    clip: Path = argument("CLIP", type=PATH),
    output: Path = option(
        "--output", type=PATH, required=True, help=f"File, in the format of its suffix: {FORMATS}."
    ),
    width: int = option(
        "--width", type=POSITIVE, default=640, help="Of films and figures, in pixels."
    ),
) -> int:
    """Show a clip, or convert it.

    Films and figures show the vorticity in units of U / D, red for counterclockwise rotation, or
    the density of smoke. ParaView opens the series NAME.pvd beside the VTK files.
    """
    from text2pde.data.clip import load_clip
    from text2pde.export import check_format, export_clip

    check_format(output)
    refuse_folder(output)
    if width < _LEAST_WIDTH:
        raise ValueError(f"--width is {width}; it must be {_LEAST_WIDTH} pixels or more.")
    found = load_clip(clip)
    prepare_folder(output.parent)
    where = export_clip(found, output, {"clip": str(clip)}, width)
    print(
        f"{found.scene}; {len(found.times)} frames of {found.times[-1] - found.times[0]:.3g} s, "
        f"{len(found.mesh.nodes)} nodes -> {where}"
    )
    return 0
