"""The baseline of an evaluation: the training clip with the nearest parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from text2pde.data.clip import Clip
from text2pde.evaluation.reconstruction import interpolate
from text2pde.mesh import FloatArray
from text2pde.subject import Scene
from text2pde.subject.smoke.plume import Plume

ScaleParameters = Callable[[Scene], Sequence[float]]
"""The parameters of a scene, each scaled to its range in training."""


def nearest_clip(scene: Scene, clips: Sequence[Clip], scaled: ScaleParameters) -> Clip:
    """The clip whose scaled parameters are nearest to those of a scene."""
    own = np.array(scaled(scene))
    return min(clips, key=lambda clip: float(np.abs(own - np.array(scaled(clip.scene))).sum()))


def in_phase(truth: Clip, other: Clip) -> NDArray[np.float32]:
    """The fields of another clip on the mesh of ``truth``, from the frame that is most like its
    first one."""
    scale = np.array(truth.scene.units) / np.array(other.scene.units)
    values = rearrange(other.fields * scale, "f n c -> n (f c)")
    moved = interpolate(other.mesh.nodes, values, _corresponding(truth, other))
    fields = rearrange(moved, "n (f c) -> f n c", c=3).astype(np.float32)
    count = min(len(truth.fields), len(fields))
    starts = range(len(fields) - count + 1)
    first = min(starts, key=lambda at: float(np.square(fields[at] - truth.fields[0]).sum()))
    return fields[first : first + count]


def _corresponding(truth: Clip, other: Clip) -> FloatArray:
    """The points of another clip that correspond to the nodes of ``truth``: relative to the
    cylinder, in its diameters, if there is one."""
    if isinstance(truth.scene, Plume) or isinstance(other.scene, Plume):
        return truth.mesh.nodes
    own, others = truth.scene.channel, other.scene.channel
    away = (truth.mesh.nodes - np.array([own.x, own.y])) / own.diameter
    found: FloatArray = away * others.diameter + np.array([others.x, others.y])
    return found
