r"""Fitted grids: trajectories, the estimate of the error, gains on other noise, files and errors.

The data are mixtures whose denoiser is exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers import (
    EDM,
    Denoiser,
    FittedGrid,
    FlowMatching,
    InverseProblem,
    Point,
    SamplerScheduler,
    Schedule,
    VPDiscrete,
    VPLinear,
    fit_grid,
    grid_from_sigmas,
    inpainting,
    load_grid,
    make_grid,
    sample,
    solve_inverse_problem,
)
from samplers.choices import FIT_BUDGET
from samplers.fitting.estimate import Estimate
from samplers.fitting.fit import Plan
from samplers.fitting.geometry import cheapest, step_costs
from samplers.fitting.levels import Levels
from samplers.fitting.pilots import Coordinate, PilotRun, evaluated_at, pilot_tableau, run
from samplers.prediction import PredictionType
from samplers.registry import Sampler, registry
from samplers.tuning.file import TunedError
from samplers.tuning.objective import Score, relative_errors
from tests.mixture import PLANE, gaussian
from tests.scheduler_loops import VP, made
from tests.tiny_tuned import as_if_tuned

SCHEDULES: tuple[tuple[Schedule, PredictionType], ...] = (
    (VPDiscrete.linear(), "epsilon"),
    (FlowMatching(), "flow"),
    (EDM(), "sample"),
)
ON_EACH = pytest.mark.parametrize(("schedule", "prediction"), SCHEDULES, ids=lambda v: str(v)[:12])
NORMAL = gaussian([0.0, 0.0], [[0.5, 0.0], [0.0, 0.5]])
STD = math.sqrt(0.5)
DDPM = PLANE.model(VPDiscrete.linear(), "epsilon")


def noise(model: Denoiser, count: int, first: int = 0) -> Tensor:
    return model.initial((2,), range(first, first + count), dtype=torch.float64)


def converged(model: Denoiser, count: int = 4, steps: int = 40) -> tuple[Coordinate, PilotRun]:
    coordinate = Coordinate(model.schedule.with_data_scale(STD))
    tableau = pilot_tableau(coordinate, steps)
    return coordinate, run(model, noise(model, count), {}, tableau, count)


def estimate(model: Denoiser, sampler: Sampler, steps: int) -> tuple[Estimate, PilotRun, PilotRun]:
    """The estimate around a run of a sampler; that run, and the pilots."""
    coordinate, pilots = converged(model)
    grid = Levels.even(coordinate, steps, 0.2).grid(torch.zeros(steps - 1).double()[:6])
    known = run(model, noise(model, 4), {}, sampler.tableau(grid), 4)
    return Estimate.of(coordinate, pilots, known), known, pilots


# Pilots.


@ON_EACH
def test_pilots_converge(schedule: Schedule, prediction: PredictionType) -> None:
    model = PLANE.model(schedule, prediction)
    pilots = converged(model)[1]
    exact = sample(model, noise(model, 4), sampler="unipc-3", steps=120, grid="log-snr")
    assert float(relative_errors(pilots.end, exact).max()) < 5e-3


@ON_EACH
def test_trajectories_are_known_between_their_knots(
    schedule: Schedule, prediction: PredictionType
) -> None:
    # On Gaussian data z and D are known: x is proportional to sqrt(alpha^2 s^2 + sigma^2).
    model = NORMAL.model(schedule, prediction)
    coordinate, pilots = converged(model)
    found, *_ = estimate(model, registry()["ddim"], 5)
    ends = coordinate.first - 0.05, coordinate.last + 0.05
    tau = torch.linspace(*ends, 33, dtype=torch.float64)
    inner = Point(*(values[1:-1] for values in coordinate.grid(tau).points))
    start = pilots.tableau.start
    total = (inner.alpha.square() * STD**2 + inner.sigma.square()).sqrt()
    x = pilots.x[:, :1] * (total / (start.alpha**2 * STD**2 + start.sigma**2).sqrt())[:, None]
    data = x * (inner.alpha * STD**2 / total.square())[:, None]
    scale = x.norm(dim=2) / coordinate.size(inner)
    z = found.exact.z_at(tau).norm(dim=2)
    torch.testing.assert_close(z, scale, rtol=1e-4, atol=1e-5)
    known = found.exact.data_at(tau).norm(dim=2)
    torch.testing.assert_close(known, data.norm(dim=2) / coordinate.c, rtol=1e-3, atol=1e-5)


# The estimate.


DETERMINISTIC = [s for s in registry().values() if not s.stochastic]


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=lambda s: s.name)
def test_the_estimate_is_exact_on_the_grid_of_a_real_run(sampler: Sampler) -> None:
    found, known, pilots = estimate(DDPM, sampler, 5)
    real = relative_errors(known.end, pilots.end)
    assert float(real.min()) > 1e-4
    torch.testing.assert_close(found.errors(known.tableau, trust=1.0), real, rtol=0.05, atol=1e-3)


@ON_EACH
@pytest.mark.parametrize("name", ["dpmpp-2m", "abm-3", "heun"])
def test_on_gaussian_data_the_estimate_is_exact_on_every_grid(
    schedule: Schedule, prediction: PredictionType, name: str
) -> None:
    # The denoiser is linear there, with one slope for all directions; it is interpolated.
    model = NORMAL.model(schedule, prediction)
    sampler = registry()[name]
    found, _, pilots = estimate(model, sampler, 12)
    other = sampler.tableau(Levels.even(found.coordinate, 8, 0.3).grid(torch.zeros(6).double()))
    real = relative_errors(run(model, noise(model, 4), {}, other, 4).end, pilots.end)
    torch.testing.assert_close(found.errors(other, trust=1.0), real, rtol=0.1, atol=2e-4)


def test_the_estimate_does_not_depend_on_the_space_of_the_samples() -> None:
    # In 60 dimensions each sample's vectors are compressed to the few that they span.
    few, known, pilots = estimate(DDPM, registry()["dpmpp-2m"], 4)
    q = torch.linalg.qr(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).double()).Q
    wide = [
        each._replace(x=each.x @ q.T, data=each.data @ q.T, end=each.end @ q.T)
        for each in (pilots, known)
    ]
    many = Estimate.of(few.coordinate, *wide)
    torch.testing.assert_close(many.errors(known.tableau), few.errors(known.tableau))


# Levels.


@ON_EACH
@pytest.mark.parametrize("steps", [2, 3, 7, 30])
def test_any_numbers_are_a_grid(schedule: Schedule, prediction: PredictionType, steps: int) -> None:
    coordinate = Coordinate(schedule.with_data_scale(STD))
    levels = Levels.even(coordinate, steps, 0.2)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        grid = levels.grid(torch.randn(levels.count, generator=generator).double())
        assert grid.steps == steps
        assert grid.start.rho == schedule.noisiest.rho
        assert grid.end.clean


def test_zeros_are_the_grid_to_start_from() -> None:
    base = make_grid(VPLinear(), 7, "karras", sigma_min=0.1)
    levels = Levels.around(Coordinate(base.schedule.with_data_scale(STD)), base)
    found = levels.grid(levels.zeros)
    torch.testing.assert_close(found.points.rho, base.points.rho, rtol=1e-9, atol=1e-12)


# The fit.


@pytest.fixture(scope="module")
def fitted() -> FittedGrid:
    return fit_grid(DDPM, noise(DDPM, 12), 6)


@ON_EACH
def test_a_fitted_grid_errs_less_on_other_noise(
    schedule: Schedule, prediction: PredictionType
) -> None:
    model = PLANE.model(schedule, prediction)
    found = fit_grid(model, noise(model, 12), 6)
    x_T = noise(model, 64, first=1000)
    exact = sample(model, x_T, sampler="unipc-3", steps=120, grid="log-snr")
    before = Score.of(sample(model, x_T, steps=6), exact)
    after = Score.of(sample(model, x_T, grid=found), exact)
    assert after.geometric_mean < 0.6 * before.geometric_mean


@pytest.mark.parametrize("steps", [2, 5, 20, 40])
def test_a_fit_stays_within_its_budget_and_counts(steps: int) -> None:
    calls = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return DDPM(x, t)

    found = fit_grid(DDPM.with_network(network), noise(DDPM, 20), steps, sampler="ddim")
    assert found.about["evaluations"] == calls <= FIT_BUDGET == 20 * 50
    assert found.about["after"]["geometric_mean"] <= found.about["before"]["geometric_mean"]


@pytest.mark.parametrize(("samples", "steps", "calls"), [(1, 5, 5), (12, 8, 16), (30, 100, 100)])
def test_a_plan_leaves_runs_to_choose_from(samples: int, steps: int, calls: int) -> None:
    plan = Plan.within(FIT_BUDGET, samples, steps, calls)
    assert plan.trials >= 4
    assert plan.pilots * (plan.knots + plan.trials * calls) <= FIT_BUDGET


def test_samplers_of_several_evaluations_per_step_are_fitted_too() -> None:
    found = fit_grid(DDPM, noise(DDPM, 12), 3, sampler="heun")
    assert found.about["after"]["geometric_mean"] < found.about["before"]["geometric_mean"]


def test_guidance_counts_and_conditions_have_their_rows() -> None:
    def network(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        return DDPM(x - shift, t)

    model = DDPM.with_network(network).wrapped(network, nfe=lambda at: 2 * torch.ones_like(at.t))
    shift = torch.zeros(12, 2).double()
    found = fit_grid(model, noise(DDPM, 12), 6, conditions={"shift": shift}, batch_size=5)
    alone = fit_grid(DDPM, noise(DDPM, 12), 6)
    assert found.about["evaluations"] == 2 * alone.about["evaluations"]
    torch.testing.assert_close(found.levels, alone.levels)


def test_what_does_not_improve_is_left_as_it_was(fitted: FittedGrid) -> None:
    again = fit_grid(DDPM, noise(DDPM, 12), 6, grid=fitted)
    known = fitted.about["after"]["geometric_mean"]
    assert again.about["before"]["geometric_mean"] == pytest.approx(known, rel=0.05)
    assert again.about["after"]["geometric_mean"] <= again.about["before"]["geometric_mean"]


# GITS.


def brute_force(costs: Tensor, steps: int, coefficient: float) -> float:
    def value(i: int, left: int) -> float:
        if left == 1:
            return float(costs[i, -1])
        return (
            min(
                float(costs[i, j]) + coefficient * value(j, left - 1)
                for j in range(i + 1, len(costs))
            )
            if i + 1 < len(costs)
            else math.inf
        )

    return value(0, steps)


@pytest.mark.parametrize("coefficient", [0.9, 1.15])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_dynamic_programming_finds_the_cheapest_steps(steps: int, coefficient: float) -> None:
    costs = torch.rand(6, 7, generator=torch.Generator().manual_seed(steps)).double()
    costs = torch.where(torch.arange(7) > torch.arange(6)[:, None], costs, torch.inf)
    path = [*cheapest(costs, steps, coefficient), 6]
    found = sum(coefficient**k * float(costs[path[k], path[k + 1]]) for k in range(steps))
    assert found == pytest.approx(brute_force(costs, steps, coefficient))


@ON_EACH
def test_short_steps_cost_less(schedule: Schedule, prediction: PredictionType) -> None:
    model = PLANE.model(schedule, prediction)
    costs = step_costs(converged(model)[1])
    assert bool(costs[5, 7] < costs[5, 15])
    assert bool(costs.triu(1).isfinite().all())


def test_the_geometry_criterion_chooses_knots_of_the_pilots() -> None:
    found = fit_grid(DDPM, noise(DDPM, 12), 6, criterion="geometry")
    assert found.about["criterion"] == "geometry"
    assert found.steps == 6
    assert found.about["after"]["geometric_mean"] < found.about["before"]["geometric_mean"]
    knots = evaluated_at(converged(DDPM, steps=24)[1].tableau).lam
    assert len(knots) == Plan.within(FIT_BUDGET, 12, 6, 6).knots == 24


# Where a fitted grid goes.


@ON_EACH
def test_it_is_the_same_in_other_coordinates_of_the_network(
    fitted: FittedGrid, schedule: Schedule, prediction: PredictionType
) -> None:
    if not isinstance(schedule, VPDiscrete):
        with pytest.raises(ValueError, match="This grid was fitted for a network trained from"):
            fitted.grid(schedule)
        return
    torch.testing.assert_close(fitted.grid(schedule).points.lam, fitted.levels)


@pytest.mark.parametrize("setting", [{"steps": 7}, {"sigma_min": 0.1}, {"final": "zero"}])
def test_settings_of_a_grid_are_refused(fitted: FittedGrid, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(setting))} came with a grid of noise levels"):
        sample(DDPM, noise(DDPM, 1), grid=fitted, **setting)


def test_sampling_and_inverse_problems_take_it(fitted: FittedGrid) -> None:
    x_T = noise(DDPM, 2)
    expected = sample(DDPM, x_T, grid=fitted.grid(DDPM.schedule))
    assert torch.equal(sample(DDPM, x_T, grid=fitted, steps=6), expected)
    mask = torch.tensor([True, False])
    known = torch.tensor([[0.5, 0.0]], dtype=torch.float64).expand(2, 2)
    problem = InverseProblem(inpainting(mask, (2,)), known, 0.1)
    found = solve_inverse_problem(DDPM, x_T, problem, sampler="ddim", grid=fitted)
    assert bool(found.isfinite().all())


# A scheduler.


def run_of(scheduler: SamplerScheduler, x: Tensor, steps: int | None = None) -> Tensor:
    """The loop of a pipeline."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(DDPM(x, t.reshape(1)), t, x).prev_sample
    return x


