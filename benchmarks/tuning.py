"""Tuned samplers beside the best untuned ones, on Gaussian mixtures with exact score.

    python -m benchmarks.tuning

Every sampler starts from the same noise. The error of a sample is its distance to the converged
sample, relative to the size of that; the tables have geometric means and root mean squares over
noise that was not trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from benchmarks.mixture_error import SCHEDULE, problem
from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.tuning import Part, TunedSampler, TuningConfig
from samplers.tuning.loop import NothingGained, Tuning
from samplers.tuning.starts import best_starts, starts
from tests.mixture import PLANE

NFE = (5, 8, 10, 20)
TRAINING, HELD_OUT = 192, 64
LEARN: dict[str, tuple[Part, ...]] = {
    "grid": ("grid",),
    "weights": ("weights",),
    "grid, times and weights": ("grid", "times", "weights"),
}


class Task(NamedTuple):
    name: str
    model: Denoiser
    dimension: int


def tasks() -> Iterator[Task]:
    yield Task("Two components in the plane", PLANE.model(SCHEDULE, "epsilon"), 2)
    for name, dimension, components, seed in (
        ("Six components in the plane", 2, 6, 0),
        ("Ten components in 16 dimensions", 16, 10, 1),
    ):
        yield Task(name, problem(name, dimension, components, seed).model, dimension)


def ratios(found: TunedSampler) -> str:
    before, after = found.about["before"], found.about["after"]
    mean, rms = (after[name] / before[name] for name in ("geometric_mean", "rms"))
    return f"{mean:.2f} ({rms:.2f})"


def section(task: Task, iterations: int) -> list[str]:
    config = TuningConfig(held_out=HELD_OUT, iterations=iterations)
    count = TRAINING + HELD_OUT
    x_T = task.model.initial((task.dimension,), range(count), dtype=torch.float64)
    run = Tuning.begin(task.model, x_T, config=config)
    rows: dict[str, list[str]] = {name: [] for name in LEARN}
    bases = []
    for nfe in NFE:
        candidates = starts(run.training)
        start, _ = best_starts(run.training, nfe, candidates, run.distance, config.batch_size)[0]
        for name, learn in LEARN.items():
            try:
                found = replace(run, config=replace(config, learn=learn)).tuned(nfe, start)
            except NothingGained:
                rows[name].append("–")
                continue
            rows[name].append(ratios(found))
            print(f"{task.name}, {nfe}, {name}: {rows[name][-1]}, {found}", flush=True)
        bases.append(f"- {nfe}: {start}; {found.about['before']['geometric_mean']:.2e}")
    return [
        f"## {task.name}",
        table(["learned", *map(str, NFE)], [[name, *cells] for name, cells in rows.items()]),
        "The best untuned samplers by NFE, and the geometric mean of their relative errors:\n\n"
        + "\n".join(bases),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=TuningConfig.iterations)
    iterations = parser.parse_args().iterations
    paragraphs = [paragraph for task in tasks() for paragraph in section(task, iterations)]
    path = write(
        "tuning",
        "Tuned samplers by NFE on Gaussian mixtures with exact score",
        "Error of a tuned sampler ÷ that of the best untuned one on the same noise: geometric mean "
        "of the relative errors (root mean square in brackets) over "
        f"{HELD_OUT} samples that were not trained on, after {iterations} iterations on {TRAINING} "
        "samples. The untuned sampler is the best of eighty on the training noise: five "
        "samplers, four grids, four last noise levels. DDPM's linear schedule of 1000 steps, "
        "float64 network.",
        *paragraphs,
        "Written by `python -m benchmarks.tuning`.",
    )
    print(path)


if __name__ == "__main__":
    main()
