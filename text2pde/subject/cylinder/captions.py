"""Captions of flows past a cylinder, and the parameters that a prompt states.

A caption states all parameters of a flow, with units and in varied words, and reading it gives them
back, rounded; a prompt may omit some.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.subject.quantities import (
    BETWEEN,
    NUMBER,
    SPEED,
    coordinate,
    length,
    quantity,
    radius_from,
    read_quantities,
    refuse_pair,
    refuse_unread,
    refuse_viscosity,
)

VISCOSITY = 1e-3
"""Kinematic, in m^2/s, of every flow that a prompt describes."""
POSITION = (0.3, 0.2)
"""Of the cylinder if the prompt omits it, in metres."""


class StatedParameters(NamedTuple):
    """What a prompt states, in SI units; None where it states nothing."""

    reynolds: float | None = None
    speed: float | None = None
    radius: float | None = None
    x: float | None = None
    y: float | None = None


_FLUIDS = ("Fluid", "Water", "A liquid", "A viscous fluid")
_OPENINGS = (
    "{fluid} flows past a cylinder of {size} at {place}.",
    "{fluid} passes a round obstacle of {size}, centred at {place}.",
    "A cylinder of {size} stands in a channel at {place}. {fluid} streams around it.",
    "Flow around a circular cylinder of {size} at {place}.",
)
_ENDINGS = (
    "It enters with a mean speed of {speed}, at Reynolds number {reynolds}.",
    "The Reynolds number is {reynolds} and the inflow has a mean velocity of {speed}.",
    "The mean inlet velocity is {speed} (Re = {reynolds}).",
)
_LENGTHS = (("m", 1.0, 4), ("cm", 100.0, 2), ("mm", 1000.0, 1))


def cylinder_caption(flow: CylinderFlow, seed: int = 0) -> str:
    """A caption of one or two sentences, whose wording depends on the seed."""
    rng = random.Random(seed)
    channel = flow.channel
    kind, size = rng.choice([("radius", channel.radius), ("diameter", channel.diameter)])
    words = {
        "fluid": rng.choice(_FLUIDS),
        "size": f"{kind} {_length(size, rng)}",
        "place": f"x = {_length(channel.x, rng)}, y = {_length(channel.y, rng)}",
        "speed": f"{flow.speed:.3f} m/s",
        "reynolds": f"{flow.reynolds:.1f}",
    }
    text = f"{rng.choice(_OPENINGS)} {rng.choice(_ENDINGS)}"
    return text.format(**words)


def _length(value: float, rng: random.Random) -> str:
    unit, factor, digits = rng.choice(_LENGTHS)
    return f"{value * factor:.{digits}f} {unit}"


_QUANTITIES = {
    "reynolds": quantity(
        "a Reynolds number",
        "Reynolds number 120",
        r"\breynolds|\bre\s*[=:]",
        rf"\b(?:reynolds(?:\s+number)?|re){BETWEEN}{NUMBER}",
    ),
    "speed": quantity(
        "a velocity",
        "1.2 m/s",
        r"\d\s*(?:m|cm|mm|met(?:re|er)s?)(?:\s+per\s+|\s*/\s*)s|\b(?:speed|velocity)\s*[=:]",
        SPEED,
    ),
    "radius": length("radius", "a radius", "radius 0.05 m", r"\bradius\b"),
    "diameter": length("diameter", "a diameter", "diameter 10 cm", r"\bdiameter\b"),
    "x": coordinate("x", "x = 0.3 m"),
    "y": coordinate("y", "y = 0.2 m"),
}

_MAXIMUM = re.compile(
    r"\b(?:peak|max\w*|cent(?:re|er)-?\s?line)\W+(?:\w+\W+)?(?:speed|velocity)\b", re.IGNORECASE
)


def read_parameters(prompt: str) -> StatedParameters:
    """The parameters that a prompt states, as in "radius 5 cm", "Re = 120" or "1.2 m/s".

    Raises:
        ValueError: if it mentions one of them without a number and unit that can be read, or
            states a radius and a diameter that disagree, a viscosity, a position as a pair, the
            maximum of the inlet velocity, or any number but these and the size of the channel.
    """
    values = read_quantities(_QUANTITIES, prompt)
    refuse_viscosity(prompt, VISCOSITY)
    refuse_pair(prompt, "x = 0.3 m, y = 0.2 m")
    _refuse_maximum(prompt)
    refuse_unread(_QUANTITIES, prompt, (Channel.length, Channel.height))
    radius = radius_from(values)
    rest = {name: value for name, value in values.items() if name not in ("radius", "diameter")}
    return StatedParameters(**rest, radius=radius)


def _refuse_maximum(prompt: str) -> None:
    """Raise ValueError if a prompt states the maximum of the inlet profile."""
    if _MAXIMUM.search(prompt):
        raise ValueError(
            f"The prompt {prompt!r} states the maximum of the inlet velocity, which is 3/2 of its "
            "mean; write the mean, as in '1.2 m/s'."
        )


def read_cylinder_flow(prompt: str) -> CylinderFlow:
    """The flow that a prompt describes.

    It must state the size of the cylinder, and the Reynolds number or the mean inlet velocity; if
    both, they must agree.

    Raises:
        ValueError: if it does not, see :func:`read_parameters`, or if the cylinder does not fit
            into the channel.
    """
    stated = read_parameters(prompt)
    if stated.radius is None:
        raise ValueError(
            f"The prompt {prompt!r} states no size of the cylinder; write for instance "
            "'radius 0.05 m'."
        )
    x, y = (
        default if value is None else value
        for value, default in zip((stated.x, stated.y), POSITION, strict=True)
    )
    channel = Channel(x, y, stated.radius)
    return CylinderFlow(channel, _speed(stated, channel, prompt), VISCOSITY)


def _speed(stated: StatedParameters, channel: Channel, prompt: str) -> float:
    if stated.reynolds is None and stated.speed is None:
        raise ValueError(
            f"The prompt {prompt!r} states neither a Reynolds number nor a velocity; write for "
            "instance 'Reynolds number 120' or '1.2 m/s'."
        )
    if stated.reynolds is None:
        assert stated.speed is not None  # one of them is given
        return stated.speed
    speed = stated.reynolds * VISCOSITY / channel.diameter
    if stated.speed is not None and abs(stated.speed - speed) > 0.02 * speed:
        raise ValueError(
            f"A velocity of {stated.speed:g} m/s past a diameter of {channel.diameter:g} m has the "
            f"Reynolds number {stated.speed * channel.diameter / VISCOSITY:.0f} at a viscosity of "
            f"{VISCOSITY:g} m^2/s, not {stated.reynolds:g}; omit one of them."
        )
    return speed