def test_a_scheduler_takes_it_and_keeps_it(fitted: FittedGrid, tmp_path: Path) -> None:
    scheduler = made(VP, grid=fitted)
    x_T = noise(DDPM, 2).float()
    expected = sample(DDPM, x_T, grid=fitted)
    torch.testing.assert_close(run_of(scheduler, x_T), expected, rtol=1e-4, atol=1e-5)
    scheduler.save_pretrained(tmp_path)
    loaded = SamplerScheduler.from_pretrained(tmp_path)
    assert FittedGrid.from_dict(loaded.config.grid).to_json() == fitted.to_json()
    assert torch.equal(run_of(loaded, x_T, 6), run_of(scheduler, x_T))
    assert torch.equal(run_of(made(scheduler, grid="log-snr"), x_T, 6),
                       run_of(made(VP, grid="log-snr"), x_T, 6))  # fmt: skip


@pytest.mark.parametrize(
    ("config", "asked", "why"),
    [
        ({}, {"num_inference_steps": 5}, "fitted for 6 steps, and 5 came"),
        ({}, {"sigmas": [2.0, 1.0]}, "sigmas came to a fitted grid"),
        ({"sampler": "ddim", "sigma_min": 0.1}, {}, "sigma_min came with a fitted grid"),
        ({"grid": {"levels": []}}, {"num_inference_steps": 5}, "neither a spacing nor a fitted"),
    ],
)
def test_a_scheduler_refuses_what_the_grid_has_itself(
    fitted: FittedGrid, config: dict[str, Any], asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        made(VP, **{"grid": fitted, **config}).set_timesteps(**asked)


def test_a_scheduler_refuses_what_comes_to_a_grid_that_it_has(fitted: FittedGrid) -> None:
    with pytest.raises(ValueError, match="sigma_max came to a config that holds a fitted grid"):
        made(made(VP, grid=fitted), sigma_max=50.0)
    tuned = as_if_tuned(DDPM.schedule)
    with pytest.raises(ValueError, match="give a sampler by name beside it, such as 'abm'"):
        made(made(VP, sampler=tuned), grid=fitted)
    with pytest.raises(ValueError, match="fitted grid came with a tuned sampler"):
        SamplerScheduler(tuned, grid=fitted)


def test_a_tuned_sampler_takes_the_place_of_a_grid(fitted: FittedGrid) -> None:
    tuned, x_T = as_if_tuned(DDPM.schedule), noise(DDPM, 2).float()
    changed = made(made(VP, grid=fitted), sampler=tuned)
    assert torch.equal(run_of(changed, x_T, 4), run_of(made(VP, sampler=tuned), x_T, 4))
    back = made(changed, sampler="abm", grid=fitted)
    assert torch.equal(run_of(back, x_T), run_of(made(VP, grid=fitted), x_T))


# Files.


def test_a_file_gives_back_the_grid(fitted: FittedGrid, tmp_path: Path) -> None:
    path = tmp_path / "fitted.json"
    fitted.save(path)
    found = load_grid(path)
    assert path.stat().st_size < 4096
    assert torch.equal(found.levels, fitted.levels)
    assert found.to_json() == fitted.to_json()
    assert "6 steps for" in repr(found)


def test_a_file_without_a_scale_is_one_of_unit_scale(fitted: FittedGrid) -> None:
    data = json.loads(fitted.to_json())
    del data["about"]["data_scale"]
    assert FittedGrid.from_dict(data).grid(DDPM.schedule).schedule.data_scale == 1.0


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda data: data.update(format="samplers.tuned/1"),
    "rising noise": lambda data: data["levels"].reverse(),
    "a lost level": lambda data: data["levels"].pop(1),
    "a text": lambda data: data["levels"].__setitem__(1, "x"),
    "an infinite level": lambda data: data["levels"].__setitem__(2, None),
    "no facts": lambda data: data.pop("about"),
    "another key": lambda data: data.update(more=1),
    "no scale": lambda data: data["about"].update(data_scale=-1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_torn_file_is_refused(
    fitted: FittedGrid, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    data = json.loads(fitted.to_json())
    change(data)
    path = tmp_path / "torn.json"
    path.write_text(json.dumps(data))
    with pytest.raises(TunedError, match="not the file of a fitted grid"):
        load_grid(path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(TunedError, match="not the file of a fitted grid"):
        load_grid(path)
    with pytest.raises(TunedError, match="no such file"):
        load_grid(tmp_path / "none.json")


# Errors.


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "stochastic": ({"sampler": "ancestral"}, "'ancestral' is stochastic"),
    "batch": ({"sampler": "reverse-diffusion+langevin"}, "is stochastic"),
    "adaptive": ({"sampler": "dopri5"}, "adaptive step sizes"),
    "one step": ({"steps": 1}, "can be fitted from 2 on"),
    "budget": ({"budget": 20}, "a larger budget"),
    "criterion": ({"criterion": "speed"}, "must be 'error' or 'geometry'"),
    "steps of the grid": ({"grid": make_grid(DDPM.schedule, 4)}, "it must have 5"),
    "end of the grid": (
        {"grid": make_grid(DDPM.schedule, 5, final="sigma_min")},
        "to clean data",
    ),
    "start of the grid": (
        {"grid": grid_from_sigmas(DDPM.schedule, [10.0, 4.0, 2.0, 1.0, 0.1, 0.0])},
        "begins at sigma/alpha = 10",
    ),
    "rows": ({"conditions": {"labels": torch.zeros(3)}}, "3 rows"),
}


@pytest.mark.parametrize(("setting", "why"), WRONG.values(), ids=WRONG)
def test_impossible_settings_are_refused(setting: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        fit_grid(DDPM, noise(DDPM, 4), **{"steps": 5, **setting})
