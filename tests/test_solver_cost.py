"""The solver's own error as a penalty: zero where steps are exact, its closed form elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import pytest
import torch
from torch import Tensor, nn

from adjoint import solver_cost_penalty
from samplers.denoiser import Denoiser
from samplers.methods.embedded import BOGACKI_SHAMPINE, DORMAND_PRINCE, Embedded
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.registry import list_samplers
from samplers.schedule import EDM, FlowMatching, Schedule, VPLinear
from samplers.training import seeded

SCHEDULES: list[Schedule] = [VPLinear(), EDM(), FlowMatching()]


class Range(TypedDict):
    """Where the steps begin and end."""

    sigma_min: float
    sigma_max: float


RANGE: Range = {"sigma_min": 0.02, "sigma_max": 50.0}


class Normal(nn.Module):
    """The exact denoiser of N(0, s^2 I), with a wave of some amplitude on top of it."""

    def __init__(self, schedule: Schedule, s: float, amplitude: float = 0.0) -> None:
        super().__init__()
        self.schedule, self.s = schedule, s
        self.amplitude = nn.Parameter(torch.tensor(amplitude, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        at = self.schedule.point(t)
        alpha, sigma = at.alpha[:, None], at.sigma[:, None]
        variance = alpha.square() * self.s**2 + sigma.square()
        return alpha * self.s**2 / variance * x + self.amplitude * (8 * x / variance.sqrt()).sin()


def data(s: float) -> Tensor:
    return s * torch.randn(64, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("method", list_samplers("adaptive"))
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_ways_that_a_method_goes_exactly_cost_nothing(schedule: Schedule, method: str) -> None:
    """In the angle nothing moves if the data is standard normal; x_0 and eps are constant along
    the ways of a single image, which is what DPM-Solver expands."""
    s = 0.0 if method.startswith("dpm") else 1.0
    network = Normal(schedule, s)
    model = Denoiser(network, schedule, "sample")
    penalty = solver_cost_penalty(model, method=method, **RANGE)
    found = penalty(network, (data(s),), seeded(0))
    assert float(found.detach()) < 1e-24


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    ("method", "pair"),
    [("bogacki-shampine", BOGACKI_SHAMPINE), ("dormand-prince", DORMAND_PRINCE)],
)
def test_the_error_of_a_linear_slope_is_its_closed_form(
    schedule: Schedule, method: str, pair: Embedded
) -> None:
    r"""dx/dphi = a(phi) x with a = sin cos (1 - s^2) / (s^2 cos^2 + sin^2): error = x P(phi, h)."""
    s, steps = 0.4, 7
    network = Normal(schedule, s)
    model = Denoiser(network, schedule, "sample")
    penalty = solver_cost_penalty(model, 3.0, method=method, steps=steps, **RANGE)
    found = penalty(network, (data(s),), seeded(0))

    def rate(phi: Tensor) -> Tensor:
        return phi.sin() * phi.cos() * (1 - s**2) / (s**2 * phi.cos() ** 2 + phi.sin() ** 2)

    ends = [math.atan(rho) for rho in (RANGE["sigma_min"], RANGE["sigma_max"])]
    h = (ends[1] - ends[0]) / steps
    generator = seeded(0)
    u = torch.rand(64, generator=generator, dtype=torch.float64)
    phi = ends[0] + h + u * (ends[1] - ends[0] - h)
    eps = torch.randn(64, 3, generator=generator).double()
    x = phi.cos()[:, None] * data(s) + phi.sin()[:, None] * eps
    factors = [rate(phi)]
    for c, weights in zip(pair.butcher.c[1:], pair.butcher.a[1:], strict=True):
        factors.append(rate(phi - c * h) * (1 - h * combined(weights, factors)))
    error = -h * combined(pair.error, factors)
    expected = 3 * float((error[:, None] * x).square().mean()) / h**2
    assert float(found.detach()) == pytest.approx(expected, rel=1e-8)


def combined(weights: Sequence[float], factors: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * k for w, k in zip(weights, factors, strict=True)]).sum(dim=0)


def test_what_is_penalised_more_takes_more_calls() -> None:
    schedule, s = VPLinear(), 0.5
    x_T = torch.randn(16, 3, generator=seeded(2), dtype=torch.float64)
    costs, calls = [], []
    for amplitude in (0.0, 0.003, 0.01):
        network = Normal(schedule, s, amplitude)
        model = Denoiser(network, schedule, "sample")
        penalty = solver_cost_penalty(model)(network, (data(s),), seeded(0))
        (slope,) = torch.autograd.grad(penalty, network.amplitude)
        assert amplitude == 0 or float(slope) > 0
        costs.append(float(penalty.detach()))
        with torch.no_grad():
            found = sample_adaptive(
                model, x_T, settings=Adaptive(rtol=1e-3, atol=1e-3, max_nfe=5000)
            )
        calls.append(float(found.nfe.double().mean()))
    assert costs == sorted(costs)
    assert calls == sorted(calls)
    assert calls[-1] > 1.5 * calls[0]


def test_impossible_settings_are_refused() -> None:
    model = Denoiser(Normal(VPLinear(), 1.0), VPLinear(), "sample")
    with pytest.raises(ValueError, match="must be 0 or more"):
        solver_cost_penalty(model, -1.0)
    with pytest.raises(ValueError, match="must be at least 1"):
        solver_cost_penalty(model, steps=0)
    with pytest.raises(ValueError, match="bogacki"):
        solver_cost_penalty(model, method="bogaki-shampine")
