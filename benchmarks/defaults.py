"""The default sampler and grid beside the best settings of other packages.

    pip install --no-deps k-diffusion azula torchdiffeq
    python -m benchmarks.defaults

A cell is a model and a number of network evaluations (NFE). In it, every setting of diffusers,
k-diffusion and azula and every candidate of ours starts from the same noise; the error of a sample
is its distance from the converged solution of the probability-flow ODE, relative to its norm. A
candidate's score is its error divided by that of the best setting of others, which is another one
in almost every cell. A run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.models import CASES, OF_MIXTURES, Case
from benchmarks.peers import TooFew, peers
from benchmarks.report import FOLDER, table, write
from samplers import get_sampler, make_grid, sample
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.files import replacing
from samplers.grid import Grid, Spacing
from samplers.schedule import Schedule

RESULTS = FOLDER / "defaults.json"
NFE = (5, 8, 10, 15, 20, 30)
NFE_OF_NETWORKS = (5, 10, 20)
SCALED = ("plane EDM", "plane VP x40")
WRONG_SCALES = {
    "a fortieth": 1 / 40,
    "a tenth": 1 / 10,
    "half": 1 / 2,
    "twice": 2.0,
    "ten times": 10.0,
    "forty times": 40.0,
}
MEASURES = ("geometric mean", "95 % quantile", "root mean square")


class Candidate(NamedTuple):
    """A sampler of ours on a grid, whose last positive level is the spacing's own, or trained."""

    sampler: str
    spacing: Spacing
    trained: bool = False

    def __str__(self) -> str:
        return f"`{self.sampler}`, `{self.spacing}`" + (" to the trained level" * self.trained)

    def grid(self, schedule: Schedule, nfe: int) -> Grid:
        steps = get_sampler(self.sampler).steps_within(nfe)
        low = float(schedule.cleanest.rho) if self.trained else None
        return make_grid(schedule, steps, self.spacing, sigma_min=low)


DEFAULT = Candidate(DEFAULT_SAMPLER, DEFAULT_SPACING)
CANDIDATES = (
    DEFAULT,
    Candidate("abm-2", "log-flow"),
    Candidate("abm-3", "log-flow"),
    Candidate("abm-4", "log-flow"),
    Candidate(DEFAULT_SAMPLER, "log-flow", trained=True),
    Candidate("unipc-2", "log-flow"),
    Candidate("unipc-3", "log-flow"),
    Candidate("deis-3", "log-flow"),
    Candidate("unipc-2", "quadratic"),
    Candidate("unipc-2", "log-snr"),
    Candidate("unipc-3", "log-snr"),
    Candidate("deis-4", "log-snr"),
    Candidate("dpmpp-2m", "log-snr"),
    Candidate("dpmpp-2m", "trailing"),
)


class Errors(NamedTuple):
    """Of the samples of one run, in the order of :data:`MEASURES`."""

    geometric_mean: float
    quantile: float
    rms: float

    @classmethod
    def of(cls, errors: Tensor) -> Errors:
        e = errors.double()
        numbers = (e.log().mean().exp(), e.quantile(0.95), e.square().mean().sqrt())
        return cls(*map(float, numbers))


class Cell(NamedTuple):
    """What was measured of one model at one number of evaluations.

    Attributes:
        best: of each measure, the setting of others that errs least, and its error.
        ours: the errors of each candidate.
    """

    best: dict[str, tuple[str, float]]
    ours: dict[str, Errors]

    def ratio(self, candidate: Candidate, measure: str) -> float:
        error = self.ours[str(candidate)][MEASURES.index(measure)]
        return error / self.best[measure][1]


def best_of_others(case: Case, nfe: int) -> dict[str, tuple[str, float]]:
    """The setting of others that errs least by each measure, and its error."""
    theirs = {}
    for peer in peers(case.model.schedule):
        try:
            theirs[peer.name] = Errors.of(case.errors(peer.draw(case.model, case.noise, nfe)))
        except TooFew:
            continue
    best = {}
    for place, measure in enumerate(MEASURES):
        finite = {name: errors[place] for name, errors in theirs.items() if errors[place] > 0}
        name = min(finite, key=finite.__getitem__)
        best[measure] = (name, finite[name])
    return best


def all_of_ours(case: Case, nfe: int) -> dict[str, Errors]:
    return {str(each): Errors.of(case.errors(_drawn(case, each, nfe))) for each in CANDIDATES}


def _drawn(case: Case, candidate: Candidate, nfe: int) -> Tensor:
    grid = candidate.grid(case.model.schedule, nfe)
    return sample(case.model, case.noise, sampler=candidate.sampler, grid=grid)


def numbers_of(name: str) -> tuple[int, ...]:
    """The numbers of evaluations at which a model is measured."""
    return NFE if name in OF_MIXTURES else NFE_OF_NETWORKS


Cells = dict[str, dict[str, Cell]]


def read(path: Path) -> Cells:
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    return {
        name: {
            nfe: Cell(
                {measure: (who, error) for measure, (who, error) in cell["best"].items()},
                {who: Errors(*errors) for who, errors in cell["ours"].items()},
            )
            for nfe, cell in cells.items()
        }
        for name, cells in stored.items()
    }


def save(path: Path, cells: Cells) -> None:
    plain = {name: {nfe: c._asdict() for nfe, c in row.items()} for name, row in cells.items()}
    with replacing(path) as part:
        part.write_text(json.dumps(plain, indent=1) + "\n")


