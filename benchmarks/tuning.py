"""Tuned samplers beside the default, fitted grids and the best settings of other packages.

    python -m benchmarks.tuning --data data/mnist

Mixtures are tuned here, from seeds that nothing is measured on; of networks the files in
``assets/tuned`` are measured, which were tuned on other seeds, too. Cells, best settings of others
and errors are those of :mod:`benchmarks.defaults`, whose results are read. With ``--data`` the
distribution of the digits is measured as well. A run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.defaults import DEFAULT, MEASURES, RESULTS, Cells, Errors, mean_and_worst, read
from benchmarks.digits import (
    BEST,
    IMAGES,
    REFERENCE,
    SCHEDULE,
    SHAPE,
    Bench,
    Kept,
    Ours,
    Setting,
    guided,
    load_model,
)
from benchmarks.models import ASSETS, CASES, OF_MIXTURES, Case
from benchmarks.report import FOLDER, table, write
from samplers import (
    FittedGrid,
    TunedSampler,
    TuningConfig,
    fit_grid,
    load_sampler,
    sample,
    tune_family,
)
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.fitting.fit import PILOTS
from samplers.images.figures import Cell, Figure
from samplers.images.figures import table as image_table
from samplers.images.pixels import to_images
from samplers.images.sheets import sheet
from samplers.sampling import build_tableau
from samplers.solve import Model, Solver
from samplers.tuning.objective import relative_errors

KEPT = FOLDER / "tuning.json"
TUNED = ASSETS / "tuned"
FIRST_SEED, SAMPLES = 100_000, 256
NFE = (5, 8, 10, 20)
CONFIG = TuningConfig(iterations=150, teacher_steps=200)
LAW_NFE = (3, 4, 5, 6, 8, 10)
SHOWN = (2, 5, 8)
PICTURE = ASSETS / "pictures" / "tuned.png"
SEE = "![Digits by sampler and number of evaluations](../../assets/pictures/tuned.png)"

# --------------------------------------------------------------------------------------- errors


def of_mixture(case: Case) -> dict[int, TunedSampler]:
    """Samplers that are tuned for a mixture."""
    seeds = range(FIRST_SEED, FIRST_SEED + SAMPLES)
    x_T = case.denoiser.initial(case.shape, seeds, dtype=case.dtype)
    return tune_family(case.denoiser, x_T, NFE, config=CONFIG, progress=True)


def of_network(name: str) -> dict[int, TunedSampler]:
    """The samplers that are shipped for a network."""
    found = map(load_sampler, (TUNED / name).glob("*.json"))
    return {tuned.nfe: tuned for tuned in sorted(found, key=lambda tuned: tuned.nfe)}


def measure(name: str) -> dict[str, Errors]:
    """The errors of the tuned samplers on the case's own noise, by number of evaluations."""
    case = CASES[name]()
    tuned = of_mixture(case) if name in OF_MIXTURES else of_network(name)
    with torch.no_grad():
        return {
            str(nfe): Errors.of(case.errors(sample(case.model, case.noise, sampler=each)))
            for nfe, each in tuned.items()
        }


class Ratios(NamedTuple):
    """An error of a tuned sampler, and what it is divided by."""

    model: str
    nfe: str
    tuned: Errors
    default: Errors
    others: Errors


def ratios(tuned: dict[str, dict[str, Errors]], cells: Cells) -> Iterator[Ratios]:
    for name, row in tuned.items():
        for nfe in map(str, NFE):
            if nfe in row and nfe in cells.get(name, {}):
                cell = cells[name][nfe]
                best = Errors(*(cell.best[measure][1] for measure in MEASURES))
                yield Ratios(name, nfe, row[nfe], cell.ours[str(DEFAULT)], best)


def of_models(found: list[Ratios]) -> str:
    rows = [
        [
            each.model,
            each.nfe,
            f"{each.tuned.geometric_mean:.2g}",
            *(
                f"{each.tuned[place] / of[place]:.2f}"
                for place in range(len(MEASURES))
                for of in (each.default, each.others)
            ),
        ]
        for each in found
    ]
    columns = [f"{m} ÷ {of}" for m in ("error", "95 %", "RMS") for of in ("default", "others")]
    return table(["model", "NFE", "error", *columns], rows)


def summaries(found: list[Ratios]) -> str:
    lines = []
    for nfe in map(str, NFE):
        for place, measure in enumerate(MEASURES):
            values = [e.tuned[place] / e.others[place] for e in found if e.nfe == nfe]
            mean, worst = mean_and_worst(values)
            lines.append([nfe, measure, f"{mean:.2f}", f"{worst:.2f}", str(len(values))])
    head = ["NFE", "of the errors", "geometric mean over models", "worst", "models"]
    return table(head, lines)


