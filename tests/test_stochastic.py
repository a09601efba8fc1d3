r"""Stochastic samplers: the laws they reach, exactly, and the paths they follow.

On Gaussian data the mean and covariance of every point follow from the tableau (``linear_law``).
The reverse SDE from a given start has a Gaussian law known in closed form: it is the posterior of
the forward process, with ``Cov(x_t, x_s) = (alpha_s / alpha_t) Cov(x_t)``. Towards it the gain and
the covariance of a sampler converge at its weak order. Monte Carlo with the real executor agrees
with the recursion within four standard errors. Along one refined Brownian path, in the clock
whose increments are the method's noise variance, the samples converge at its strong order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from samplers.grid import make_grid
from samplers.noise import Noise, RowNoise, initial_noise
from samplers.registry import Sampler, registry
from samplers.schedule import EDM, FlowMatching, Schedule, VPLinear
from samplers.solve import Solver, make_noise
from samplers.tableau import Tableau
from tests.convergence import finish, uniform_grid, unlowered
from tests.linear_law import final_law, marginal
from tests.mixture import THREE, gaussian

DATA = gaussian([1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]])
LINE = gaussian([0.7], [[0.36]])
SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "flow": FlowMatching()}
STOCHASTIC = [s for s in registry().values() if s.stochastic]
# Where norms of the batch scale a step, no recursion gives the law, and a bias remains.
LINEAR = [s for s in STOCHASTIC if s.weak_order]
ON_A_PATH = [s for s in STOCHASTIC if s.strong_order is not None]
# The longest are those of third order, and the second family with the same noise.
WITH_THE_LONG_ONES = [
    pytest.param(s, marks=pytest.mark.slow if s.name.startswith("mr-") or "3m" in s.name else ())
    for s in ON_A_PATH
]
CORRECTED = [s for s in STOCHASTIC if "snr" in s.options]
DETERMINISTIC = [s for s in registry().values() if not s.stochastic]
MARGIN = 0.2


def name(sampler: Sampler) -> str:
    return sampler.name


def mild(sampler: Sampler, steps: int) -> dict[str, Any]:
    """Options under which a sampler has a limit as its steps shrink.

    EDM's churn only below its cap, s_churn < 0.41 n; a corrector if its step, 2 snr^2, shrinks with
    the predictor's.
    """
    options = {"s_churn": 4.0, "snr": math.sqrt(0.6 / steps)}
    return {key: value for key, value in options.items() if key in sampler.options}


def table(sampler: Sampler, schedule: Schedule, steps: int) -> Tableau:
    options = unlowered(sampler, mild(sampler, steps))
    return sampler.tableau(uniform_grid(schedule, steps, 0), options)


def mixes(tableau: Tableau) -> bool:
    """Whether the sampler forgets its start faster than the reverse SDE does."""
    free = any(row.noisy and row.path is None for row in tableau.rows)
    return free or bool(tableau.start_noise != 0)


def law_error(tableau: Tableau) -> float:
    """How far the law is from the exact one: from a given start, or as a marginal if it mixes."""
    law = final_law(tableau, DATA)
    mean, exact = marginal(DATA, tableau.end)
    if mixes(tableau):
        return float((law.mean - mean).norm() + (law.covariance - exact).norm())
    _, start = marginal(DATA, tableau.start)
    gain = (tableau.start.alpha / tableau.end.alpha) * exact @ torch.linalg.inv(start)
    found = law.factors[0] @ torch.linalg.inv(torch.linalg.cholesky(start))
    drawn = law.factors[1:]
    covariance = torch.einsum("kij,klj->il", drawn, drawn)
    posterior = exact - gain @ start @ gain.T
    return float((found - gain).norm() + (covariance - posterior).norm())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", LINEAR, ids=name)
def test_weak_order(sampler: Sampler, schedule: str) -> None:
    coarse, fine = (law_error(table(sampler, SCHEDULES[schedule], n)) for n in (96, 192))
    assert sampler.weak_order is not None
    assert abs(math.log2(coarse / fine) - sampler.weak_order) <= MARGIN, (coarse, fine)


@pytest.mark.parametrize("data", [LINE, DATA], ids=["line", "plane"])
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name)
def test_deterministic_samplers_reach_the_law(sampler: Sampler, data: Any) -> None:
    errors = []
    for steps in (12, 48):
        tableau = table(sampler, SCHEDULES["flow"], steps)
        law = final_law(tableau, data)
        mean, covariance = marginal(data, tableau.end)
        torch.testing.assert_close(law.mean, mean, rtol=0, atol=1e-11)
        errors.append(float((law.covariance - covariance).norm()))
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("sampler", [s for s in LINEAR if "eta" in s.options], ids=name)
def test_data_prediction_keeps_the_mean_from_any_start(sampler: Sampler) -> None:
    """Every sampler keeps the mean of the data; off it, posterior and data steps are exact too:
    the prediction is a martingale of the reverse process, which a row does not move."""
    tableau = table(sampler, SCHEDULES["ve"], 12)
    law = final_law(tableau, DATA)
    torch.testing.assert_close(law.mean, DATA.mean, rtol=0, atol=1e-12)
    if sampler.name.startswith(("ancestral", "sde-dpmpp")) and not mixes(tableau):
        _, start = marginal(DATA, tableau.start)
        _, exact = marginal(DATA, tableau.end)
        gain = law.factors[0] @ torch.linalg.inv(torch.linalg.cholesky(start))
        torch.testing.assert_close(gain, exact @ torch.linalg.inv(start), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", LINEAR, ids=name)
def test_monte_carlo_agrees_with_the_recursion(sampler: Sampler) -> None:
    count = 3_000
    schedule = SCHEDULES["vp"]
    tableau = sampler.tableau(make_grid(schedule, 5, sigma_max=8.0), mild(sampler, 24))
    mean, covariance = marginal(DATA, tableau.start)
    seeds = tuple(range(count))
    start = mean + initial_noise(seeds, (2,)) @ torch.linalg.cholesky(covariance).T
    solver = Solver(tableau, "epsilon", RowNoise(seeds, (2,)))
    x = finish(solver, DATA.model(schedule, "epsilon"), solver.init(start))
    law = final_law(tableau, DATA)
    exact = law.covariance
    variances = exact.diagonal()
    error = torch.sqrt((torch.outer(variances, variances) + exact.square()) / count)
    assert bool(((x.mean(0) - law.mean).abs() <= 4 * torch.sqrt(variances / count)).all())
    assert bool(((torch.cov(x.T) - exact).abs() <= 4 * error).all())


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("sampler", [s for s in LINEAR if "eta" in s.options], ids=name)
def test_every_eta_has_the_same_marginals(sampler: Sampler, eta: float) -> None:
    errors = []
    for steps in (24, 96):
        options = {**mild(sampler, steps), "eta": eta}
        tableau = sampler.tableau(uniform_grid(SCHEDULES["flow"], steps, 0), options)
        _, covariance = marginal(DATA, tableau.end)
        errors.append(float((final_law(tableau, DATA).covariance - covariance).norm()))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 2.5


# Paths.

FINEST = 480
STEPS = (20, 40, 80)
SAMPLES = 96


def path_end(sampler: Sampler, steps: int) -> Tensor:
    schedule = SCHEDULES["vp"]
    tableau = table(sampler, schedule, steps)
    path = make_noise(tableau, (3,), (SAMPLES, 1), "brownian")
    solver = Solver(tableau, "sample", Together(path))
    start = torch.linspace(-1.5, 1.5, SAMPLES, dtype=torch.float64)[:, None]
    return finish(solver, THREE.model(schedule, "sample"), solver.init(start))


class Together(NamedTuple):
    """The noise of one large sample, as that of a batch of small ones."""

    noise: Noise

    def __call__(self, row: int) -> Tensor:
        return self.noise(row)[0]


def strong_slope(sampler: Sampler, guess: float) -> float:
    """The observed strong order. The finest run stands for the limit; the error that it has
    itself, of an order near ``guess``, would bend the slope and is taken off."""
    exact = path_end(sampler, FINEST)
    ends = [path_end(sampler, n) - exact for n in STEPS]
    errors = [float(end.square().mean().sqrt()) for end in ends]
    scale = [n**-guess - FINEST**-guess for n in STEPS]
    return guess * math.log(errors[0] / errors[-1]) / math.log(scale[0] / scale[-1])


@pytest.mark.parametrize("sampler", WITH_THE_LONG_ONES, ids=name)
def test_strong_order(sampler: Sampler) -> None:
    assert sampler.strong_order is not None
    slope = strong_slope(sampler, sampler.strong_order)
    assert abs(slope - sampler.strong_order) <= MARGIN, slope


@pytest.mark.parametrize("sampler", ON_A_PATH, ids=name)
def test_noise_follows_the_clock(sampler: Sampler) -> None:
    """The intervals of the rows are disjoint and cover the path without a gap."""
    tableau = table(sampler, SCHEDULES["flow"], 7)
    paths = [row.path for row in tableau.rows if row.path is not None]
    assert len(paths) == sum(row.noisy for row in tableau.rows)
    for before, after in pairwise(paths):
        assert float(before[1]) == pytest.approx(float(after[0]), rel=1e-12)


@pytest.mark.parametrize("which", ["sde-dpmpp-1", "sde-dpm-solver-1"])
def test_the_clock_of_exponential_steps_is_exact(which: str) -> None:
    """Two half-steps add the increments of their halves of the path as one whole step does."""
    sampler = registry()[which]
    grids = [uniform_grid(SCHEDULES["vp"], n, 0) for n in (1, 2)]
    (whole,), (first, second) = (sampler.tableau(grid).rows for grid in grids)
    carried = {
        # In data prediction a step multiplies the noise before it by its own decay, which is that
        # of the whole; in noise prediction likewise.
        "sde-dpmpp-1": first.noise * second.points[0, 0],
        "sde-dpm-solver-1": first.noise * grids[1].points.alpha[2] / grids[1].points.alpha[1],
    }[which]
    for part, row in ((carried, first), (second.noise, second)):
        assert row.path is not None
        assert whole.path is not None
        share = (row.path.diff() / whole.path.diff()).abs()
        assert float(part / whole.noise) == pytest.approx(math.sqrt(float(share)), rel=1e-12)


def test_options_reach_the_table() -> None:
    sampler = registry()["sde-dpmpp-2m"]
    grid = uniform_grid(SCHEDULES["ve"], 4, 0)
    noises: Mapping[float, float] = {
        eta: float(sampler.tableau(grid, {"eta": eta}).rows[2].noise) for eta in (0.0, 0.5, 1.0)
    }
    assert noises[0.0] == 0 < noises[0.5] < noises[1.0]
