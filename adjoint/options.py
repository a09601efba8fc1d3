"""Settings that come as tables of plain values: known by name, of the right type, or one sentence.

What a table may hold is read from the type hints of what it is for, a function or a dataclass.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

REQUIRED = inspect.Parameter.empty
"""The default of an option that has none."""


class Option(NamedTuple):
    """The type of an option, such as ``float`` or ``list[int] | None``, and its default."""

    type: Any
    default: Any


def options_of(build: Callable[..., Any], skip: int = 0) -> dict[str, Option]:
    """What a function or a dataclass takes, but for its first so many parameters."""
    parameters = list(inspect.signature(build, eval_str=True).parameters.values())[skip:]
    return {p.name: Option(p.annotation, p.default) for p in parameters}


def chosen_options(
    subject: str, known: Mapping[str, Option], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """The options as they are written, each as its type wants it.

    Args:
        subject: what the errors call the owner of the options.

    Raises ValueError for an option that is not known, of a wrong type, or missing.
    """
    has = ", ".join(known) or "none"
    for name, value in chosen.items():
        if name not in known:
            hint = near(name, known, f"it has {has}.")
            raise ValueError(f"{subject} has no option {name!r}; {hint}")
        if not fits(value, known[name].type):
            raise ValueError(
                f"The option {name!r} of {lowered(subject)} is {value!r}; it must be "
                f"{in_words(known[name].type)}."
            )
    missing = [n for n, option in known.items() if option.default is REQUIRED and n not in chosen]
    if missing:
        kind = in_words(known[missing[0]].type)
        raise ValueError(f"{subject} needs the option {missing[0]!r}, {kind}; it has {has}.")
    return {name: converted(value, known[name].type) for name, value in chosen.items()}


def near(name: str, known: Iterable[str], otherwise: str) -> str:
    """Did you mean the nearest of what is known?"""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else otherwise


def lowered(subject: str) -> str:
    """The subject in the middle of a sentence."""
    return f"{subject[0].lower()}{subject[1:]}"


# ------------------------------------------------------------------------------------- types


def fits(value: object, kind: Any) -> bool:
    """Whether a plain value is of a type: a whole number is a number, a bool is neither."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and Ellipsis not in inner:
        return isinstance(value, list) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and type(value) is not bool and value == value
    if kind is Path:
        return isinstance(value, str)
    return type(value) is (origin or kind)


def converted(value: Any, kind: Any) -> Any:
    """A value that fits, as the type itself: texts become paths, lists become tuples."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return converted(value, next(one for one in inner if fits(value, one)))
    if origin is tuple:
        return tuple(converted(item, inner[0]) for item in value)
    return Path(value) if kind is Path else value


_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    tuple[int, ...]: "a list of whole numbers",
    tuple[str, ...]: "a list of texts",
    tuple[float, float]: "a list of two numbers",
    tuple[int, int]: "a list of two whole numbers",
}


def in_words(kind: Any) -> str:
    """What a value of the type looks like, for people who write a table."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(in_words(one) for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is Literal:
        return " or ".join(repr(value) for value in get_args(kind))
    return _WORDS.get(kind, "a table")
