"""``text2pde infer``: a clip from a first frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH, WHOLE
from text2pde.cli.common import GenerationOptions, OutputOptions, generate_one

if TYPE_CHECKING:
    from text2pde.pipeline import Request, Text2PDEPipeline

_EXAMPLES = """\
Example:
  text2pde infer data/held-out/case-00000.safetensors --frame 10 --output after.gif
"""


@command(_EXAMPLES)
def run(
    *,
    clip: Path = argument("CLIP", type=PATH),
    frame: int = option("--frame", type=WHOLE, default=0, help="Frame of CLIP to start at."),
    output: OutputOptions,
    options: GenerationOptions,
) -> int:
    """Generate a solution from one frame of a clip.

    The model is conditioned on the frame and on the parameters of the scene. If CLIP has later
    frames, the error against them is printed. The output starts at time 0.
    """
    from text2pde.data.clip import load_clip

    given = load_clip(clip)
    if frame >= len(given.times):
        raise ValueError(f"--frame is {frame}; {clip} has frames from 0 to {len(given.times) - 1}.")

    def request(_: Text2PDEPipeline) -> Request:
        from text2pde.pipeline import Request

        return Request(given.scene, mesh=given.mesh, first=given.window(frame))

    return generate_one(options, output, {"clip": f"{clip}, frame {frame}"}, request)
