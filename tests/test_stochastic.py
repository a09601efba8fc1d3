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
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers.grid import make_grid
from samplers.noise import RowNoise, initial_noise
from samplers.registry import Sampler, registry
from samplers.schedule import EDM, FlowMatching, Point, Schedule, VPLinear
from samplers.solve import Solver
from samplers.tableau import Tableau
from tests.convergence import finish, uniform_grid, unlowered
from tests.linear_law import final_law, marginal
from tests.mixture import THREE, gaussian

DATA = gaussian([1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]])
LINE = gaussian([0.7], [[0.36]])
SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "flow": FlowMatching()}
STOCHASTIC = [s for s in registry().values() if s.stochastic]
DETERMINISTIC = [s for s in registry().values() if not s.stochastic]
MARGIN = 0.2


def name(sampler: Sampler) -> str:
    return sampler.name


def mild(sampler: Sampler) -> dict[str, Any]:
    """EDM's churn is a law of its own in the limit only below its cap, s_churn < 0.41 n."""
    return {"s_churn": 4.0} if "s_churn" in sampler.options else {}


def table(sampler: Sampler, schedule: Schedule, steps: int) -> Tableau:
    return sampler.tableau(uniform_grid(schedule, steps, 0), unlowered(sampler, mild(sampler)))


def law_error(tableau: Tableau) -> float:
    """How far the law is from the exact one: from a given start, or for churn as a marginal."""
    law = final_law(tableau, DATA)
    mean, exact = marginal(DATA, tableau.end)
    if bool(tableau.start_noise != 0):
        return float((law.mean - mean).norm() + (law.covariance - exact).norm())
    _, start = marginal(DATA, tableau.start)
    gain = (tableau.start.alpha / tableau.end.alpha) * exact @ torch.linalg.inv(start)
    found = law.factors[0] @ torch.linalg.inv(torch.linalg.cholesky(start))
    drawn = law.factors[1:]
    covariance = torch.einsum("kij,klj->il", drawn, drawn)
    posterior = exact - gain @ start @ gain.T
    return float((found - gain).norm() + (covariance - posterior).norm())


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
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


