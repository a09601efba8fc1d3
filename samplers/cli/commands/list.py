"""``samplers list``: the registry as a table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from samplers.cli.arguments import Commands, add_command
from samplers.cli.text import aligned
from samplers.registry import PAIRS, Pair, Sampler, registry

_NOTES = """
order  of accuracy, on the probability-flow ODE (without its noise, if the sampler draws any)
noise  whether fresh noise is drawn, and the order that this leaves in the law / in the path
calls  network calls (NFE) of a full step; the last step, to sigma = 0, takes one
`samplers show NAME` has the whole reference, the options and the table.

Adaptive methods, for `samplers sample --tolerance`: each image has steps of its own. The order is
of the solution, and in brackets of the one that it is compared with.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``list``."""
    parser = add_command(commands, "list", "list every sampler with its order, cost and source")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const=_json, help="as JSON")
    form.add_argument(
        "--aliases", action="store_const", dest="form", const=_aliases, help="other names they have"
    )
    parser.set_defaults(form=_table, run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the registry."""
    print(arguments.form(list(registry().values()), PAIRS))
    return 0


def _json(samplers: Sequence[Sampler], pairs: Sequence[Pair]) -> str:
    rows = [_sampler_as_dict(sampler) for sampler in samplers]
    return json.dumps([*rows, *map(_pair_as_dict, pairs)], indent=2)


def _sampler_as_dict(sampler: Sampler) -> dict[str, Any]:
    fields = ("name", "order", "weak_order", "strong_order", "stochastic", "calls", "options")
    row = {name: getattr(sampler, name) for name in fields}
    row |= {"aliases": list(sampler.aliases), "reference": sampler.reference}
    return row | {"adaptive": False}


def _pair_as_dict(pair: Pair) -> dict[str, Any]:
    return {
        "name": pair.name,
        "order": pair.order,
        "calls": _calls(pair),
        "aliases": list(pair.aliases),
        "reference": pair.reference,
        "adaptive": True,
    }


def _table(samplers: Sequence[Sampler], pairs: Sequence[Pair]) -> str:
    head = ("name", "order", "noise", "calls", "reference")
    rows = [
        (
            sampler.name,
            f"{sampler.order:g}",
            _noise(sampler),
            f"{sampler.calls}",
            shorten(sampler.reference, 42, placeholder=" …", break_on_hyphens=False),
        )
        for sampler in samplers
    ]
    adaptive = [
        (pair.name, f"{pair.order} ({pair.order - 1})", f"{_calls(pair)}", pair.reference)
        for pair in pairs
    ]
    second = aligned([("name", "order", "calls", "reference"), *adaptive])
    return f"{aligned([head, *rows])}\n{_NOTES}\n{second}"


def _calls(pair: Pair) -> int:
    """Network calls of a step after the first."""
    return pair.calls - 1 if pair.keeps_last else pair.calls


def _noise(sampler: Sampler) -> str:
    if not sampler.stochastic:
        return "-"
    orders = (sampler.weak_order, sampler.strong_order)
    return " / ".join("-" if order is None else f"{order:g}" for order in orders)


def _aliases(samplers: Sequence[Sampler], pairs: Sequence[Pair]) -> str:
    named = [(sampler.name, sampler.aliases) for sampler in samplers]
    named += [(pair.name, pair.aliases) for pair in pairs]
    rows = [(name, ", ".join(aliases)) for name, aliases in named if aliases]
    return aligned([("name", "also known as"), *rows])
