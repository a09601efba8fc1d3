"""Tuned samplers beside untuned ones and the best settings of other packages.

    python -m benchmarks.tuning

Mixtures are tuned here, from seeds that nothing is measured on; for networks the files in
``assets/tuned`` are measured, which were tuned on other seeds, too. The cells, the best settings of
others and the errors are those of :mod:`benchmarks.defaults`, whose results are read. With
``--data`` the law of samples of the digits is measured as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.defaults import DEFAULT, MEASURES, RESULTS, Cells, Errors, mean_and_worst, read
from benchmarks.digits import BEST, IMAGES, REFERENCE, ROOT, SCHEDULE, Bench, Ours, Setting
from benchmarks.models import CASES, OF_MIXTURES, Case
from benchmarks.report import FOLDER, table, write
from samplers import TunedSampler, TuningConfig, load_sampler, sample, tune_family
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.files import replacing
from samplers.solve import Model, Solver

KEPT = FOLDER / "tuning.json"
TUNED = ROOT / "assets" / "tuned"
FIRST_SEED, SAMPLES = 100_000, 256
NFE = (5, 8, 10, 20)
CONFIG = TuningConfig(iterations=150, teacher_steps=200)
LAW_NFE = (3, 4, 5, 8, 10)


class Results:
    """Measurements by name, written after each, so that a run goes on where another stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, name: str, value: Any) -> None:
        self.found[name] = value
        with replacing(self.path) as part:
            part.write_text(json.dumps(self.found, indent=1) + "\n")


def of_mixture(case: Case) -> dict[int, TunedSampler]:
    """Samplers that are tuned for a mixture."""
    seeds = range(FIRST_SEED, FIRST_SEED + SAMPLES)
    x_T = case.model.initial(case.shape, seeds, dtype=case.dtype)
    return tune_family(case.model, x_T, NFE, config=CONFIG, progress=True)


def of_network(name: str) -> dict[int, TunedSampler]:
    """The samplers that are shipped for a network."""
    found = map(load_sampler, sorted((TUNED / name).glob("*.json")))
    return {tuned.nfe: tuned for tuned in found}


def measure(name: str) -> dict[str, Errors]:
    """The errors of the tuned samplers on the case's own noise, by number of evaluations."""
    case = CASES[name]()
    tuned = of_mixture(case) if name in OF_MIXTURES else of_network(name)
    with torch.no_grad():
        return {
            str(nfe): Errors.of(case.errors(sample(case.model, case.noise, sampler=each)))
            for nfe, each in tuned.items()
        }


def ratios(tuned: dict[str, dict[str, Errors]], cells: Cells, nfe: int, place: int) -> list[float]:
    """Of a measure, tuned to the best setting of others, in each cell of this number."""
    return [
        errors[str(nfe)][place] / cells[name][str(nfe)].best[MEASURES[place]][1]
        for name, errors in tuned.items()
        if str(nfe) in errors and str(nfe) in cells[name]
    ]


def of_models(tuned: dict[str, dict[str, Errors]], cells: Cells) -> str:
    rows = []
    for name, errors in tuned.items():
        for nfe in NFE:
            if str(nfe) not in errors or str(nfe) not in cells[name]:
                continue
            cell, mine = cells[name][str(nfe)], errors[str(nfe)]
            ours = cell.ours[str(DEFAULT)]
            others = [cell.best[MEASURES[place]][1] for place in (0, 2)]
            rows.append(
                [
                    name,
                    str(nfe),
                    f"{mine.geometric_mean:.2g}",
                    f"{mine.geometric_mean / ours.geometric_mean:.2f}",
                    f"{mine.geometric_mean / others[0]:.2f}",
                    f"{mine.rms / ours.rms:.2f}",
                    f"{mine.rms / others[1]:.2f}",
                ]
            )
    head = ["model", "NFE", "error", "÷ default", "÷ best of others", "RMS ÷ default", "÷ others"]
    return table(head, rows)


# ------------------------------------------------------------------------------- law of the digits


@dataclass(frozen=True, eq=False)
class Tuned:
    """A shipped sampler, as a setting of :mod:`benchmarks.digits`."""

    sampler: TunedSampler

    def __str__(self) -> str:
        return f"tuned {hashlib.sha256(self.sampler.to_json().encode()).hexdigest()[:12]}"

    def draw(self, model: Model, x: Tensor, seeds: tuple[int, ...], nfe: int) -> Tensor:
        solver = Solver(self.sampler.tableau(SCHEDULE), "v_prediction")
        return solver.finish(model, solver.init(x)).x


def law_rows(bench: Bench) -> list[list[str]]:
    tuned = of_network("digits")
    default = Ours(DEFAULT_SAMPLER, DEFAULT_SPACING)
    rows = []
    for nfe in tqdm(LAW_NFE, "law"):
        settings: list[Setting | Tuned] = [Ours("dpmpp-2m", "trailing"), default]
        settings += [Tuned(tuned[nfe])] if nfe in tuned else []
        laws = [bench.law(setting, nfe) for setting in settings]  # type: ignore[arg-type]
        rows.append([str(nfe), *(f"{law['frechet']:.2f}" for law in laws)])
    return rows


def law(data: Path) -> list[str]:
    bench = Bench(data)
    with torch.no_grad():
        rows = law_rows(bench)
        reference = bench.law(BEST, REFERENCE)["frechet"]
    about = (
        f"Fréchet distance of {IMAGES:,} samples, without guidance, in the features of the digit "
        f"classifier. {bench.floor()}; {REFERENCE} evaluations have {reference:.2f}."
    )
    head = ["NFE", "`dpmpp-2m`, `trailing`", f"{DEFAULT}", "tuned"]
    return ["## Law of the digits", about, table(head, rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="MNIST, for the law of the digits")
    data = parser.parse_args().data
    warnings.simplefilter("ignore")
    results, cells = Results(KEPT), read(RESULTS)
    for name in cells:
        if name not in results.found:
            results.keep(name, measure(name))
    tuned = {
        name: {nfe: Errors(*errors) for nfe, errors in results.found[name].items()}
        for name in cells
    }
    lines = []
    for nfe in NFE:
        for place, words in ((0, "geometric means"), (2, "root mean squares")):
            found = ratios(tuned, cells, nfe, place)
            if found:
                mean, worst = mean_and_worst(found)
                lines.append(
                    f"- NFE {nfe}, ratio of {words}: {mean:.2f} in geometric mean, {worst:.2f} at "
                    f"worst ({len(found)} models)"
                )
    page = write(
        "tuning",
        "Tuned samplers",
        "Errors on noise that nothing was tuned on, as in [the benchmark of defaults]"
        "(defaults.md): geometric means over samples of the relative error, and root mean squares "
        "beside them; divided by those of the default, and of the best setting of diffusers, "
        "k-diffusion and azula in the same cell.",
        "Tuned ÷ best of others:",
        "\n".join(lines),
        of_models(tuned, cells),
        *([] if data is None else law(data)),
        "Written by `python -m benchmarks.tuning`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
