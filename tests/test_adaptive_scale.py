r"""Adaptive step size on data of any scale: the error relative to the data follows the tolerance.

Mixtures with exact denoiser in float64, times 0.1 to 40; the reference is DOP853 at 1e-12.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.methods.embedded import Parts
from samplers.probability_flow.adaptive import AdaptiveResult, encode_adaptive, sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.units import data_scale, inward, outward
from samplers.sampling import sample
from samplers.schedule import EDM, Schedule, VPLinear
from tests.mixture import PLANE, Flow, Mixture

SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "edm": EDM(0.002, 300.0)}
SCALES = (0.1, 1.0, 40.0)
COUNT = 8


def space() -> Mixture:
    """Ten narrow components in 16 dimensions."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(10, 16, generator=generator, dtype=torch.float64)
    deviations = 0.1 + 0.2 * torch.rand(10, generator=generator, dtype=torch.float64)
    eye = torch.eye(16, dtype=torch.float64)
    covariances = deviations.square()[:, None, None] * eye
    return Mixture(torch.full((10,), 0.1, dtype=torch.float64), means, covariances)


DATA = {"plane": PLANE, "space": space()}


class Problem(NamedTuple):
    """A model, states at its noisiest level, the exact x_0, and the scale of the data."""

    model: Denoiser
    x: Tensor
    exact: Tensor
    scale: float

    def error(self, x: Tensor) -> float:
        """The median error of the samples in units of the data."""
        return float((x - self.exact).square().mean(dim=1).sqrt().median()) / self.scale


@cache
def problem(data: str, scale: float, schedule: Schedule) -> Problem:
    mixture = DATA[data].affine(scale, torch.zeros_like(DATA[data].mean))
    top, bottom = schedule.noisiest, schedule.cleanest
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(COUNT, len(mixture.mean), generator=generator, dtype=torch.float64)
    y = mixture.mean + noise * (top.rho**2 + mixture.covariance.diagonal()).sqrt()
    start, end = float(top.lam), float(bottom.lam)
    last = Flow(mixture, y, start, start, end)(end)
    exact = mixture.denoise(last, torch.ones_like(bottom.rho), bottom.rho)
    square = mixture.covariance.diagonal() + mixture.mean.square()
    return Problem(
        mixture.model(schedule, "sample"), top.alpha * y, exact, float(square.mean().sqrt())
    )


@pytest.mark.parametrize("method", ["bogacki-shampine", "dormand-prince", "dpmpp-23"])
@pytest.mark.parametrize("scale", [0.1, 40.0])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_error_follows_the_tolerance(name: str, scale: float, method: str) -> None:
    task = problem("plane", scale, SCHEDULES[name])
    tolerances = (1e-2, 1e-3, 1e-4)
    errors = [
        task.error(sample_adaptive(task.model, task.x, settings=Adaptive(method, tol, tol, 5000)).x)
        for tol in tolerances
    ]
    assert all(e <= 10 * tol for e, tol in zip(errors, tolerances, strict=True)), errors
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_default_errs_no_more_than_a_grid_of_equal_cost(
    name: str, scale: float, data: str
) -> None:
    task = problem(data, scale, SCHEDULES[name])
    found = sample_adaptive(task.model, task.x)
    steps = math.ceil(float(found.nfe.double().mean()))
    fixed = sample(task.model, task.x, sampler="dpmpp-2m", grid="log-snr", steps=steps)
    # In most cases half of it, at worst 1.4 times.
    assert task.error(found.x) <= 1.5 * task.error(fixed)


@pytest.mark.parametrize("method", ["bogacki-shampine", "dpmpp-23"])
@pytest.mark.parametrize("towards", ["data", "noise"])
def test_scaled_data_take_the_same_steps(towards: str, method: str) -> None:
    """Data times 40 at noise times 40 are the same data in other units."""

    def run(scale: float) -> AdaptiveResult:
        schedule = EDM(0.01 * scale, 80.0 * scale)
        model = PLANE.affine(scale, torch.zeros(2).double()).model(schedule, "sample")
        generator = torch.Generator().manual_seed(3)
        unit = scale * torch.randn(8, 2, generator=generator, dtype=torch.float64)
        settings = Adaptive(method, 1e-3, 1e-3)
        if towards == "noise":
            return encode_adaptive(model, unit, settings=settings)
        return sample_adaptive(model, 80 * unit, settings=settings)

    found, expected = run(40.0), run(1.0)
    assert torch.equal(found.nfe, expected.nfe)
    torch.testing.assert_close(found.x / 40, expected.x, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("ratio", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("scale", SCALES)
def test_the_scale_of_gaussian_data_is_found(scale: float, ratio: float, mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 1, 20_000, generator=generator, dtype=torch.float64)
    rho = ratio * scale
    y = scale * (mean + data) + rho * noise
    predicted = scale * mean + (y - scale * mean) / (1 + ratio**2)
    angle = math.atan(rho)
    x, eps = y / math.hypot(1, rho), (y - predicted) / rho
    slope = math.cos(angle) * eps - math.sin(angle) * predicted
    found = data_scale(Parts((x,)), Parts((slope,)), angle)
    assert found == pytest.approx(scale * math.hypot(1, mean), rel=0.25)


def test_nothing_is_known_of_the_scale_at_pure_noise() -> None:
    x, slope = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    assert data_scale(Parts((x,)), Parts((slope,)), math.pi / 2) == 1


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2])
def test_angles_there_and_back(angle: float) -> None:
    assert math.tan(inward(0.3, 40.0)) == pytest.approx(math.tan(0.3) / 40)
    assert outward(inward(angle, 40.0), 40.0) == pytest.approx(angle)
