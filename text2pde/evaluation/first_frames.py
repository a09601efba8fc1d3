"""First frame to solution: how far what is generated is from the solution of the same initial
condition, and how well a generated clip obeys the equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from text2pde.data.clip import Clip
from text2pde.data.statistics import relative_error
from text2pde.evaluation.baselines import ScaleParameters, in_phase, nearest_clip
from text2pde.pipeline import Request
from text2pde.solver.simulation import continued

_HALF_PERIOD = 9
"""Of vortex shedding, in frames."""


class FirstFrameErrors(NamedTuple):
    """Relative errors over a clip, mean over clips.

    Attributes:
        generated: of the model.
        still: of the first frame, repeated.
        nearest: of the training clip with the nearest parameters, in phase.
    """

    generated: float
    still: float
    nearest: float


class ContinuationErrors(NamedTuple):
    """Relative distances over half a period to the solution that starts at a generated frame,
    medians over clips.

    Attributes:
        generated: of the generated clip.
        nearest: of the training clip with the nearest parameters, in phase.
    """

    generated: float
    nearest: float


def first_frame_requests(clips: Sequence[Clip]) -> list[Request]:
    """The first frame of each clip, with the parameters of its scene, on its mesh."""
    return [Request(clip.scene, mesh=clip.mesh, first=clip) for clip in clips]


def evaluate_first_frames(
    generated: Sequence[Clip],
    scaled: ScaleParameters,
    held_out: Sequence[Clip],
    training: Sequence[Clip],
) -> FirstFrameErrors:
    """Compare what was generated for :func:`first_frame_requests` of held-out clips."""
    found = []
    for clip, whole in zip(generated, held_out, strict=True):
        truth = whole.window(0, len(clip.times))
        still = truth.fields[:1].repeat(len(truth.times), axis=0)
        near = in_phase(truth, nearest_clip(truth.scene, training, scaled))
        found.append([relative_error(f, truth) for f in (clip.fields, still, near)])
    return FirstFrameErrors(*np.mean(found, axis=0).tolist())


def evaluate_continuation(
    generated: Sequence[Clip], scaled: ScaleParameters, training: Sequence[Clip]
) -> ContinuationErrors:
    """Solve the equations from the first frame of each generated clip on.

    Raises:
        DivergedError: if a frame is so far from a solution that the solver diverges.
    """
    found = []
    for clip in generated:
        count = min(_HALF_PERIOD, len(clip.times))
        solved = continued(clip, 0, count)
        near = in_phase(solved, nearest_clip(clip.scene, training, scaled))
        found.append([relative_error(f, solved) for f in (clip.fields[:count], near)])
    return ContinuationErrors(*np.median(found, axis=0).tolist())
