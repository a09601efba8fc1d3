"""Sentences about a flow past a cylinder, and the numbers in them.

A caption states the true numbers of its flow, with units and in varied words; a prompt may leave
some of them out. What can be read from a caption is what was written into it.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from text2pde.captions.reading import (
    BETWEEN,
    NUMBER,
    SPEED,
    length_of,
    place_of,
    quantity,
    radius_of,
    refuse_pair,
    refuse_unread,
    refuse_viscosity,
    stated,
)
from text2pde.channel import Channel, Flow

VISCOSITY = 1e-3
"""In m^2/s, of every flow that a sentence asks for."""
PLACE = (0.3, 0.2)
"""Of a cylinder of which a sentence does not say where it stands, in metres."""


class StatedNumbers(NamedTuple):
    """What a sentence says, in SI units; None where it says nothing."""

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


def caption(flow: Flow, seed: int = 0) -> str:
    """A sentence or two that state all numbers of a flow; other words for another seed."""
    chosen = random.Random(seed)
    channel = flow.channel
    kind, length = chosen.choice([("radius", channel.radius), ("diameter", channel.diameter)])
    words = {
        "fluid": chosen.choice(_FLUIDS),
        "size": f"{kind} {_length(length, chosen)}",
        "place": f"x = {_length(channel.x, chosen)}, y = {_length(channel.y, chosen)}",
        "speed": f"{flow.speed:.3f} m/s",
        "reynolds": f"{flow.reynolds:.1f}",
    }
    text = f"{chosen.choice(_OPENINGS)} {chosen.choice(_ENDINGS)}"
    return text.format(**words)


def _length(value: float, chosen: random.Random) -> str:
    unit, factor, digits = chosen.choice(_LENGTHS)
    return f"{value * factor:.{digits}f} {unit}"


_QUANTITIES = {
    "reynolds": quantity(
        "a Reynolds number",
        "Reynolds number 120",
        r"\breynolds|\bre\s*[=:]",
        rf"\b(?:reynolds(?:\s+number)?|re){BETWEEN}{NUMBER}",
    ),
    "speed": quantity(
        "a speed",
        "1.2 m/s",
        r"\d\s*(?:m|cm|mm|met(?:re|er)s?)(?:\s+per\s+|\s*/\s*)s|\b(?:speed|velocity)\s*[=:]",
        SPEED,
    ),
    "radius": length_of("radius", "a radius", "radius 0.05 m", r"\bradius\b"),
    "diameter": length_of("diameter", "a diameter", "diameter 10 cm", r"\bdiameter\b"),
    "x": place_of("x", "x = 0.3 m"),
    "y": place_of("y", "y = 0.2 m"),
}

_PEAK = re.compile(
    r"\b(?:peak|max\w*|cent(?:re|er)-?\s?line)\W+(?:\w+\W+)?(?:speed|velocity)\b", re.IGNORECASE
)


def read_numbers(sentence: str) -> StatedNumbers:
    """The numbers of a sentence, such as "radius 5 cm", "Re = 120" or "1.2 m/s".

    Raises ValueError if it names one of them without a number and a unit that can be read, or
    states a radius and a diameter that disagree, a viscosity, a place as a pair, the peak of the
    speed, or any other number than the size of the channel.
    """
    found = stated(_QUANTITIES, sentence)
    refuse_viscosity(sentence, VISCOSITY)
    refuse_pair(sentence, "x = 0.3 m, y = 0.2 m")
    _refuse_peak(sentence)
    refuse_unread(_QUANTITIES, sentence, (Channel.length, Channel.height))
    radius = radius_of(found)
    rest = {name: value for name, value in found.items() if name not in ("radius", "diameter")}
    return StatedNumbers(**rest, radius=radius)


def _refuse_peak(sentence: str) -> None:
    """Raise ValueError if a speed is said to be that of the middle of the inlet."""
    if _PEAK.search(sentence):
        raise ValueError(
            f"The prompt {sentence!r} names the greatest speed of the inlet, which is 3/2 of its "
            "mean; write the mean, as in '1.2 m/s'."
        )


def flow_of(sentence: str) -> Flow:
    """The flow that a sentence asks for.

    It must state the size of the cylinder, and the Reynolds number or the speed; if both, they must
    agree. Raises ValueError if it does not, or if the cylinder does not fit into the channel.
    """
    numbers = read_numbers(sentence)
    if numbers.radius is None:
        raise ValueError(
            f"The prompt {sentence!r} states no size of the cylinder; say for instance "
            "'radius 0.05 m'."
        )
    x, y = (
        default if said is None else said
        for said, default in zip((numbers.x, numbers.y), PLACE, strict=True)
    )
    channel = Channel(x, y, numbers.radius)
    return Flow(channel, _speed(numbers, channel, sentence), VISCOSITY)


def _speed(numbers: StatedNumbers, channel: Channel, sentence: str) -> float:
    if numbers.reynolds is None and numbers.speed is None:
        raise ValueError(
            f"The prompt {sentence!r} states neither a Reynolds number nor a speed; say for "
            "instance 'Reynolds number 120' or '1.2 m/s'."
        )
    if numbers.reynolds is None:
        assert numbers.speed is not None  # one of them is there
        return numbers.speed
    speed = numbers.reynolds * VISCOSITY / channel.diameter
    if numbers.speed is not None and abs(numbers.speed - speed) > 0.02 * speed:
        raise ValueError(
            f"A speed of {numbers.speed:g} m/s past a diameter of {channel.diameter:g} m has the "
            f"Reynolds number {numbers.speed * channel.diameter / VISCOSITY:.0f} at a viscosity of "
            f"{VISCOSITY:g} m^2/s, not {numbers.reynolds:g}; leave one of them away."
        )
    return speed
