"""What a model can be about: how its sentences are written and read, and on which mesh it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from text2pde.captions.channel import caption, flow_of
from text2pde.captions.plume import plume_caption, plume_of
from text2pde.channel import Flow
from text2pde.flows.cylinder import Family
from text2pde.flows.smoke import SmokeFamily, plume_mesh
from text2pde.mesh import Mesh
from text2pde.scene import Scene
from text2pde.solver.meshing import triangulate


class Subject(NamedTuple):
    """One of them.

    Attributes:
        caption: of a scene, in words that follow from a seed. read: a sentence. mesh: that a scene
            has unless one is given. ranges: from where to where the numbers of a scene go in
            training.
    """

    caption: Callable[[Any, int], str]
    read: Callable[[str], Scene]
    mesh: Callable[[Any], Mesh]
    ranges: Mapping[str, tuple[float, float]]


SUBJECTS = {
    "cylinder": Subject(caption, flow_of, lambda flow: triangulate(flow.channel), Family().ranges),
    "smoke": Subject(plume_caption, plume_of, plume_mesh, SmokeFamily().ranges),
}


def subject_of(scene: Scene) -> str:
    """The name of a scene's subject."""
    return "cylinder" if isinstance(scene, Flow) else "smoke"
