"""First frame to flow: how far is what was drawn from what became of the frame?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from text2pde.evaluation.reconstruction import spread
from text2pde.evaluation.sentences import Numbers as Scaled
from text2pde.evaluation.sentences import nearest
from text2pde.flows.clip import Clip
from text2pde.flows.statistics import relative_error
from text2pde.mesh import Numbers
from text2pde.pipeline import Request
from text2pde.plume import Plume


class Frames(NamedTuple):
    """Relative errors over a clip, in the mean over clips.

    Attributes:
        drawn: of the model. still: of the first frame, as if it stayed. nearest: of the clip of the
            nearest flow of training, from its frame that is most like the first one.
    """

    drawn: float
    still: float
    nearest: float


def first_frames_of(clips: Sequence[Clip]) -> list[Request]:
    """The first frame of each clip, with the numbers of its flow, on its mesh."""
    return [Request(clip.flow, mesh=clip.mesh, first=clip) for clip in clips]


def evaluate_frames(
    drawn: Sequence[Clip], numbers: Scaled, held_out: Sequence[Clip], training: Sequence[Clip]
) -> Frames:
    """Compare what was drawn for :func:`first_frames_of` held-out clips."""
    found = []
    for clip, whole in zip(drawn, held_out, strict=True):
        truth = cut(whole, len(clip.times))
        still = truth.fields[:1].repeat(len(truth.times), axis=0)
        near = from_nearest(truth, nearest(truth.flow, training, numbers))
        found.append([relative_error(f, truth) for f in (clip.fields, still, near)])
    return Frames(*np.mean(found, axis=0).tolist())


def cut(clip: Clip, frames: int) -> Clip:
    """The first frames of a clip."""
    return clip._replace(times=clip.times[:frames], fields=clip.fields[:frames])


def from_nearest(truth: Clip, other: Clip) -> NDArray[np.float32]:
    """The flow of another clip at the nodes of this one, from the frame that is nearest on."""
    scale = np.array(truth.flow.units) / np.array(other.flow.units)
    values = rearrange(other.fields * scale, "f n c -> n (f c)")
    moved = spread(other.mesh.nodes, values, _alike(truth, other))
    fields = rearrange(moved, "n (f c) -> f n c", c=3).astype(np.float32)
    count = min(len(truth.fields), len(fields))
    starts = range(len(fields) - count + 1)
    first = min(starts, key=lambda at: float(np.square(fields[at] - truth.fields[0]).sum()))
    return fields[first : first + count]


def _alike(truth: Clip, other: Clip) -> Numbers:
    """Where in another clip the nodes of this one are: as seen from the cylinder, in its
    diameters, if there is one."""
    if isinstance(truth.flow, Plume) or isinstance(other.flow, Plume):
        return truth.mesh.nodes
    own, others = truth.flow.channel, other.flow.channel
    away = (truth.mesh.nodes - np.array([own.x, own.y])) / own.diameter
    found: Numbers = away * others.diameter + np.array([others.x, others.y])
    return found