def measure_all(names: list[str], path: Path, anew: bool) -> Cells:
    """Settings of others are measured once; candidates also if they are to be measured anew."""
    cells = read(path)
    bar = tqdm([(name, nfe) for name in names for nfe in numbers_of(name)], unit="cell")
    case: tuple[str, Case] | None = None
    for name, nfe in bar:
        bar.set_postfix_str(f"{name}, NFE {nfe}")
        known = cells.get(name, {}).get(str(nfe))
        if known is not None and not anew:
            continue
        if case is None or case[0] != name:
            case = (name, CASES[name]())
        best = best_of_others(case[1], nfe) if known is None else known.best
        cells.setdefault(name, {})[str(nfe)] = Cell(best, all_of_ours(case[1], nfe))
        save(path, cells)
    return {name: cells[name] for name in names}


# ------------------------------------------------------------------------------------- the page


def mean_and_worst(ratios: list[float]) -> tuple[float, float]:
    """The geometric mean, and the largest."""
    return float(torch.tensor(ratios).double().log().mean().exp()), max(ratios)


def of_candidates(cells: Cells) -> str:
    rows = []
    for candidate in CANDIDATES:
        row = [str(candidate)]
        for nfe in (*map(str, NFE), None):
            found = [
                cell.ratio(candidate, MEASURES[0])
                for of_model in cells.values()
                for at, cell in of_model.items()
                if nfe in (at, None)
            ]
            mean, worst = mean_and_worst(found)
            row.append(f"{mean:.2f} ({worst:.2g})")
        rows.append(row)
    return table(["candidate", *(f"NFE {nfe}" for nfe in NFE), "all"], rows)


def of_models(cells: Cells, measure: str) -> str:
    rows = [
        [name, *(_ratio(of_model.get(str(nfe)), measure) for nfe in NFE)]
        for name, of_model in cells.items()
    ]
    return table(["model", *(f"NFE {nfe}" for nfe in NFE)], rows)


def _ratio(cell: Cell | None, measure: str) -> str:
    return "" if cell is None else f"{cell.ratio(DEFAULT, measure):.2f}"


def winners(cells: Cells) -> str:
    rows = []
    for name, of_model in cells.items():
        for nfe in numbers_of(name):
            who, error = of_model[str(nfe)].best[MEASURES[0]]
            ours = of_model[str(nfe)].ours[str(DEFAULT)].geometric_mean
            rows.append([name, str(nfe), who, f"{error:.2g}", f"{ours:.2g}"])
    return table(["model", "NFE", "best setting of others", "its error", "default's"], rows)


def of_scales(name: str) -> list[list[str]]:
    """Errors with a wrong scale of the data, divided by those with the right one."""
    case = CASES[name]()

    def error(factor: float, nfe: int) -> float:
        model = case.model.with_data_scale(factor * case.model.schedule.data_scale)
        return Errors.of(case.errors(sample(model, case.noise, steps=nfe))).geometric_mean

    right = [error(1.0, nfe) for nfe in NFE]
    return [
        [name, words, *(f"{error(by, n) / own:.2g}" for n, own in zip(NFE, right, strict=True))]
        for words, by in WRONG_SCALES.items()
    ]


def overall(cells: Mapping[str, Mapping[str, Cell]], of: Callable[[Cell], float]) -> str:
    mean, worst = mean_and_worst([of(cell) for row in cells.values() for cell in row.values()])
    return f"{mean:.2f} in geometric mean, {worst:.2g} at worst"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--anew", action="store_true", help="measure our candidates again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with torch.no_grad():
        cells = measure_all(arguments.models, arguments.results, arguments.anew)
        scales = [row for name in SCALED for row in of_scales(name)]
    lines = [
        f"- {measure}: {overall(cells, lambda cell, m=measure: cell.ratio(DEFAULT, m))}"  # type: ignore[misc]
        for measure in MEASURES
    ]
    page = write(
        "defaults",
        "The default beside the best settings of other packages",
        "A cell is a model and a number of network evaluations (NFE). The error of a sample is its "
        "distance from the converged solution of the probability-flow ODE from the same noise, "
        "relative to its norm. Every number below is an error divided by that of the best setting "
        "of diffusers, k-diffusion and azula **in that cell**: of all their samplers, orders and "
        "grids, so that no single setting of theirs has 1 everywhere.",
        f"The default is {DEFAULT}, whose last positive noise level falls with the number of "
        "steps. Over all cells, by three measures of the errors of a run's samples:",
        "\n".join(lines),
        "Models marked x40 have data of forty times the usual scale. Their scale is measured once "
        "by `measure_data_scale`, with 20 evaluations of each of eight other samples.",
        "## Candidates",
        "Geometric mean over models of the ratio of geometric means (in brackets the worst).",
        of_candidates(cells),
        "## The default, model by model",
        *(part for m in MEASURES for part in (f"By the {m}:", of_models(cells, m))),
        "## With a wrong scale of the data",
        "Geometric means of the errors if the scale that is stated is wrong, divided by those with "
        "the right one.",
        table(["model", "scale stated", *(f"NFE {nfe}" for nfe in NFE)], scales),
        "## What it is compared with",
        winners(cells),
        "Written by `python -m benchmarks.defaults`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