# ------------------------------------------------------------------- the distribution of digits


class Learned(NamedTuple):
    """A tuned sampler, or the default on a fitted grid."""

    what: TunedSampler | FittedGrid

    def __str__(self) -> str:
        digest = hashlib.sha256(self.what.to_json().encode()).hexdigest()
        return f"{type(self.what).__name__} {digest[:12]}"

    def draw(self, model: Model, x: Tensor, seeds: tuple[int, ...], nfe: int) -> Tensor:
        grid = self.what.grid(SCHEDULE)
        sampler = self.what if isinstance(self.what, TunedSampler) else DEFAULT_SAMPLER
        solver = Solver(build_tableau(sampler, grid), "v_prediction")
        return solver.finish(model, solver.init(x)).x


@cache
def fitted_digits(steps: int) -> FittedGrid:
    pilots = CASES["digits"](count=PILOTS)
    x_T = pilots.denoiser.initial(pilots.shape, range(FIRST_SEED, FIRST_SEED + PILOTS))
    return fit_grid(pilots.denoiser, x_T, steps, conditions=pilots.conditions)


def settings_of(nfe: int) -> Iterator[tuple[str, Setting]]:
    """What is compared at a number of evaluations, with the heads of the columns."""
    yield "`dpmpp-2m`, `trailing`", Ours("dpmpp-2m", "trailing")
    yield f"{DEFAULT}", Ours(DEFAULT_SAMPLER, DEFAULT_SPACING)
    yield "the same, fitted grid", Learned(fitted_digits(nfe))
    tuned = of_network("digits").get(nfe)
    if tuned is not None:
        yield "tuned", Learned(tuned)


def distribution(data: Path) -> list[str]:
    """The table of Fréchet distances, with what they are."""
    bench = Bench(data)
    rows = []
    with torch.no_grad():
        for nfe in tqdm(LAW_NFE, "distribution"):
            found = {head: bench.law(each, nfe)["frechet"] for head, each in settings_of(nfe)}
            rows.append([str(nfe), *(f"{value:.2f}" for value in found.values())])
        reference = bench.law(BEST, REFERENCE)["frechet"]
    about = (
        f"Fréchet distance between {IMAGES:,} samples without guidance and the real test images, "
        f"in the features of the digit classifier. {bench.floor()}; {REFERENCE} evaluations have "
        f"{reference:.2f}."
    )
    return ["## The distribution of the digits", about, table(["NFE", *found], rows)]


@torch.no_grad()
def picture() -> Figure:
    """The same digits by number of evaluations, and converged."""
    model, _ = load_model()
    seeds = range(len(SHOWN))
    x_T, labels = model.initial(SHAPE, seeds), torch.tensor(SHOWN)
    towards = guided(model, labels, 1.0)
    solution = BEST.draw(towards, x_T, tuple(seeds), REFERENCE)

    def cell(setting: Setting, nfe: int) -> Cell:
        x_0 = setting.draw(towards, x_T, tuple(seeds), nfe)
        error = relative_errors(x_0, solution).log().mean().exp()
        return Cell(sheet(to_images(x_0), len(SHOWN)), f"error {float(error):.3f}")

    rows: dict[str, list[Cell]] = {}
    for nfe in LAW_NFE:
        for head, setting in settings_of(nfe):
            rows.setdefault(head.replace("`", ""), []).append(cell(setting, nfe))
    converged = Cell(sheet(to_images(solution), len(SHOWN)), "")
    rows[f"{REFERENCE} evaluations"] = [converged] * len(LAW_NFE)
    columns = [f"{nfe} evaluations" for nfe in LAW_NFE]
    return image_table("Digits from the same initial noise", columns, [*rows.items()])


# ------------------------------------------------------------------------------------- the page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST, for the distribution of the digits")
    data = parser.parse_args().data
    warnings.simplefilter("ignore")
    kept, cells = Kept(KEPT, ""), read(RESULTS)
    tuned = {name: kept.get(name, partial(measure, name)) for name in cells}
    found = [
        *ratios({n: {k: Errors(*e) for k, e in row.items()} for n, row in tuned.items()}, cells)
    ]
    page = write(
        "tuning",
        "Tuned samplers",
        "Errors on noise that nothing was tuned on, as in [the benchmark of defaults]"
        "(defaults.md), divided by those of the default, and by those of the best setting of "
        "diffusers, k-diffusion and azula in the same cell: of all their samplers, orders and "
        "grids.",
        "Tuned ÷ best of others:",
        summaries(found),
        of_models(found),
        *([] if data is None else [*distribution(data), SEE]),
        "Written by `python -m benchmarks.tuning`.",
    )
    if data is not None:
        picture().savefig(PICTURE, bbox_inches="tight")
    print(page.read_text())


if __name__ == "__main__":
    main()
