"""Does a flow that was drawn obey the equations? One of its frames is solved on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from text2pde.evaluation.frames import from_nearest
from text2pde.evaluation.sentences import Numbers, nearest
from text2pde.flows.clip import Clip
from text2pde.flows.simulate import continued
from text2pde.flows.statistics import relative_error

HALF_A_PERIOD = 9
"""Frames, of some 17 that a period has."""


class Continuation(NamedTuple):
    """Relative distances over half a period, medians over clips.

    Attributes:
        drawn: of what was drawn from what the equations make of its first frame. nearest: the same
            of the nearest flow of training, in phase, for comparison.
    """

    drawn: float
    nearest: float


def evaluate_continuation(
    clips: Sequence[Clip], numbers: Numbers, training: Sequence[Clip]
) -> Continuation:
    """Solve on from the first frame of each clip that was drawn.

    Raises DivergedError if what was drawn is so far from a flow that it can't be solved on from.
    """
    found = []
    for clip in clips:
        count = min(HALF_A_PERIOD, len(clip.times))
        solved = continued(clip, 0, count)
        near = from_nearest(solved, nearest(clip.flow, training, numbers))
        found.append([relative_error(f, solved) for f in (clip.fields[:count], near)])
    return Continuation(*np.median(found, axis=0).tolist())
