r"""Observed orders of convergence: the error of a tableau on a mixture with exact score.

In float64, between two finite noise levels, on n steps even in the log-SNR. A multistep
method starts from the exact history before the first level, so neither a ramp of low orders nor a
lowered last step hides its order. The error is the root mean square over a few trajectories.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from samplers.grid import Grid
from samplers.prediction import PredictionType
from samplers.registry import Sampler
from samplers.schedule import Point, Schedule
from samplers.solve import Model, Solver, State
from samplers.tableau import Tableau
from tests.mixture import THREE, Flow

RHO_MAX, RHO_MIN = 4.0, 0.25
HISTORY = 4
LAM_START, LAM_END = -math.log(RHO_MAX), -math.log(RHO_MIN)
STARTS = RHO_MAX * torch.linspace(-1.6, 1.6, 9, dtype=torch.float64)[:, None]


class Silence:
    """Noise that is zero: what is left of a stochastic sampler is its skeleton."""

    def __call__(self, row: int) -> Tensor:
        return torch.zeros(STARTS.shape, dtype=torch.float64)


@cache
def flow(rate: float = 1.0) -> Flow:
    """The exact solutions, wide enough for the history of the coarsest grid."""
    return Flow(THREE, STARTS, LAM_START, LAM_START - 1.5, LAM_END, rate)


def uniform_grid(schedule: Schedule, steps: int, history: int = HISTORY) -> Grid:
    """``steps`` steps from the first level to the last, and ``history`` more before the first."""
    h = (LAM_END - LAM_START) / steps
    index = torch.arange(-history, steps + 1, dtype=torch.float64)
    return Grid(schedule, schedule.at_lam(LAM_START + h * index))


def exact_state(tableau: Tableau, step: int, exact: Flow) -> State:
    """The state before ``step``, with all that is remembered on the exact trajectory."""
    row = next(k for k, r in enumerate(tableau.rows) if r.step == step)
    reached = [tableau.start]
    for r in tableau.rows[:row]:
        reached.extend(Point(*values) for values in zip(*r.reached, strict=True))
    points = [_x(at, exact) for at in reversed(reached[-tableau.points_kept :])]
    calls = [r.at for r in tableau.rows[:row]]
    known = [_prediction(at, exact) for at in reversed(calls[-tableau.predictions_kept :])]
    nothing = torch.zeros_like(STARTS)
    points += [nothing] * (tableau.points_kept - len(points))
    known += [nothing] * (tableau.predictions_kept - len(known))
    return State(row, tuple(points), tuple(known))


def _x(at: Point, exact: Flow) -> Tensor:
    return at.alpha * exact(float(at.lam))


def _prediction(at: Point, exact: Flow) -> Tensor:
    return exact.mixture.denoise(_x(at, exact), at.alpha, at.sigma)


def finish(solver: Solver, model: Model, state: State) -> Tensor:
    """The finished sample, from the state before any row."""
    return [state, *solver.run(model, state)][-1].x


@cache
def _tableau(sampler: Sampler, schedule: Schedule, steps: int, options: tuple[Any, ...]) -> Tableau:
    return sampler.tableau(uniform_grid(schedule, steps), dict(options))


def unlowered(sampler: Sampler, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The options under which the last steps keep the order of the method."""
    full = {"lower_order_final": False} if "lower_order_final" in sampler.options else {}
    return {**full, **(options or {})}


def without_noise(sampler: Sampler) -> dict[str, Any]:
    """The options that switch a stochastic sampler's noise off, Langevin steps with it."""
    silent = {"eta": 0.0, "s_churn": 0.0, "snr": 0.0}
    return {key: value for key, value in silent.items() if key in sampler.options}


def uncorrected(sampler: Sampler) -> dict[str, Any]:
    """The options that leave a predictor-corrector sampler its predictor alone."""
    return {"snr": 0.0} if "snr" in sampler.options else {}


def error(
    sampler: Sampler,
    schedule: Schedule,
    prediction: PredictionType,
    steps: int,
    options: Mapping[str, Any] | None = None,
    rate: float = 1.0,
) -> float:
    """The error at the last noise level after ``steps`` steps from the exact state."""
    chosen = tuple(sorted(unlowered(sampler, options).items()))
    tableau = _tableau(sampler, schedule, steps, chosen)
    solver = Solver(tableau, prediction, Silence())
    start = exact_state(tableau, HISTORY, flow(rate))
    x = finish(solver, THREE.model(schedule, prediction), start)
    miss = x / tableau.end.alpha - flow(rate)(LAM_END)
    return float(miss.square().mean().sqrt())


def global_error(sampler: Sampler, schedule: Schedule, steps: int, *, lowered: bool) -> float:
    """The error of a run as users start it: without a history, so with the ramp of a multistep
    method, and with or without lowering the order of its last steps."""
    chosen = {"lower_order_final": lowered} if "lower_order_final" in sampler.options else {}
    tableau = sampler.tableau(uniform_grid(schedule, steps, history=0), chosen)
    solver = Solver(tableau, "sample", Silence())
    x = finish(solver, THREE.model(schedule, "sample"), solver.init(tableau.start.alpha * STARTS))
    return float((x / tableau.end.alpha - flow()(LAM_END)).square().mean().sqrt())


def slopes(errors: list[float]) -> list[float]:
    """log2 of the ratios of the errors at n, 2n, 4n, ..."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]
