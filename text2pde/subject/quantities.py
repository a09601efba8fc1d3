"""Physical quantities in prompts: numbers with units, read by regular expressions.

Only metric lengths and what is made of them occur, so that three factors suffice. A general parser
of units reads English too: to it, "in" is an inch and "at" an atmosphere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

# Not part of a longer number or of a power of ten, not one end of a range, not negative.
NUMBER = (
    r"(?<![\d.,+-])(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
    r"(?!\d|[.,]\d|k\b|e[+-]?\d|\s*(?:[-–±]|to\b|or\b)\s*\d|\s*[x×*]\s*10)"
)
BETWEEN = r"\s*(?:is|of|=|:|about|at)?\s*(?:about\s*)?"
SPEED = rf"{NUMBER}\s*(mm|cm|m)\s*/\s*s\b(?!\^|²)"
ACCELERATION = rf"{BETWEEN}{NUMBER}\s*(mm|cm|m)\s*/\s*s(?:\^2|²)"
_UNIT = r"\s*(mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?)\b(?!\s*/)"
_METRES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "mil": 1e-3, "cen": 1e-2, "met": 1.0}
"""By the first letters of a unit, three at most."""
_LENGTH = re.compile(NUMBER + _UNIT, re.IGNORECASE)
# Not part of a word or of a power such as m^2, and not a number of dimensions.
_ANY_NUMBER = re.compile(r"(?<![\w.,^])\d[\d.,]*(?!\d|-?d\b)", re.IGNORECASE)


class Quantity(NamedTuple):
    """A quantity that a prompt may state.

    Attributes:
        noun: with its article, for errors.
        example: of how to state it.
        mention: matches where the prompt speaks of the quantity.
        pattern: matches the statement; its groups are the number and, if it has one, the unit.
    """

    noun: str
    example: str
    mention: re.Pattern[str]
    pattern: re.Pattern[str]


def quantity(noun: str, example: str, mention: str, pattern: str) -> Quantity:
    """A quantity whose expressions ignore case."""
    return Quantity(
        noun, example, re.compile(mention, re.IGNORECASE), re.compile(pattern, re.IGNORECASE)
    )


def length(name: str, noun: str, example: str, mention: str) -> Quantity:
    """A length that follows its name."""
    return quantity(noun, example, mention, rf"\b{name}{BETWEEN}{NUMBER}{_UNIT}")


def coordinate(axis: str, example: str) -> Quantity:
    """A coordinate; ``x`` between two lengths is a multiplication sign instead."""
    name = rf"(?<!\d\s)(?<!\dm\s)(?<!\d\sm\s)(?<!\d[cm]m\s)(?<!\d\s[cm]m\s){axis}"
    return length(name, f"a coordinate {axis}", example, rf"\b{axis}\s*[=:]")


def read_quantities(quantities: Mapping[str, Quantity], prompt: str) -> dict[str, float | None]:
    """The value of each quantity in SI units, or None where the prompt does not state it.

    Raises:
        ValueError: if the prompt mentions a quantity without a number and unit that can be read,
            or states it twice.
    """
    return {name: _read(each, prompt) for name, each in quantities.items()}


def radius_from(values: Mapping[str, float | None]) -> float | None:
    """The radius, or half of the diameter.

    Raises:
        ValueError: if they disagree.
    """
    radius, diameter = values["radius"], values["diameter"]
    if diameter is None:
        return radius
    if radius is not None and abs(2 * radius - diameter) > 0.01 * diameter:
        raise ValueError(
            f"A radius of {radius:g} m has no diameter of {diameter:g} m; omit one of them."
        )
    return diameter / 2


def refuse_pair(prompt: str, example: str) -> None:
    """Raise ValueError if a prompt states a position as two numbers in brackets."""
    if re.search(r"\(\s*[\d.]+\s*[cm]*\s*,\s*[\d.]+", prompt):
        raise ValueError(
            f"The prompt {prompt!r} has two numbers in brackets; write a position as in "
            f"{example!r}."
        )


def refuse_viscosity(prompt: str, viscosity: float) -> None:
    """Raise ValueError if a prompt mentions the viscosity, which is fixed."""
    if re.search(r"\bviscosit", prompt, re.IGNORECASE):
        raise ValueError(f"The viscosity is always {viscosity:g} m^2/s; omit it from the prompt.")


def refuse_unread(quantities: Mapping[str, Quantity], prompt: str, sizes: Sequence[float]) -> None:
    """Raise ValueError if a prompt has a number that belongs to no quantity.

    Args:
        sizes: lengths in metres that it may state as well, because they are fixed.
    """
    stated = (each.pattern.finditer(prompt) for each in quantities.values())
    lengths = (match for match in _LENGTH.finditer(prompt) if _value(match) in sizes)
    read = [match.span() for match in chain(*stated, lengths)]
    for match in _ANY_NUMBER.finditer(prompt):
        if not any(start <= match.start() < end for start, end in read):
            examples = ", ".join(repr(each.example) for each in quantities.values())
            raise ValueError(
                f"The prompt {prompt!r} has the number {match[0].rstrip('.,')}, which no quantity "
                f"of the model explains; write numbers as in {examples}."
            )


def _read(quantity: Quantity, prompt: str) -> float | None:
    values = {_value(match) for match in quantity.pattern.finditer(prompt)}
    if len(values) > 1:
        both = " and ".join(f"{value:g}" for value in sorted(values))
        raise ValueError(
            f"The prompt {prompt!r} states {quantity.noun} twice, {both}; state it once."
        )
    if values:
        return values.pop()
    if quantity.mention.search(prompt):
        raise ValueError(
            f"The prompt {prompt!r} mentions {quantity.noun} without a number that can be read; "
            f"write it as in {quantity.example!r}."
        )
    return None


def _value(match: re.Match[str]) -> float:
    number, *unit = match.groups()
    return float(number) * (_METRES[unit[0][:3].lower()] if unit else 1.0)
