"""Published ways of learning a sampler, on equal budgets.

    python -m benchmarks.tuning_variants

They differ in what is learned, and in how many predictions a row combines; start, teacher, noise,
updates and objective are the same for all. A run that was interrupted continues.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from tqdm import tqdm

from benchmarks.defaults import Errors, mean_and_worst
from benchmarks.digits import Kept
from benchmarks.models import CASES
from benchmarks.report import FOLDER, table, write
from benchmarks.tuning import CONFIG, FIRST_SEED, SAMPLES
from samplers import TuningConfig, sample, tune
from samplers.tuning.loop import NothingGained

KEPT = FOLDER / "tuning_variants.json"
MODELS, NFE = ("plane VP", "plane flow", "sixteen VP"), (5, 10)
VARIANTS: Mapping[str, TuningConfig] = {
    "levels (Align Your Steps)": replace(CONFIG, learn=("grid",)),
    "levels, times (LD3)": replace(CONFIG, learn=("grid", "times")),
    "weights of 3 (S4S)": replace(CONFIG, learn=("weights",), memory=3),
    "levels, times, weights of 3 (S4S-Alt)": replace(CONFIG, memory=3),
    "levels, weights of all (Bespoke Non-Stationary)": replace(CONFIG, learn=("grid", "weights")),
    "levels, times, weights of all (default)": CONFIG,
}


def measure(name: str, nfe: int, config: TuningConfig) -> tuple[Errors, Errors]:
    """The errors of the tuned sampler, and those of the default."""
    case = CASES[name]()
    seeds = range(FIRST_SEED, FIRST_SEED + SAMPLES)
    x_T = case.denoiser.initial(case.shape, seeds, dtype=case.dtype)
    try:
        tuned = tune(case.denoiser, x_T, nfe, config=config)
    except NothingGained:
        tuned = None
    with torch.no_grad():
        default = Errors.of(case.errors(sample(case.model, case.noise, steps=nfe)))
        if tuned is None:
            return default, default
        return Errors.of(case.errors(sample(case.model, case.noise, sampler=tuned))), default


def main() -> None:
    warnings.simplefilter("ignore")
    kept, rows = Kept(KEPT, ""), []
    for words, config in tqdm(VARIANTS.items()):
        row = [words]
        for nfe in NFE:
            found = [
                kept.get(f"{words}, {name}, {nfe}", partial(measure, name, nfe, config))
                for name in MODELS
            ]
            for place in (0, 2):
                mean, _ = mean_and_worst([own[place] / default[place] for own, default in found])
                row.append(f"{mean:.2f}")
        rows.append(row)
    head = ["learned", *(f"NFE {nfe}, {what}" for nfe in NFE for what in ("error", "RMS"))]
    page = write(
        "tuning_variants",
        "Ways of learning a sampler",
        f"Samplers that are tuned in {CONFIG.iterations} updates of {CONFIG.batch_size} samples: "
        "errors on other noise divided by those of the default, in geometric mean over "
        f"{', '.join(MODELS)} of [the benchmark of defaults](defaults.md). The papers differ in "
        "more than what is learned: in their objectives, and in where they start. Here all "
        "minimise the same distance, from the best of eighty untuned samplers.",
        table(head, rows),
        "Written by `python -m benchmarks.tuning_variants`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
