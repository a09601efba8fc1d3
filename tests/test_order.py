"""The orders that the registry claims, observed within 0.2 on a mixture with exact score.

In float64, between two finite noise levels, from exact starting values and without lowering the
order at the end: every deterministic sampler on three schedules and three parameterisations. A
stochastic sampler is measured twice without its noise: with the noise switched off by its option
(the probability-flow ODE), and as its skeleton, the drift of the reverse SDE alone, which solves
``dy/drho = 2 eps``. The same measurement shows that half a second difference costs an order.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers.grid import make_grid
from samplers.prediction import PredictionType
from samplers.registry import Sampler, registry
from samplers.schedule import EDM, FlowMatching, Schedule, VPLinear
from samplers.solve import Solver
from tests.convergence import (
    LAM_END,
    LAM_START,
    RHO_MAX,
    STARTS,
    Silence,
    error,
    finish,
    flow,
    slopes,
    uncorrected,
    uniform_grid,
    without_noise,
)
from tests.mixture import THREE, Flow

SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "flow": FlowMatching()}
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction")
STEPS = (48, 96)
MARGIN = 0.2

DETERMINISTIC = [s for s in registry().values() if not s.stochastic]
# What needs a distilled network solves no equation of a denoiser.
STOCHASTIC = [s for s in registry().values() if s.stochastic and not s.distilled]
WITH_DRIFT = [s for s in STOCHASTIC if "eta" in s.options]


def name(sampler: Sampler) -> str:
    return sampler.name


def observed(
    sampler: Sampler,
    schedule: Schedule,
    prediction: PredictionType,
    options: dict[str, Any] | None = None,
    rate: float = 1.0,
) -> float:
    errors = [error(sampler, schedule, prediction, n, options, rate) for n in STEPS]
    return slopes(errors)[-1]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name)
def test_order_of_deterministic_samplers(sampler: Sampler, schedule: str) -> None:
    for prediction in PREDICTIONS:
        slope = observed(sampler, SCHEDULES[schedule], prediction)
        assert abs(slope - sampler.order) <= MARGIN, (prediction, slope)


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
def test_order_without_noise(sampler: Sampler) -> None:
    slope = observed(sampler, SCHEDULES["flow"], "sample", without_noise(sampler))
    assert abs(slope - sampler.order) <= MARGIN, slope


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", WITH_DRIFT, ids=name)
def test_order_of_the_skeleton_of_stochastic_samplers(sampler: Sampler, schedule: str) -> None:
    slope = observed(sampler, SCHEDULES[schedule], "epsilon", uncorrected(sampler), rate=2.0)
    assert abs(slope - sampler.order) <= MARGIN, slope


@pytest.mark.parametrize("family", ["dpmpp-3m", "dpm-solver-3m"])
def test_the_published_third_order_is_second(family: str) -> None:
    corrected, reference = (registry()[f"{family}-{which}"] for which in ("corrected", "reference"))
    assert observed(reference, SCHEDULES["ve"], "sample") < corrected.order - 0.5
    errors = [error(s, SCHEDULES["ve"], "sample", 96) for s in (reference, corrected)]
    assert errors[1] < errors[0] / 4


def test_the_reference_solution_is_far_better_than_what_it_measures() -> None:
    """The classical Runge-Kutta method still falls at its order where its error is 1e-9."""
    errors = [error(registry()["rk4"], SCHEDULES["ve"], "sample", n) for n in (128, 256)]
    assert errors[1] < 1e-9
    assert slopes(errors)[0] > 4 - MARGIN


def test_the_clocks_of_all_schedules_agree() -> None:
    """A grid holds the same noise levels on every schedule, so the errors are comparable."""
    for schedule in SCHEDULES.values():
        lam = uniform_grid(schedule, 8).points.lam
        assert float(lam[-1]) == pytest.approx(LAM_END, abs=1e-9)
        assert float(lam[4]) == pytest.approx(LAM_START, abs=1e-9)
    assert flow().mixture is THREE


# ------------------------------------------------------------------- grids that end at sigma = 0


def to_data(sampler: Sampler, steps: int) -> Tensor:
    """What a run of this many steps to sigma = 0 ends at."""
    tableau = sampler.tableau(make_grid(SCHEDULES["vp"], steps, "karras", sigma_max=RHO_MAX))
    solver = Solver(tableau, "sample", Silence())
    start = solver.init(tableau.start.alpha * STARTS)
    return finish(solver, THREE.model(SCHEDULES["vp"], "sample"), start)


@cache
def converged() -> Tensor:
    """The same with many steps: their last one, to sigma = 0, is DDIM's from the same level."""
    return to_data(registry()["dpmpp-3m-corrected"], 1500)


@cache
def exact() -> Tensor:
    """The exact solution at the data, where samplers end that cross the last interval at their
    own order."""
    start, end = -math.log(RHO_MAX), 12.0
    one = torch.ones((), dtype=torch.float64)
    trajectory = Flow(THREE, STARTS, start, start, end)
    return THREE.denoise(trajectory(end), one, torch.exp(-end * one))


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name)
def test_more_steps_to_sigma_zero_err_less(sampler: Sampler) -> None:
    found = [to_data(sampler, steps) for steps in (10, 40)]
    end = exact() if sampler.name.startswith("abm") else converged()
    errors = [float((x - end).square().mean().sqrt()) for x in found]
    assert slopes(errors)[0] / 2 > 0.7 * min(sampler.order, 2), errors
