r"""Predictor-corrector samplers: their laws on Gaussian data, and what the corrector alone does.

On Gaussian data the score is linear, so along each eigenvector of the covariance every point is
an affine function of the starting noise and the draws. With steps that the schedule decides, mean
and covariance follow exactly from the tableau, in any number of dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from samplers.grid import Grid, make_grid
from samplers.noise import RowNoise, initial_noise
from samplers.registry import Sampler, registry
from samplers.schedule import EDM, Schedule, SubVP, VPLinear
from samplers.solve import Solver
from samplers.tableau import Tableau
from tests.convergence import finish, uniform_grid

PAIRS = [s for s in registry().values() if "snr" in s.options]
LINEAR = [s for s in PAIRS if s.weak_order]
SCALED = [s for s in PAIRS if s.name.endswith("+langevin")]
SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "sub-vp": SubVP()}
DIMENSIONS = (2, 16, 256)
MARGIN = 0.2


def name(sampler: Sampler) -> str:
    return sampler.name


class Gaussian(NamedTuple):
    """N(0, Q diag(variances) Q^T) with Q's columns the eigenvectors."""

    variances: Tensor
    eigenvectors: Tensor

    @classmethod
    def of(cls, dimension: int) -> Gaussian:
        generator = torch.Generator().manual_seed(dimension)
        square = torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)
        variances = torch.linspace(0.05, 2.0, dimension, dtype=torch.float64)
        return cls(variances, torch.linalg.qr(square)[0])

    def marginal(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The variances along the eigenvectors at a noise level."""
        return alpha.square() * self.variances + sigma.square()

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        gain = alpha * self.variances / self.marginal(alpha, sigma)
        return ((x @ self.eigenvectors) * gain) @ self.eigenvectors.T


def final_variances(tableau: Tableau, data: Gaussian) -> Tensor:
    """The exact variances of the finished sample along the eigenvectors; its mean stays 0."""
    start = data.marginal(tableau.start.alpha, tableau.start.sigma).sqrt()
    points = [torch.stack([start, *torch.zeros(tableau.calls, len(start)).double()])]
    for number, row in enumerate(tableau.rows):
        gain = row.at.alpha * data.variances / data.marginal(row.at.alpha, row.at.sigma)
        (a,), (b,) = row.points[:, row.point_lags.index(0)], row.predictions[:, 0]
        point = (a + b * gain) * points[-1]
        point[1 + number] += row.noise[0]
        points.append(point)
    return points[-1].square().sum(dim=0)


def law_error(sampler: Sampler, schedule: Schedule, data: Gaussian, steps: int) -> float:
    """Of the covariance: corrector steps, 2 snr^2, shrink with the predictor's."""
    tableau = sampler.tableau(uniform_grid(schedule, steps, 0), {"snr": math.sqrt(0.6 / steps)})
    exact = data.marginal(tableau.end.alpha, tableau.end.sigma)
    return float((final_variances(tableau, data) - exact).norm())


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", LINEAR, ids=name)
def test_weak_order(sampler: Sampler, schedule: str, dimension: int) -> None:
    data = Gaussian.of(dimension)
    coarse, fine = (law_error(sampler, SCHEDULES[schedule], data, n) for n in (96, 192))
    assert sampler.weak_order is not None
    assert abs(math.log2(coarse / fine) - sampler.weak_order) <= MARGIN, (coarse, fine)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("sampler", LINEAR, ids=name)
def test_monte_carlo_agrees_with_the_recursion(sampler: Sampler, dimension: int) -> None:
    count, schedule, data = 2_000, SCHEDULES["vp"], Gaussian.of(dimension)
    tableau = sampler.tableau(uniform_grid(schedule, 8, 0), {"corrector_steps": 2})
    seeds = tuple(range(count))
    scale = data.marginal(tableau.start.alpha, tableau.start.sigma).sqrt()
    start = (initial_noise(seeds, (dimension,)) * scale) @ data.eigenvectors.T
    x = run(tableau, schedule, data, seeds, start) @ data.eigenvectors
    exact = final_variances(tableau, data)
    assert bool((x.mean(0).abs() <= 4 * (exact / count).sqrt()).all())
    assert bool(((x.var(0) - exact).abs() <= 4 * exact * math.sqrt(2 / count)).all())


def run(
    tableau: Tableau, schedule: Schedule, data: Gaussian, seeds: tuple[int, ...], start: Tensor
) -> Tensor:
    def model(x: Tensor, t: Tensor) -> Tensor:
        at = schedule.point(t[0].double())
        return data.denoise(x, at.alpha, at.sigma)

    solver = Solver(tableau, "sample", RowNoise(seeds, tuple(start.shape[1:])))
    return finish(solver, model, solver.init(start))


def corrections(corrector: str, snr: float, steps: int) -> Tableau:
    """A step between two levels that are almost one, then ``steps`` corrections there."""
    schedule = EDM()
    sigma = torch.tensor([1.0, 1.0 - 1e-12], dtype=torch.float64)
    grid = Grid(schedule, schedule.at_lam(-sigma.log()))
    options = {"corrector_steps": steps, "snr": snr, "eta": 0.0}
    return registry()[f"ancestral+{corrector}"].tableau(grid, options)


@pytest.mark.parametrize("snr", [0.12, 0.2, 0.4])
def test_annealed_langevin_leaves_the_marginal_up_to_its_step(snr: float) -> None:
    """The stationary variance of x' = (1 - e / v) x + sqrt(2 e) z is v / (1 - e / 2v)."""
    data, epsilon = Gaussian.of(16), 2 * snr * snr
    tableau = corrections("annealed-langevin", snr, 1 + int(40 / epsilon))
    exact = data.marginal(tableau.end.alpha, tableau.end.sigma)
    found = final_variances(tableau, data)
    torch.testing.assert_close(found, exact / (1 - epsilon / (2 * exact)), rtol=1e-6, atol=0)


def stationary_variance(batch: int, chain: int = 400, chains: int = 12) -> float:
    """Of the norm-scaled corrector on N(0, I_16), by time averages after forgetting its start."""
    tableau = corrections("langevin", 0.3, chain)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)  # the data is the origin, so the marginal is white noise

    found = []
    for repeat in range(chains):
        seeds = tuple(range(repeat * batch, (repeat + 1) * batch))
        solver = Solver(tableau, "sample", RowNoise(seeds, (16,)))
        states = list(solver.run(model, solver.init(initial_noise(seeds, (16,)))))
        found += [state.x.square().mean() for state in states[chain // 4 :: 10]]
    return float(torch.stack(found).mean())


def test_the_bias_of_norms_falls_with_the_batch() -> None:
    """Even on white noise, where the step itself leaves a variance of 1 / (1 - delta / 2)."""
    alone, together = stationary_variance(1), stationary_variance(64, chains=2)
    unscaled = 1 / (1 - 0.3**2)
    assert alone > 1.2 * unscaled
    assert abs(together - unscaled) < 0.03


@pytest.mark.parametrize("sampler", SCALED, ids=name)
def test_the_norm_scaled_step_is_that_of_the_paper(sampler: Sampler) -> None:
    """Algorithms 4 and 5: epsilon = 2 (r |z| / |s|)^2 with norms averaged over the batch."""
    schedule, snr = SCHEDULES["ve"], 0.2
    tableau = sampler.tableau(uniform_grid(schedule, 3, 0), {"snr": snr})
    noise, data = RowNoise((4, 5, 6), (16,)), Gaussian.of(16)
    solver = Solver(tableau, "sample", noise)
    first = solver.advance(
        solver.init(initial_noise((1, 2, 3), (16,))), torch.zeros(3, 16, dtype=torch.float64)
    )
    at = tableau.rows[1].at
    denoised = data.denoise(first.x, at.alpha, at.sigma)
    found = solver.advance(first, denoised).x
    score = (at.alpha * denoised - first.x) / at.sigma.square()
    z = noise(1)
    epsilon = 2 * (snr * z.norm(dim=1).mean() / score.norm(dim=1).mean()).square()
    expected = first.x + epsilon * score + torch.sqrt(2 * epsilon) * z
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SCALED, ids=name)
def test_only_norms_of_the_batch_tie_samples_together(sampler: Sampler) -> None:
    grid = uniform_grid(SCHEDULES["vp"], 3, 0)
    assert not sampler.tableau(grid).batch_invariant
    twin = registry()[sampler.name.replace("+langevin", "+annealed-langevin")]
    assert twin.tableau(grid).batch_invariant


def test_a_corrector_alone_follows_the_noise_levels() -> None:
    """Annealed Langevin dynamics lags behind the levels, the less the finer the grid."""
    data, errors = Gaussian.of(16), []
    for steps in (50, 200, 800):
        tableau = registry()["none+annealed-langevin"].tableau(
            uniform_grid(SCHEDULES["ve"], steps, 0), {"snr": 0.16}
        )
        exact = data.marginal(tableau.end.alpha, tableau.end.sigma)
        errors.append(float(((final_variances(tableau, data) - exact) / exact).max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0


@pytest.mark.parametrize("sampler", PAIRS, ids=name)
def test_nothing_is_corrected_at_either_end(sampler: Sampler) -> None:
    tableau = sampler.tableau(make_grid(VPLinear(), 5), {"corrector_steps": 2})
    assert [row.step for row in tableau.rows] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4]
    langevin = [row for k, row in enumerate(tableau.rows[:-1]) if k % 3]
    assert all(torch.equal(row.at.sigma, row.reached.sigma[0]) for row in langevin)
    assert float(langevin[0].at.sigma) < float(tableau.start.sigma)
    assert float(tableau.end.sigma) == 0
