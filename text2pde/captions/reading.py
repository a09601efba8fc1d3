"""Numbers with units in a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

# Neither a part of a longer number or of a power of ten, nor one end of a range, nor negative.
NUMBER = (
    r"(?<![\d.,+-])(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
    r"(?!\d|[.,]\d|k\b|e[+-]?\d|\s*(?:[-–±]|to\b|or\b)\s*\d|\s*[x×*]\s*10)"
)
BETWEEN = r"\s*(?:is|of|=|:|about|at)?\s*(?:about\s*)?"
_UNIT = r"\s*(mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?)\b(?!\s*/)"
SPEED = rf"{NUMBER}\s*(mm|cm|m)\s*/\s*s\b(?!\^|²)"
ACCELERATION = rf"{BETWEEN}{NUMBER}\s*(mm|cm|m)\s*/\s*s(?:\^2|²)"
_SCALES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}
_LENGTH = re.compile(NUMBER + _UNIT, re.IGNORECASE)
# Neither a part of a word or a power, such as m^2, nor a number of dimensions.
_FIGURES = re.compile(r"(?<![\w.,^])\d[\d.,]*(?!\d|-?d\b)", re.IGNORECASE)


class Quantity(NamedTuple):
    """A number that a sentence may state.

    Attributes:
        called: in an error; written: an example.
        word: what says that the number should follow; number: where it does.
    """

    called: str
    written: str
    word: re.Pattern[str]
    number: re.Pattern[str]


def quantity(called: str, written: str, word: str, number: str) -> Quantity:
    """A quantity, of expressions that read large and small letters alike."""
    return Quantity(
        called, written, re.compile(word, re.IGNORECASE), re.compile(number, re.IGNORECASE)
    )


def length_of(name: str, called: str, written: str, word: str) -> Quantity:
    """A length that follows its name."""
    return quantity(called, written, word, rf"\b{name}{BETWEEN}{NUMBER}{_UNIT}")


def stated(quantities: Mapping[str, Quantity], sentence: str) -> dict[str, float | None]:
    """What a sentence says of each quantity, in SI units; None where it says nothing.

    Raises ValueError if it names one without a number and a unit that can be read.
    """
    return {name: _stated(each, sentence) for name, each in quantities.items()}


def radius_of(found: Mapping[str, float | None]) -> float | None:
    """A radius, or half of a diameter; ValueError if they disagree."""
    radius, diameter = found["radius"], found["diameter"]
    if diameter is None:
        return radius
    if radius is not None and abs(2 * radius - diameter) > 0.01 * diameter:
        raise ValueError(
            f"A radius of {radius:g} m has no diameter of {diameter:g} m; leave one of them away."
        )
    return diameter / 2


def place_of(axis: str, written: str) -> Quantity:
    """A place along an axis, whose name is not the sign between two numbers."""
    name = rf"(?<!\d\s)(?<!\dm\s)(?<!\d\sm\s)(?<!\d[cm]m\s)(?<!\d\s[cm]m\s){axis}"
    return length_of(name, f"a place {axis}", written, rf"\b{axis}\s*[=:]")


def refuse_pair(sentence: str, written: str) -> None:
    """Raise ValueError if a sentence states a place as two numbers in brackets."""
    if re.search(r"\(\s*[\d.]+\s*[cm]*\s*,\s*[\d.]+", sentence):
        raise ValueError(
            f"The prompt {sentence!r} has two numbers in brackets; write a place as in {written!r}."
        )


def refuse_viscosity(sentence: str, viscosity: float) -> None:
    """Raise ValueError if a sentence names the viscosity, which is always the same."""
    if re.search(r"\bviscosit", sentence, re.IGNORECASE):
        raise ValueError(
            f"The viscosity is always {viscosity:g} m^2/s; leave it out of the prompt."
        )


def refuse_unread(
    quantities: Mapping[str, Quantity], sentence: str, sizes: Sequence[float]
) -> None:
    """Raise ValueError if a sentence has a number that is of no quantity.

    Args:
        sizes: lengths in metres that it may state as well, because they are always the same.
    """
    numbers = (each.number.finditer(sentence) for each in quantities.values())
    lengths = (match for match in _LENGTH.finditer(sentence) if _value(match) in sizes)
    read = [match.span() for match in chain(*numbers, lengths)]
    for match in _FIGURES.finditer(sentence):
        if not any(first <= match.start() < end for first, end in read):
            examples = ", ".join(repr(each.written) for each in quantities.values())
            raise ValueError(
                f"The prompt {sentence!r} has the number {match[0].rstrip('.,')}, which nothing is "
                f"drawn by; it may have numbers as in {examples}."
            )


def _stated(quantity: Quantity, sentence: str) -> float | None:
    said = {_value(match) for match in quantity.number.finditer(sentence)}
    if len(said) > 1:
        both = " and ".join(f"{value:g}" for value in sorted(said))
        raise ValueError(f"The prompt {sentence!r} states {quantity.called} twice, {both}.")
    if said:
        return said.pop()
    if quantity.word.search(sentence):
        raise ValueError(
            f"The prompt {sentence!r} names {quantity.called} without a number that can be read; "
            f"write it as in {quantity.written!r}."
        )
    return None


def _value(match: re.Match[str]) -> float:
    number, *unit = match.groups()
    return float(number) * (_scale(unit[0]) if unit else 1.0)


def _scale(unit: str) -> float:
    short = unit.lower()
    long = {"mil": "mm", "cen": "cm", "met": "m"}
    return _SCALES[long.get(short[:3], short)]
