"""``samplers list``: the registry as a table."""

from __future__ import annotations

import argparse
import json
from typing import Any

from samplers.cli.arguments import Commands, add_command
from samplers.cli.text import aligned
from samplers.registry import Sampler, registry

_NOTES = """
order  of accuracy, on the probability-flow ODE (without its noise, if the sampler draws any)
noise  whether fresh noise is drawn, and the order that this leaves in the law / in the path
calls  network calls (NFE) of a full step; the last step, to sigma = 0, takes one"""


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
    print(arguments.form(list(registry().values())))
    return 0


def _json(samplers: list[Sampler]) -> str:
    return json.dumps([as_dict(sampler) for sampler in samplers], indent=2)


def as_dict(sampler: Sampler) -> dict[str, Any]:
    """A row of the registry, as plain data."""
    fields = ("name", "order", "weak_order", "strong_order", "stochastic", "calls", "options")
    row = {name: getattr(sampler, name) for name in fields}
    return row | {"aliases": list(sampler.aliases), "reference": sampler.reference}


def _table(samplers: list[Sampler]) -> str:
    head = ("name", "order", "noise", "calls", "reference")
    rows = [
        (
            sampler.name,
            f"{sampler.order:g}",
            _noise(sampler),
            f"{sampler.calls}",
            sampler.reference,
        )
        for sampler in samplers
    ]
    return aligned([head, *rows]) + "\n" + _NOTES


def _noise(sampler: Sampler) -> str:
    if not sampler.stochastic:
        return "-"
    orders = (sampler.weak_order, sampler.strong_order)
    return " / ".join("-" if order is None else f"{order:g}" for order in orders)


def _aliases(samplers: list[Sampler]) -> str:
    rows = [(sampler.name, ", ".join(sampler.aliases)) for sampler in samplers if sampler.aliases]
    return aligned([("name", "also known as"), *rows])
