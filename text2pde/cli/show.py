"""``text2pde show``: a clip as a film, as a figure, or in the format of another program."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.options import OverwriteOptions
from samplers.cli.common.output import prepare_folder, refuse_folder
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import OUTPUT, PATH, POSITIVE
from text2pde.cli.common import FORMATS, check_clip_output

_EXAMPLES = """\
Examples:
  text2pde show data/cylinder/case-00000.safetensors --output street.gif
  text2pde show data/cylinder/case-00000.safetensors --output street.png
  text2pde show data/cylinder/case-00000.safetensors --output flow.vtu
"""
_LEAST_WIDTH = 160


class ShowOptions(OverwriteOptions, section="Options"):
    """A clip, and how it is shown."""

    clip: Path = argument("CLIP", type=PATH, help="File of a clip.")
    output: Path = option(type=OUTPUT, help=FORMATS, required=True)
    width: int = option(type=POSITIVE, help="Width of films and figures, in pixels.", default=640)


@command(_EXAMPLES)
def run(options: ShowOptions) -> None:
    """Show a clip, or convert it.

    Films and figures show the vorticity in units of U / D, red for counterclockwise rotation, or
    the density of smoke. ParaView opens the series NAME.pvd beside the VTK files.
    """
    from text2pde.data.clip import load_clip
    from text2pde.export import export_clip

    output, width = options.output, options.width
    check_clip_output(output, options.overwrite)
    refuse_folder(output)
    if width < _LEAST_WIDTH:
        raise ValueError(f"--width is {width}; it must be {_LEAST_WIDTH} pixels or more.")
    clip = load_clip(options.clip)
    prepare_folder(output.parent)
    where = export_clip(clip, output, {"clip": str(options.clip)}, width)
    seconds = clip.times[-1] - clip.times[0]
    print(
        f"{clip.scene}; {len(clip.times)} frames of {seconds:.3g} s, {len(clip.mesh.nodes)} nodes "
        f"-> {where}"
    )
