"""Sentences about smoke that rises."""

from __future__ import annotations

import random

from text2pde.captions.reading import (
    ACCELERATION,
    length_of,
    place_of,
    quantity,
    radius_of,
    refuse_pair,
    refuse_unread,
    refuse_viscosity,
    stated,
)
from text2pde.plume import Plume

PLACE = (16.0, 8.0)
"""Of a cloud of which a sentence does not say where it is, in metres."""

_OPENINGS = (
    "A round cloud of smoke of {size} rises from {place}.",
    "Smoke rises in a closed box. At first it is a disc of {size} at {place}.",
    "A puff of warm smoke, {size}, begins to rise at {place}.",
)
_ENDINGS = (
    "Its buoyancy is {buoyancy}.",
    "It is lifted by a buoyancy of {buoyancy}.",
    "Buoyancy: {buoyancy}.",
)


def plume_caption(plume: Plume, seed: int = 0) -> str:
    """A sentence or two that state all numbers of a plume; other words for another seed."""
    chosen = random.Random(seed)
    kind, length = chosen.choice([("radius", plume.radius), ("diameter", 2 * plume.radius)])
    words = {
        "size": f"{kind} {length:.2f} m",
        "place": f"x = {plume.x:.2f} m, y = {plume.y:.2f} m",
        "buoyancy": f"{plume.buoyancy:.3f} m/s^2",
    }
    return f"{chosen.choice(_OPENINGS)} {chosen.choice(_ENDINGS)}".format(**words)


_QUANTITIES = {
    "buoyancy": quantity(
        "a buoyancy",
        "buoyancy 0.4 m/s^2",
        r"\bbuoyancy\b",
        rf"\bbuoyancy{ACCELERATION}",
    ),
    "radius": length_of("radius", "a radius", "radius 4 m", r"\bradius\b"),
    "diameter": length_of("diameter", "a diameter", "diameter 8 m", r"\bdiameter\b"),
    "x": place_of("x", "x = 16 m"),
    "y": place_of("y", "y = 8 m"),
}


def plume_of(sentence: str) -> Plume:
    """The plume that a sentence asks for.

    It must state the size of the cloud and its buoyancy. Raises ValueError if it does not, has a
    number that is not read, or if the cloud does not fit into the box.
    """
    found = stated(_QUANTITIES, sentence)
    refuse_viscosity(sentence, Plume.viscosity)
    refuse_pair(sentence, "x = 16 m, y = 8 m")
    refuse_unread(_QUANTITIES, sentence, (Plume.side,))
    radius = radius_of(found)
    if radius is None:
        raise ValueError(
            f"The prompt {sentence!r} states no size of the cloud; say for instance 'radius 4 m'."
        )
    if found["buoyancy"] is None:
        raise ValueError(
            f"The prompt {sentence!r} states no buoyancy; say for instance 'buoyancy 0.4 m/s^2'."
        )
    x, y = (
        default if said is None else said
        for said, default in zip((found["x"], found["y"]), PLACE, strict=True)
    )
    return Plume(x, y, radius, found["buoyancy"])
