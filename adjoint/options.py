"""Options that come from files and command lines: typed by a signature, validated by pydantic.

What may be set is read from the type hints of a function or a dataclass. Types are strict, as in
JSON: a whole number is a number and a list may become a tuple, but no text becomes a number.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

Built = TypeVar("Built")


def options_of(build: Callable[..., Any], skip: int = 0) -> dict[str, FieldInfo]:
    """The options of a function or a dataclass by name, without its first ``skip`` parameters."""
    return _model_of(build, skip).model_fields


def construct(subject: str, build: Callable[..., Built], values: Mapping[str, Any]) -> Built:
    """``build(**values)`` with validated values; ValueError as of :func:`validated`."""
    return build(**validated(subject, build, values))


def validated(
    subject: str, build: Callable[..., Any], values: Mapping[str, Any], skip: int = 0
) -> dict[str, Any]:
    """The values, each converted to the type that ``build`` declares.

    Args:
        subject: what an error calls the owner of the options, such as ``[training]``.
        skip: this many first parameters of ``build`` are no options.

    Raises ValueError, in one sentence, for an option that is unknown, missing or of a wrong type.
    """
    model = _model_of(build, skip)
    try:
        found = model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ValueError(_sentence(subject, error, model)) from None
    return {name: getattr(found, name) for name in found.model_fields_set}


def did_you_mean(name: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """A suggestion of the nearest known name, or ``otherwise`` if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else otherwise


def _model_of(build: Callable[..., Any], skip: int) -> type[BaseModel]:
    parameters = list(inspect.signature(build, eval_str=True).parameters.values())[skip:]
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default) for p in parameters
    }
    config = ConfigDict(extra="forbid", strict=True)
    return create_model(build.__name__, __config__=config, **fields)


def _sentence(subject: str, error: ValidationError, model: type[BaseModel]) -> str:
    """The first error as a sentence: what came, what is allowed, what to do."""
    errors = error.errors(include_url=False)
    first, known = errors[0], model.model_fields
    name = str(first["loc"][0])
    has = f"it has {', '.join(known) or 'none'}"
    if first["type"] == "extra_forbidden":
        return f"{subject} has no option {name!r}; {did_you_mean(name, known, f'{has}.')}"
    if first["type"] == "missing":
        kind = inspect.formatannotation(known[name].annotation)
        return f"{subject} lacks the option {name!r}; set it to a value of type {kind} ({has})."
    items = "".join(f"[{part}]" for part in first["loc"][1:] if isinstance(part, int))
    # A union has an error for each of its types.
    reasons = [e["msg"] for e in errors if e["loc"][0] == name]
    allowed = " or ".join(dict.fromkeys(r.removeprefix("Input should be ") for r in reasons))
    return f"{subject} has {name}{items} = {first['input']!r}; it must be {allowed}."
