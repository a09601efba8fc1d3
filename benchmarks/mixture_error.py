"""Error by NFE on Gaussian mixtures with exact score, beside the schedulers of diffusers.

    python -m benchmarks.mixture_error

Every sampler starts from the same noise and evaluates the same float64 network. The error is the
root mean square distance to the exact solution of the probability-flow ODE at the clean end. Each
scheduler of diffusers is run in all of its settings that apply, each sampler of this package on six
grids and six last noise levels, and the best of each is reported, with the setting.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.models import mixture
from benchmarks.peers import GRIDS, SPACED, Options, crossed, of_betas, set_steps, words
from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.grid import Spacing, make_grid
from samplers.registry import get_sampler, list_samplers
from samplers.schedule import VPDiscrete
from samplers.solve import Solver
from tests.mixture import Flow

NFE = (5, 10, 15, 20, 40, 80)
STARTS = 256
SCHEDULE = VPDiscrete.linear()
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SPACINGS: tuple[Spacing, ...] = (
    "log-snr", "karras", "uniform", "quadratic", "trailing", "leading",
)  # fmt: skip
LAST_NOISE = (None, 0.03, 0.05, 0.1, 0.2, 0.3)
# One setting chosen for all mixtures and all NFE, beside the best of each.
ONE_SETTING: tuple[str, Spacing, float | None] = ("unipc-2", "quadratic", 0.05)


class Problem(NamedTuple):
    """A mixture, the initial noise and the exact end points."""

    name: str
    model: Denoiser
    x: Tensor
    exact: Tensor

    def error(self, x0: Tensor) -> float:
        return float((x0.double() - self.exact).square().mean().sqrt())


class Score(NamedTuple):
    error: float
    setting: str


def problem(name: str, dimension: int, components: int, seed: int) -> Problem:
    """The mixture, the noise that the generator draws next, and where it leads."""
    generator = torch.Generator().manual_seed(seed)
    of_data = mixture(dimension, components, generator)
    x = torch.randn(STARTS, dimension, generator=generator, dtype=torch.float64)
    start = SCHEDULE.noisiest
    end = 12.0
    flow = Flow(of_data, x / start.alpha, float(start.lam), float(start.lam), end)
    one = torch.ones((), dtype=torch.float64)
    exact = of_data.denoise(flow(end), one, torch.exp(-end * one))
    return Problem(name, of_data.model(SCHEDULE, "epsilon"), x, exact)


def run_ours(task: Problem, name: str, spacing: Spacing, last: float | None, nfe: int) -> Score:
    """The most steps that fit; a sampler for which none do has no score."""
    sampler = get_sampler(name)
    grid = make_grid(SCHEDULE, sampler.steps_within(nfe), spacing, sigma_min=last)
    try:
        solver = Solver(sampler.tableau(grid))
    except ValueError:
        return Score(float("inf"), "")
    x0 = solver.finish(task.model, solver.init(task.x)).x
    return Score(task.error(x0), f"{spacing}, {'trained' if last is None else last}")


def our_best(task: Problem, name: str, nfe: int) -> Score:
    settings = [
        (spacing, last)
        for spacing, last in itertools.product(SPACINGS, LAST_NOISE)
        if spacing != "leading" or last is None
    ]
    return min((run_ours(task, name, *setting, nfe) for setting in settings), key=_error)


def _error(score: Score) -> float:
    return score.error if score.error == score.error else float("inf")


THEIRS: dict[str, list[Options]] = {
    "DDIMScheduler": list(crossed(SPACED, [{"clip_sample": False}])),
    "EulerDiscreteScheduler": GRIDS,
    **of_betas(1, 2, 3),
}


def run_theirs(task: Problem, name: str, options: Options, nfe: int) -> Score:
    scheduler = getattr(diffusers, name)(**BETAS, **options)
    set_steps(scheduler, nfe)
    x = task.x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = task.model(scheduler.scale_model_input(x, t), t.double().reshape(1))
        x = scheduler.step(output, t, x)[0]
    return Score(task.error(x), words(options))


def their_best(task: Problem, name: str, nfe: int) -> Score:
    scores = []
    for options in THEIRS[name]:
        try:
            scores.append(run_theirs(task, name, options, nfe))
        except (ValueError, IndexError, RuntimeError) as error:
            tqdm.write(f"{name} {options} at {nfe} NFE: {error}")
    return min(scores, key=_error)


def scores(
    task: Problem, names: list[str], best: Callable[[Problem, str, int], Score]
) -> dict[str, list[Score]]:
    return {name: [best(task, name, nfe) for nfe in NFE] for name in tqdm(names, desc=task.name)}


def section(task: Problem) -> list[str]:
    """The two tables of one mixture, and the ratios between their best rows."""
    deterministic = [
        name for name in list_samplers("fixed-grid") if not get_sampler(name).stochastic
    ]
    our, their = scores(task, deterministic, our_best), scores(task, list(THEIRS), their_best)
    winners = [(_best(our, i), _best(their, i)) for i in range(len(NFE))]
    one = [run_ours(task, *ONE_SETTING, nfe).error for nfe in NFE]
    ratios = [
        [
            "best of this package ÷ best of diffusers",
            *(f"{a.error / b.error:.2f}" for a, b in winners),
        ],
        [
            f"`{ONE_SETTING[0]}`, {ONE_SETTING[1]} to {ONE_SETTING[2]} ÷ best of diffusers",
            *(f"{error / b.error:.2f}" for error, (_, b) in zip(one, winners, strict=True)),
        ],
    ]
    settings = [
        f"- {nfe} NFE: this package {a.setting}; diffusers {b.setting}"
        for nfe, (a, b) in zip(NFE, winners, strict=True)
    ]
    head = [*map(str, NFE)]
    return [
        f"## {task.name}",
        table(["NFE", *head], ratios),
        "Settings of the best:\n\n" + "\n".join(settings),
        table(["error of this package by NFE", *head], _rows(our)),
        table(["error of diffusers by NFE", *head], _rows(their)),
    ]


def _best(found: dict[str, list[Score]], column: int) -> Score:
    name, row = min(found.items(), key=lambda item: _error(item[1][column]))
    return Score(row[column].error, f"`{name}` ({row[column].setting})")


def _rows(found: dict[str, list[Score]]) -> list[list[str]]:
    return [[f"`{name}`", *(f"{s.error:.1e}" for s in row)] for name, row in found.items()]


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    tasks = [
        problem("Six components in the plane", 2, 6, seed=0),
        problem("Ten components in 16 dimensions", 16, 10, seed=1),
    ]
    paragraphs = [paragraph for task in tasks for paragraph in section(task)]
    path = write(
        "mixture_error",
        "Error by NFE on Gaussian mixtures with exact score",
        f"Root mean square error of {STARTS} samples against the exact solution of the "
        "probability-flow ODE at the clean end, on DDPM's linear schedule of 1000 steps, float64 "
        "network. Every entry is the best over that sampler's settings at that NFE: for this "
        f"package {len(SPACINGS)} grids × {len(LAST_NOISE)} last noise levels, for diffusers all "
        "timestep spacings, sigma spacings, final sigmas and solver types that the scheduler has. "
        "A setting in brackets is the grid and the last noise level (sigma / alpha), *trained* "
        "being the cleanest trained level.",
        *paragraphs,
        "Written by `python -m benchmarks.mixture_error`.",
    )
    print(path)


if __name__ == "__main__":
    main()
