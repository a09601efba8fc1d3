"""Layer 0. Names of spacings: their aliases and parameters. It imports no torch.

What they mean is in :func:`samplers.make_grid`.
"""

from __future__ import annotations

import difflib
import math
from typing import NamedTuple

from samplers.choices import SPACINGS


class Parameter(NamedTuple):
    """A parameter of a spacing: its name, its default, and the open interval that it lies in."""

    name: str
    default: float
    above: float = 0.0
    below: float = math.inf


PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "karras": (Parameter("rho", 7.0),),
    "polyexponential": (Parameter("rho", 1.0),),
    "laplace": (Parameter("mu", 0.0, above=-math.inf), Parameter("beta", 0.5)),
    "vp": (Parameter("beta_d", 19.9), Parameter("beta_min", 0.1)),
    "beta": (Parameter("a", 0.6), Parameter("b", 0.6)),
    "linear-quadratic": (Parameter("threshold_noise", 0.025, below=0.5),),
}
"""The parameters of the spacings that have some, in the order in which they are written."""

_ALIASES = {
    "ddim": "ddim-uniform",
    "align-your-steps": "ays-sd",
    "ays": "ays-sd",
    "ays-sd1": "ays-sd",
    "align-your-steps-sd1": "ays-sd",
    "align-your-steps-sdxl": "ays-sdxl",
    "align-your-steps-svd": "ays-svd",
}


def find_spacing(name: str) -> str | None:
    """A name of :data:`samplers.choices.SPACINGS` by that or by an alias; None for another.

    Case, spaces, ``_`` and ``-`` do not matter: ``SGM Uniform`` and ``sgm_uniform`` are
    ``sgm-uniform``.
    """
    return _KNOWN.get(_squeezed(name))


def read_spacing(text: str) -> tuple[str, dict[str, float]]:
    """The name of a spacing and its parameters, as in ``karras`` and ``beta:0.5,0.7``.

    Those that are not written have their defaults. Raises ValueError for an unknown name, for a
    file, and for parameters that the spacing does not have or allow.
    """
    written, colon, values = str(text).partition(":")
    name = find_spacing(written)
    if written.endswith(".json"):
        raise ValueError(
            f"The grid is {text!r}; a file of a fitted grid is no name: load_grid reads it."
        )
    if name is None:
        near = difflib.get_close_matches(_squeezed(written), _KNOWN, n=1)
        hint = f"; did you mean {_KNOWN[near[0]]!r}?" if near else "."
        raise ValueError(f"The grid is {text!r}; it must be one of {', '.join(SPACINGS)}{hint}")
    known = PARAMETERS.get(name, ())
    given = values.split(",") if colon else []
    if len(given) > len(known):
        has = ", ".join(parameter.name for parameter in known) or "none"
        raise ValueError(f"The grid is {text!r}, but the parameters of {name!r} are {has}.")
    read = {p.name: _number(text, p, value) for p, value in zip(known, given, strict=False)}
    return name, {p.name: p.default for p in known} | read


def spacing_name(text: str) -> str:
    """A spacing by its own name, in place of an alias, with the parameters as they were written.

    Raises ValueError as :func:`read_spacing` does.
    """
    name, _ = read_spacing(text)
    _, colon, values = text.partition(":")
    return f"{name}{colon}{values}"


def _number(text: str, parameter: Parameter, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not parameter.above < number < parameter.below:
        raise ValueError(
            f"The parameter {parameter.name} of the grid {text!r} is {value!r}; it must "
            f"be a number between {parameter.above:g} and {parameter.below:g}."
        )
    return number


def _squeezed(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in " _-")


_KNOWN = {_squeezed(alias): name for alias, name in _ALIASES.items()} | {
    _squeezed(name): name for name in SPACINGS
}
