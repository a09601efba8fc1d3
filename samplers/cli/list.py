"""``samplers list``: the registry as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from samplers.cli.common.errors import Failure
from samplers.cli.common.program import Options, argument, command, option
from samplers.cli.common.text import aligned
from samplers.cli.common.values import PATH

if TYPE_CHECKING:
    from samplers.registry import AdaptiveSampler, Sampler
    from samplers.tuning import TunedSampler

_NOTES = """
order  of accuracy on the probability-flow ODE (of a stochastic sampler: without its noise)
       (0 for lcm, tcd and consistency, which need a network distilled for them)
noise  of stochastic samplers, the weak and the strong order (of distributions, of paths)
NFE    network evaluations of a full step; the last step, to sigma = 0, takes one
`samplers show NAME` prints equation, reference, options and tableau.

Adaptive methods, for `samplers sample --tolerance`, choose the step size for each image. The order
is that of the solution, and in brackets that of the solution it is compared with.
"""


class ListOptions(Options):
    folder: Path | None = argument(
        "[FOLDER]", type=PATH, required=False, help="Folder of tuned samplers, to list instead."
    )
    json: bool = option(is_flag=True, help="Print JSON, with all facts of each sampler.")
    aliases: bool = option(
        is_flag=True, help="List the aliases of each sampler.", excludes=["--json"]
    )


@command()
def run(options: ListOptions) -> None:
    """List all samplers with their order, cost and reference; or the tuned ones of a folder."""
    from samplers.registry import adaptive_registry, registry

    if options.folder is not None:
        _list_tuned(options, options.folder)
        return
    fixed, adaptive = registry().values(), adaptive_registry().values()
    if options.json:
        print(json.dumps([*map(_facts, fixed), *map(_adaptive_facts, adaptive)], indent=2))
    elif options.aliases:
        rows = [(own.name, ", ".join(own.aliases)) for own in (*fixed, *adaptive) if own.aliases]
        print(aligned([("name", "also known as"), *rows]))
    else:
        print(f"{_fixed_table(fixed)}\n{_NOTES}\n{_adaptive_table(adaptive)}")


def _list_tuned(options: ListOptions, folder: Path) -> None:
    """Print the tuned samplers of a folder, by file; other files are passed over."""
    if options.aliases:
        raise ValueError("Tuned samplers have no aliases; omit --aliases, or the folder.")
    from samplers.cli.common.tuned import tuned_in

    found = tuned_in(folder)
    if not found:
        raise Failure(f"There is no tuned sampler in {folder}; `samplers tune` writes some.")
    if options.json:
        facts = [{"name": str(path), "nfe": own.nfe, **own.about} for path, own in found.items()]
        print(json.dumps(facts, indent=2))
        return
    rows = [(str(path), *_scores(own)) for path, own in found.items()]
    head = ("file", "NFE", "guidance", "error", "untuned", "conditions")
    print(f"{aligned([head, *rows])}\n{_TUNED_NOTES}")


_TUNED_NOTES = """
error    geometric mean of the relative errors of held-out samples
untuned  the same of the best sampler of the registry, where it started
`samplers show FILE` prints what it was tuned for, and its numbers."""


def _scores(tuned: TunedSampler) -> tuple[str, ...]:
    about = tuned.about
    before, after = (about[name]["geometric_mean"] for name in ("before", "after"))
    words = shorten(about["conditions"], 40, placeholder=" …")
    return (f"{tuned.nfe}", f"{about['guidance']:g}", f"{after:.3g}", f"{before:.3g}", words)


def _facts(sampler: Sampler) -> dict[str, Any]:
    fields = ("name", "order", "weak_order", "strong_order", "stochastic", "calls", "options",
              "aliases", "distilled", "reference")  # fmt: skip
    return {name: getattr(sampler, name) for name in fields} | {"adaptive": False}


def _adaptive_facts(sampler: AdaptiveSampler) -> dict[str, Any]:
    return {
        "name": sampler.name,
        "order": sampler.order,
        "calls": _nfe(sampler),
        "aliases": sampler.aliases,
        "reference": sampler.reference,
        "adaptive": True,
    }


def _fixed_table(samplers: Iterable[Sampler]) -> str:
    rows = [
        (
            sampler.name,
            f"{sampler.order:g}",
            _noise(sampler),
            f"{sampler.calls}",
            shorten(sampler.reference, 43, placeholder=" …", break_on_hyphens=False),
        )
        for sampler in samplers
    ]
    return aligned([("name", "order", "noise", "NFE", "reference"), *rows])


def _adaptive_table(samplers: Iterable[AdaptiveSampler]) -> str:
    rows = [
        (own.name, f"{own.order} ({own.order - 1})", f"{_nfe(own)}", own.reference)
        for own in samplers
    ]
    return aligned([("name", "order", "NFE", "reference"), *rows])


def _nfe(sampler: AdaptiveSampler) -> int:
    """Network evaluations of a step after the first."""
    return sampler.calls - 1 if sampler.keeps_last else sampler.calls


def _noise(sampler: Sampler) -> str:
    if not sampler.stochastic:
        return "-"
    orders = (sampler.weak_order, sampler.strong_order)
    return " / ".join("-" if order is None else f"{order:g}" for order in orders)
