"""``text2pde infer``: a clip from a first frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.program import argument, command, option
from samplers.cli.common.values import PATH, WHOLE
from text2pde.cli.common import OneClipOptions, generate_one

if TYPE_CHECKING:
    from text2pde.data.clip import Clip
    from text2pde.pipeline import Request, Text2PDEPipeline


class InferOptions(OneClipOptions, section="First frame"):
    """A frame of a clip."""

    clip: Path = argument("CLIP", type=PATH, help="File of a clip.")
    frame: int = option(type=WHOLE, help="Frame of CLIP to start at.", default=0)


@command(
    "Example:\n  text2pde infer data/held-out/case-00000.safetensors --frame 10 --output after.gif",
    single_process=True,
)
def run(options: InferOptions) -> None:
    """Generate a solution from one frame of a clip.

    The model is conditioned on the frame and on the parameters of the scene. If CLIP has later
    frames, the error against them is printed. The output starts at time 0.
    """
    from text2pde.data.clip import load_clip

    clip, frame = load_clip(options.clip), options.frame
    if frame >= len(clip.times):
        raise ValueError(
            f"--frame is {frame}; {options.clip} has frames from 0 to {len(clip.times) - 1}."
        )

    def request(_: Text2PDEPipeline) -> Request:
        from text2pde.pipeline import Request

        return Request(clip.scene, mesh=clip.mesh, first=clip.window(frame))

    found = generate_one(options, {"clip": f"{options.clip}, frame {frame}"}, request)
    print(_comparison(found, clip.window(frame)))


def _comparison(found: Clip, truth: Clip) -> str:
    """The error of a generated clip against the clip whose first frame it had."""
    import numpy as np

    from text2pde.data.statistics import relative_error

    count = min(len(found.times), len(truth.times))
    if count < 2:
        return "the clip has no later frame to compare with"
    ours, theirs = ((clip.times - clip.times[0])[:count] for clip in (found, truth))
    if np.abs(ours - theirs).max() > 0.1 * ours[1]:
        return "its frames are at other times than those of the clip, so they are not compared"
    real = truth.window(0, count)
    error = relative_error(found.fields[:count], real)
    still = relative_error(truth.fields[:1].repeat(count, axis=0), real)
    return (
        f"relative error over {count} frames: {error:.3f} (of the first frame, held constant: "
        f"{still:.3f})"
    )
