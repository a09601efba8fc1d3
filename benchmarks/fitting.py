"""Fitted grids beside the default, on noise that they were not fitted on.

    python -m benchmarks.fitting

Models and errors are those of :mod:`benchmarks.defaults`. A run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from benchmarks.defaults import MEASURES, Errors, mean_and_worst
from benchmarks.models import CASES, OF_MIXTURES
from benchmarks.report import FOLDER, table, write
from samplers import fit_grid, sample
from samplers.choices import FIT_BUDGET
from samplers.files import replacing
from samplers.fitting.fit import PILOTS

RESULTS = FOLDER / "fitting.json"
NFE, NFE_OF_NETWORKS = (5, 8, 10, 15, 20), (5, 10, 20)
NETWORKS = ("digits", "colour", "cylinder")
FLOWS = 8
"""Flows on which errors are measured: of the two in the benchmark of defaults one outlier
decides."""
SEEDS = range(1000, 1000 + PILOTS)
"""Of the noise that grids are fitted on; errors are those on the noise of the case."""


class Cell(NamedTuple):
    """Errors of the default and on the fitted grid, and the evaluations that the fit took."""

    default: Errors
    fitted: Errors
    evaluations: int

    def ratio(self, measure: str) -> float:
        place = MEASURES.index(measure)
        return self.fitted[place] / self.default[place]


def measure(name: str, nfe: int) -> Cell:
    pilots = CASES[name](count=PILOTS)
    case = CASES[name](count=FLOWS) if name == "cylinder" else CASES[name]()
    x_T = pilots.denoiser.initial(pilots.shape, SEEDS, dtype=pilots.dtype)
    fitted = fit_grid(pilots.denoiser, x_T, nfe, conditions=pilots.conditions)
    default = sample(case.model, case.noise, steps=nfe)
    other = sample(case.model, case.noise, grid=fitted)
    of_default, of_other = (Errors.of(case.errors(x_0)) for x_0 in (default, other))
    return Cell(of_default, of_other, fitted.about["evaluations"])


Cells = dict[str, dict[str, Cell]]


def read(path: Path) -> Cells:
    stored = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: {nfe: Cell(Errors(*a), Errors(*b), count) for nfe, (a, b, count) in row.items()}
        for name, row in stored.items()
    }


def measure_all(names: list[str], path: Path) -> Cells:
    cells = read(path)
    wanted = [(n, nfe) for n in names for nfe in (NFE if n in OF_MIXTURES else NFE_OF_NETWORKS)]
    for name, nfe in tqdm(wanted, unit="cell"):
        row = cells.setdefault(name, {})
        if str(nfe) not in row:
            row[str(nfe)] = measure(name, nfe)
            with replacing(path) as part:
                part.write_text(json.dumps(cells, indent=1) + "\n")
    return {name: cells[name] for name in names}


def of_models(cells: Cells, measure: str) -> str:
    rows = [
        [name, *(f"{row[str(n)].ratio(measure):.2f}" if str(n) in row else "" for n in NFE)]
        for name, row in cells.items()
    ]
    return table(["model", *(f"NFE {nfe}" for nfe in NFE)], rows)


def summary(cells: Cells, measure: str) -> str:
    mean, worst = mean_and_worst([c.ratio(measure) for row in cells.values() for c in row.values()])
    return f"- {measure}: {mean:.2f} in geometric mean, {worst:.2f} at worst"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*OF_MIXTURES, *NETWORKS]
    parser.add_argument("--models", nargs="+", choices=known, default=known)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with torch.no_grad():
        cells = measure_all(arguments.models, arguments.results)
    most = max(cell.evaluations for row in cells.values() for cell in row.values())
    page = write(
        "fitting",
        "Fitted grids beside the default",
        "For each model and number of evaluations (NFE) a grid is fitted to the default sampler "
        f"by `fit_grid`, on at most {PILOTS} samples. Numbers are the error on it divided by that "
        "of the default, on other noise; the errors are those of [the benchmark of defaults]"
        f"(defaults.md), but those of the cylinder are of {FLOWS} flows. Over all cells:",
        "\n".join(summary(cells, measure) for measure in MEASURES),
        f"A fit took {most} network evaluations of one sample at most, and {FIT_BUDGET} are "
        "allowed: those of 20 samples with 50 steps.",
        *(part for m in MEASURES for part in (f"By the {m}:", of_models(cells, m))),
        "Written by `python -m benchmarks.fitting`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