@pytest.mark.parametrize("sampler", [s for s in STOCHASTIC if "eta" in s.options], ids=name)
def test_data_prediction_keeps_the_mean_from_any_start(sampler: Sampler) -> None:
    """Every sampler keeps the mean of the data; off it, posterior and data steps are exact too:
    the prediction is a martingale of the reverse process, which a row does not move."""
    tableau = table(sampler, SCHEDULES["ve"], 12)
    law = final_law(tableau, DATA)
    torch.testing.assert_close(law.mean, DATA.mean, rtol=0, atol=1e-12)
    if sampler.name.startswith(("ancestral", "sde-dpmpp")):
        _, start = marginal(DATA, tableau.start)
        _, exact = marginal(DATA, tableau.end)
        gain = law.factors[0] @ torch.linalg.inv(torch.linalg.cholesky(start))
        torch.testing.assert_close(gain, exact @ torch.linalg.inv(start), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
def test_monte_carlo_agrees_with_the_recursion(sampler: Sampler) -> None:
    count = 3_000
    schedule = SCHEDULES["vp"]
    tableau = sampler.tableau(make_grid(schedule, 5, sigma_max=8.0), mild(sampler))
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
@pytest.mark.parametrize("sampler", [s for s in STOCHASTIC if "eta" in s.options], ids=name)
def test_every_eta_has_the_same_marginals(sampler: Sampler, eta: float) -> None:
    errors = []
    for steps in (24, 96):
        tableau = sampler.tableau(uniform_grid(SCHEDULES["flow"], steps, 0), {"eta": eta})
        _, covariance = marginal(DATA, tableau.end)
        errors.append(float((final_law(tableau, DATA).covariance - covariance).norm()))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 2.5


# Paths.

FINEST = 480
STEPS = (20, 40, 80)
SAMPLES = 96


def own_time(at: Point) -> Tensor:
    return -at.t


def signal_to_noise(at: Point) -> Tensor:
    return (at.alpha / at.sigma).square()


def variance(at: Point) -> Tensor:
    return -at.rho.square()


def clock(sampler: Sampler) -> Callable[[Point], Tensor]:
    """The quantity whose increments are the variances of a sampler's noise, up to a scale."""
    if sampler.name == "euler-maruyama":
        return own_time
    if sampler.name.startswith("sde-dpm-solver"):
        return variance
    if "s_churn" in sampler.options:
        return lambda at: at.lam  # the index of the step, on a grid even in the log-SNR
    return signal_to_noise


class PathNoise:
    """Noise of the rows of a coarse tableau, summed from the increments of one fine path."""

    def __init__(self, tableau: Tableau, clock: Tensor, increments: Tensor) -> None:
        starts = [-1] if bool(tableau.start_noise != 0) else []
        self._events = starts + [k for k, row in enumerate(tableau.rows) if row.noisy]
        widths = clock.diff()
        coarse = (widths.sqrt()[:, None, None] * increments).unflatten(
            0, (self._steps(tableau), -1)
        )
        total = widths.unflatten(0, (self._steps(tableau), -1)).sum(1)
        self._z = coarse.sum(1) / total.sqrt()[:, None, None]

    def _steps(self, tableau: Tableau) -> int:
        return tableau.rows[-1].step + 1

    def __call__(self, row: int) -> Tensor:
        return self._z[self._events.index(row)]


def path_end(sampler: Sampler, steps: int, increments: Tensor) -> Tensor:
    schedule = SCHEDULES["vp"]
    tableau = table(sampler, schedule, steps)
    fine = uniform_grid(schedule, FINEST, 0).points
    solver = Solver(tableau, "sample", PathNoise(tableau, clock(sampler)(fine), increments))
    start = torch.linspace(-1.5, 1.5, SAMPLES, dtype=torch.float64)[:, None]
    return finish(solver, THREE.model(schedule, "sample"), solver.init(start))


def strong_slope(sampler: Sampler, guess: float) -> float:
    """The observed strong order. The finest run stands for the limit; the error that it has
    itself, of an order near ``guess``, would bend the slope and is taken off."""
    generator = torch.Generator().manual_seed(3)
    increments = torch.randn(FINEST, SAMPLES, 1, dtype=torch.float64, generator=generator)
    exact = path_end(sampler, FINEST, increments)
    ends = [path_end(sampler, n, increments) - exact for n in STEPS]
    errors = [float(end.square().mean().sqrt()) for end in ends]
    scale = [n**-guess - FINEST**-guess for n in STEPS]
    return guess * math.log(errors[0] / errors[-1]) / math.log(scale[0] / scale[-1])


@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
def test_strong_order(sampler: Sampler) -> None:
    assert sampler.strong_order is not None
    slope = strong_slope(sampler, sampler.strong_order)
    assert abs(slope - sampler.strong_order) <= MARGIN, slope


def test_the_clock_of_data_prediction_is_exact() -> None:
    """The noise of a step is the path's increment: two half-steps add up to it with its weights."""
    sampler = registry()["sde-dpmpp-1"]
    grids = [uniform_grid(SCHEDULES["vp"], n, 0) for n in (1, 2)]
    one, two = (sampler.tableau(grid) for grid in grids)
    snr = signal_to_noise(grids[1].points)
    carried = two.rows[0].noise * two.rows[1].points[0, 0], two.rows[1].noise
    parts = [float(part) for part in carried]
    widths = [float(width) for width in snr.diff()]
    total = float(one.rows[0].noise)
    for part, width in zip(parts, widths, strict=True):
        assert part / total == pytest.approx(math.sqrt(width / sum(widths)), rel=1e-12)


def test_options_reach_the_table() -> None:
    sampler = registry()["sde-dpmpp-2m"]
    grid = uniform_grid(SCHEDULES["ve"], 4, 0)
    noises: Mapping[float, float] = {
        eta: float(sampler.tableau(grid, {"eta": eta}).rows[2].noise) for eta in (0.0, 0.5, 1.0)
    }
    assert noises[0.0] == 0 < noises[0.5] < noises[1.0]
