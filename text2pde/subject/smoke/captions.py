"""Captions of rising smoke, and the parameters that a prompt states."""

from __future__ import annotations

import random

from text2pde.subject.quantities import (
    ACCELERATION,
    coordinate,
    length,
    quantity,
    radius_from,
    read_quantities,
    refuse_pair,
    refuse_unread,
    refuse_viscosity,
)
from text2pde.subject.smoke.plume import Plume

POSITION = (16.0, 8.0)
"""Of the cloud if the prompt omits it, in metres."""

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
    """A caption of one or two sentences, whose wording depends on the seed."""
    rng = random.Random(seed)
    kind, size = rng.choice([("radius", plume.radius), ("diameter", 2 * plume.radius)])
    words = {
        "size": f"{kind} {size:.2f} m",
        "place": f"x = {plume.x:.2f} m, y = {plume.y:.2f} m",
        "buoyancy": f"{plume.buoyancy:.3f} m/s^2",
    }
    return f"{rng.choice(_OPENINGS)} {rng.choice(_ENDINGS)}".format(**words)


_QUANTITIES = {
    "buoyancy": quantity(
        "a buoyancy", "buoyancy 0.4 m/s^2", r"\bbuoyancy\b", rf"\bbuoyancy{ACCELERATION}"
    ),
    "radius": length("radius", "a radius", "radius 4 m", r"\bradius\b"),
    "diameter": length("diameter", "a diameter", "diameter 8 m", r"\bdiameter\b"),
    "x": coordinate("x", "x = 16 m"),
    "y": coordinate("y", "y = 8 m"),
}


def read_plume(prompt: str) -> Plume:
    """The plume that a prompt describes.

    Raises:
        ValueError: unless it states the size of the cloud and its buoyancy, if it has a number
            that can't be read, or if the cloud does not fit into the box.
    """
    values = read_quantities(_QUANTITIES, prompt)
    refuse_viscosity(prompt, Plume.viscosity)
    refuse_pair(prompt, "x = 16 m, y = 8 m")
    refuse_unread(_QUANTITIES, prompt, (Plume.side,))
    radius = radius_from(values)
    if radius is None:
        raise ValueError(
            f"The prompt {prompt!r} states no size of the cloud; write for instance 'radius 4 m'."
        )
    if values["buoyancy"] is None:
        raise ValueError(
            f"The prompt {prompt!r} states no buoyancy; write for instance 'buoyancy 0.4 m/s^2'."
        )
    x, y = (
        default if value is None else value
        for value, default in zip((values["x"], values["y"]), POSITION, strict=True)
    )
    return Plume(x, y, radius, values["buoyancy"])
