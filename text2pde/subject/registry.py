"""The table of subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from text2pde.subject.cylinder.captions import cylinder_caption, read_cylinder_flow
from text2pde.subject.cylinder.channel import CylinderFlow, cylinder_flow_from
from text2pde.subject.cylinder.family import CylinderFamily, sample_flows
from text2pde.subject.ranges import Range
from text2pde.subject.smoke.captions import plume_caption, read_plume
from text2pde.subject.smoke.family import SmokeFamily, sample_plumes
from text2pde.subject.smoke.plume import Plume

Scene = CylinderFlow | Plume
"""A case to solve: geometry, boundary conditions and parameters."""


class Subject(NamedTuple):
    """What a model is about.

    Attributes:
        caption: of a scene, with a seed that varies the wording.
        read: a prompt into a scene; ValueError if it can't be followed.
        ranges: of the scene's parameters in training, by name.
        sample: a number of scenes that fill these ranges evenly, with a seed.
    """

    caption: Callable[[Any, int], str]
    read: Callable[[str], Scene]
    ranges: Mapping[str, Range]
    sample: Callable[[int, int], Sequence[Scene]]


SUBJECTS = {
    "cylinder": Subject(
        cylinder_caption,
        read_cylinder_flow,
        CylinderFamily().ranges,
        partial(sample_flows, CylinderFamily()),
    ),
    "smoke": Subject(
        plume_caption, read_plume, SmokeFamily().ranges, partial(sample_plumes, SmokeFamily())
    ),
}


def subject_of(scene: Scene) -> str:
    """The name of a scene's subject."""
    return "cylinder" if isinstance(scene, CylinderFlow) else "smoke"


def caption(scene: Scene, seed: int = 0) -> str:
    """A caption that states all parameters of a scene; the seed varies its wording."""
    return SUBJECTS[subject_of(scene)].caption(scene, seed)


def read_prompt(prompt: str, subject: str = "cylinder") -> Scene:
    """The scene that a prompt describes.

    Raises:
        ValueError: if the prompt can't be followed; the message says what is missing.
    """
    return SUBJECTS[subject].read(prompt)


def scene_from(values: dict[str, Any]) -> Scene:
    """The inverse of ``dataclasses.asdict`` of a scene."""
    return cylinder_flow_from(values) if "channel" in values else Plume(**values)
