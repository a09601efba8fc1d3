"""``samplers list``: the registry as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from samplers.cli.common.errors import Failure
from samplers.cli.common.program import Options, argument, command, option
from samplers.cli.common.text import aligned
from samplers.cli.common.values import PATH

if TYPE_CHECKING:
    from samplers.cli.common.tuned import Kept
    from samplers.fitting import FittedGrid
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
        "[FOLDER]",
        type=PATH,
        required=False,
        help="Folder of tuned samplers and fitted grids, to list instead.",
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
        _list_kept(options, options.folder)
        return
    fixed, adaptive = registry().values(), adaptive_registry().values()
    if options.json:
        print(json.dumps([*map(_facts, fixed), *map(_adaptive_facts, adaptive)], indent=2))
    elif options.aliases:
        rows = [(own.name, ", ".join(own.aliases)) for own in (*fixed, *adaptive) if own.aliases]
        print(aligned([("name", "also known as"), *rows]))
    else:
        print(f"{_fixed_table(fixed)}\n{_NOTES}\n{_adaptive_table(adaptive)}")


def _list_kept(options: ListOptions, folder: Path) -> None:
    """Print the tuned samplers and the fitted grids of a folder, by file."""
    if options.aliases:
        raise ValueError("Files have no aliases; omit --aliases, or the folder.")
    from samplers.cli.common.tuned import kept_in
    from samplers.fitting import FittedGrid

    found = kept_in(folder)
    if not found:
        raise Failure(
            f"There is no tuned sampler and no fitted grid in {folder}; `samplers tune` and "
            "`samplers fit-grid` write some."
        )
    if options.json:
        print(json.dumps([_kept_facts(path, own) for path, own in found.items()], indent=2))
        return
    grids = {path: own for path, own in found.items() if isinstance(own, FittedGrid)}
    tuned = {path: own for path, own in found.items() if not isinstance(own, FittedGrid)}
    tables = [_tuned_table(tuned)] * bool(tuned) + [_grid_table(grids)] * bool(grids)
    print("\n\n".join([*tables, _KEPT_NOTES]))


def _kept_facts(path: Path, own: Kept) -> dict[str, Any]:
    name = "steps" if "pilots" in own.about else "nfe"
    return {"name": str(path), name: own.steps, **own.about}


_KEPT_NOTES = """\
error    geometric mean of the relative errors: of a tuned sampler, of held-out samples; of a
         fitted grid, of those that it was fitted to
untuned  the same of the best sampler of the registry, where tuning started
default  the same of the grid that fitting started from
`samplers show FILE` prints what it is for, and its numbers."""


def _tuned_table(tuned: Mapping[Path, TunedSampler]) -> str:
    head = ("file", "NFE", "guidance", "error", "untuned", "conditions")
    return aligned(
        [head, *((str(path), f"{own.nfe}", *_scores(own)) for path, own in tuned.items())]
    )


def _grid_table(grids: Mapping[Path, FittedGrid]) -> str:
    head = ("fitted grid", "sampler", "steps", "guidance", "error", "default", "conditions")
    rows = [
        (str(path), own.about["sampler"], f"{own.steps}", *_scores(own))
        for path, own in grids.items()
    ]
    return aligned([head, *rows])


def _scores(own: Kept) -> tuple[str, ...]:
    """Guidance, error after and before, and conditions."""
    about = own.about
    before, after = (about[name]["geometric_mean"] for name in ("before", "after"))
    words = shorten(about["conditions"], 40, placeholder=" …")
    return (f"{about['guidance']:g}", f"{after:.3g}", f"{before:.3g}", words)


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
