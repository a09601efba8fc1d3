"""Sentences about a flow, and the numbers in a sentence.

A caption states the true numbers of its flow, with units and in varied words; a prompt may leave
some of them out. What can be read from a caption is what was written into it.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

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


# ------------------------------------------------------------------------------------- writing


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


# ------------------------------------------------------------------------------------- reading


_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)(?![\d,]\d)"
_BETWEEN = r"\s*(?:is|of|=|:|about|at)?\s*(?:about\s*)?"
_UNIT = r"\s*(mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?)\b(?!\s*/)"
_PER_SECOND = r"\s*(mm|cm|m)\s*/\s*s\b"
_SCALES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}


class _Quantity(NamedTuple):
    """A number that a sentence may state.

    called: in an error; written: an example.
    word: what says that the number should follow; number: where it does.
    """

    called: str
    written: str
    word: re.Pattern[str]
    number: re.Pattern[str]


def _quantity(called: str, written: str, word: str, number: str) -> _Quantity:
    return _Quantity(
        called, written, re.compile(word, re.IGNORECASE), re.compile(number, re.IGNORECASE)
    )


def _length_of(name: str, called: str, written: str, word: str) -> _Quantity:
    return _quantity(called, written, word, rf"\b{name}{_BETWEEN}{_NUMBER}{_UNIT}")


_QUANTITIES = {
    "reynolds": _quantity(
        "a Reynolds number",
        "Reynolds number 120",
        r"\breynolds|\bre\s*[=:]",
        rf"\b(?:reynolds(?:\s+number)?|re){_BETWEEN}{_NUMBER}",
    ),
    "speed": _quantity(
        "a speed",
        "1.2 m/s",
        r"\d\s*(?:m|cm|mm|met(?:re|er)s?)\s+per\s+s|\b(?:speed|velocity)\s*[=:]",
        rf"{_NUMBER}{_PER_SECOND}",
    ),
    "radius": _length_of("radius", "a radius", "radius 0.05 m", r"\bradius\b"),
    "diameter": _length_of("diameter", "a diameter", "diameter 10 cm", r"\bdiameter\b"),
    "x": _length_of("x", "a place x", "x = 0.3 m", r"\bx\s*[=:]"),
    "y": _length_of("y", "a place y", "y = 0.2 m", r"\by\s*[=:]"),
}


def read_numbers(sentence: str) -> StatedNumbers:
    """The numbers of a sentence, such as "radius 5 cm", "Re = 120" or "1.2 m/s".

    Raises ValueError if it names one of them without a number and a unit that can be read, or
    states a radius and a diameter that disagree, or a viscosity.
    """
    found = {name: _stated(quantity, sentence) for name, quantity in _QUANTITIES.items()}
    if re.search(r"\bviscosit", sentence, re.IGNORECASE):
        raise ValueError(
            f"The viscosity is always {VISCOSITY:g} m^2/s; leave it out of the prompt."
        )
    diameter = found.pop("diameter")
    if diameter is not None:
        if found["radius"] is not None and abs(2 * found["radius"] - diameter) > 0.01 * diameter:
            raise ValueError(
                f"A radius of {found['radius']:g} m has no diameter of {diameter:g} m; leave one "
                "of them away."
            )
        found["radius"] = diameter / 2
    return StatedNumbers(**found)


def _stated(quantity: _Quantity, sentence: str) -> float | None:
    match = quantity.number.search(sentence)
    if match is not None:
        number, *unit = match.groups()
        return float(number) * (_scale(unit[0]) if unit else 1.0)
    if quantity.word.search(sentence):
        raise ValueError(
            f"The prompt {sentence!r} names {quantity.called} without a number that can be read; "
            f"write it as in {quantity.written!r}."
        )
    return None


def _scale(unit: str) -> float:
    short = unit.lower()
    long = {"mil": "mm", "cen": "cm", "met": "m"}
    return _SCALES[long.get(short[:3], short)]


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
