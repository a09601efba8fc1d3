r"""AdjointDPM's gradients: their orders against the exact one, and where they fail.

The data are Gaussian mixtures with exact score, so that no network blurs the slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from adjoint import AbstractAdjoint, BacksolveAdjoint, CheckpointAdjoint, ContinuousAdjoint
from samplers import sample
from samplers.denoiser import Denoiser
from samplers.grid import make_grid
from samplers.registry import Sampler, get_sampler, registry
from samplers.schedule import FlowMatching, Schedule, VPLinear
from tests.mixture import PLANE, Mixture
from tests.test_adjoint import error, gradients

EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
SCHEDULE = VPLinear()
COUNT = 4


class Problem:
    """A mixture whose perfect network is bent by a parameter and a condition."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.perfect = PLANE.model(schedule, "v_prediction")
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(COUNT, 2, dtype=torch.float64, generator=generator).requires_grad_()
        shifts = torch.linspace(-0.5, 0.5, 2 * COUNT, dtype=torch.float64)
        self.condition = shifts.reshape(COUNT, 2).requires_grad_()
        self.theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def model(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls += 1
        return self.perfect(x, t) + self.theta * torch.sin(x + condition)

    @property
    def tensors(self) -> list[Tensor]:
        return [self.x, self.condition, self.theta]

    def draw(
        self, adjoint: AbstractAdjoint | None, sampler: str, steps: int, **kwargs: Any
    ) -> Tensor:
        settings = {"grid": "log-snr", "sigma_min": 0.1, "sigma_max": 8.0}
        return sample(
            Denoiser(self.model, self.schedule, "v_prediction"),
            self.x,
            sampler=sampler,
            steps=steps,
            seeds=range(COUNT),
            conditions={"condition": self.condition},
            adjoint=adjoint,
            **{**settings, **kwargs},
        )


def slopes(errors: Sequence[float]) -> list[float]:
    """Of each doubling of the steps, in powers of two."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


ORDERS: list[Any] = [
    (ContinuousAdjoint(order=1), "ddim", 1),
    (ContinuousAdjoint(order=1), "dpmpp-2m", 1),
    (ContinuousAdjoint(order=2), "dpmpp-2m", 2),
    (ContinuousAdjoint(order=2), "heun", 2),
    (BacksolveAdjoint(order=1), "ddim", 1),
    (BacksolveAdjoint(order=2), "dpmpp-2m", 2),
    pytest.param(ContinuousAdjoint(order=1, eta=1.0), "sde-dpmpp-2m", 1, marks=pytest.mark.slow),
    pytest.param(
        ContinuousAdjoint(order=1, eta=1.0), "sde-dpm-solver-1", 1, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize(("adjoint", "sampler", "order"), ORDERS, ids=str)
def test_orders(adjoint: AbstractAdjoint, sampler: str, order: int, final: str) -> None:
    """The deviation from the exact gradient falls with the steps; along one path of an SDE."""
    problem = Problem(SCHEDULE)
    noise = "brownian" if get_sampler(sampler).stochastic else "independent"
    errors = []
    for steps in (64, 128) if noise == "brownian" else (128, 256):
        settings = {"noise": noise, "final": final}
        exact = gradients(problem.draw(None, sampler, steps, **settings), problem.tensors)
        found = gradients(problem.draw(adjoint, sampler, steps, **settings), problem.tensors)
        errors.append(error(found, exact))
    assert slopes(errors)[-1] == pytest.approx(order, abs=0.2)


def test_euler_is_the_published_recursion() -> None:
    r"""``a_{i+1} = a_i - (rho_{i+1} - rho_i) a_i^T d eps(y_i) / dy``, with J at the newer point."""
    problem, steps = Problem(SCHEDULE), 5
    grid = make_grid(SCHEDULE, steps, "log-snr", sigma_min=0.1, sigma_max=8.0, final="sigma_min")
    points: list[Tensor] = []
    problem.draw(
        CheckpointAdjoint(), "ddim", steps, final="sigma_min", callback=lambda s: points.append(s.x)
    )
    wanted = torch.ones(COUNT, 2, dtype=torch.float64)
    end = grid[steps]
    a = end.alpha * wanted
    for number in range(steps, 0, -1):
        at, older = grid[number], grid[number - 1]
        y = (points[number - 1] / at.alpha).detach().requires_grad_()

        def noise(y: Tensor, at: Any = at) -> Tensor:
            x = at.alpha * y
            v = problem.model(x, at.t.expand(COUNT), problem.condition)
            return (at.sigma * x + at.alpha * v) / (at.alpha**2 + at.sigma**2)

        (product,) = torch.autograd.grad(noise(y), y, a)
        a = a - (older.rho - at.rho) * product
    finished = problem.draw(ContinuousAdjoint(), "ddim", steps, final="sigma_min")
    (found,) = torch.autograd.grad(finished, problem.x, wanted)
    torch.testing.assert_close(found, a / grid.start.alpha, rtol=1e-10, atol=1e-10)


def test_pure_noise_is_crossed_exactly() -> None:
    """A run from pure noise converges like one from below it."""
    problem, errors = Problem(FlowMatching()), []
    for steps in (64, 128, 256):
        ends = {"sigma_max": None}
        exact = gradients(problem.draw(None, "ddim", steps, **ends), problem.tensors)
        found = gradients(problem.draw(ContinuousAdjoint(), "ddim", steps, **ends), problem.tensors)
        errors.append(error(found, exact))
    assert slopes(errors)[-1] == pytest.approx(1, abs=0.25)


def test_fewer_steps_back_cost_less_and_err_more() -> None:
    problem, steps = Problem(SCHEDULE), 80
    exact = gradients(problem.draw(None, "dpmpp-2m", steps), problem.tensors)
    errors = []
    for back in (20, 40, 79):
        adjoint = ContinuousAdjoint(order=2, steps=back)
        cost = adjoint.cost(get_sampler("dpmpp-2m").tableau(make_grid(SCHEDULE, steps)))
        problem.calls = 0
        finished = problem.draw(adjoint, "dpmpp-2m", steps)
        assert problem.calls == cost.forward == steps
        errors.append(error(gradients(finished, problem.tensors), exact))
        assert problem.calls - cost.forward == cost.recomputed == back + 1
    assert errors[0] > errors[1] > errors[2]


def strongly_guided(scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Guidance from six wide components towards four narrow ones, in four dimensions."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    eye = torch.eye(4, dtype=torch.float64).expand(6, 4, 4)
    wide = Mixture(torch.full((6,), 1 / 6, dtype=torch.float64), means, eye)
    narrow = Mixture(torch.full((4,), 1 / 4, dtype=torch.float64), means[:4], 0.02 * eye[:4])
    free, towards = (data.model(SCHEDULE, "epsilon") for data in (wide, narrow))
    return lambda x, t: free(x, t) + scale * (towards(x, t) - free(x, t))


def test_back_solving_diverges_under_strong_guidance() -> None:
    """At scale 7.5 its points leave those of the sampler; along the recorded ones it converges."""
    model = strongly_guided(7.5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()

    def of(adjoint: AbstractAdjoint | None, steps: int) -> list[Tensor]:
        settings: dict[str, Any] = {"sampler": "ddim", "steps": steps, "grid": "uniform"}
        finished = sample(Denoiser(model, SCHEDULE), x, adjoint=adjoint, **settings)
        return gradients(finished, [x])

    back, along = [], []
    for steps in (50, 100, 200):
        exact = of(None, steps)
        back.append(error(of(BacksolveAdjoint(), steps), exact))
        along.append(error(of(ContinuousAdjoint(), steps), exact))
    assert min(back) > 100
    assert along[-1] < 0.5
    assert along[0] > along[1] > along[2]


@EACH
def test_samplers_are_served_or_refused_with_a_reason(sampler: Sampler) -> None:
    tableau = sampler.tableau(make_grid(SCHEDULE, 6))
    free = any(row.noisy and row.path is None for row in tableau.rows)
    ends_with_data = bool((tableau.rows[-1].points[-1].abs() < 1e-12).all())
    eta = float(sampler.stochastic)
    assert (ContinuousAdjoint(eta=eta).refusal(tableau) is None) == (ends_with_data and not free)
    assert ContinuousAdjoint(eta=1 - eta).refusal(tableau) is not None
    served = ends_with_data and not sampler.stochastic
    assert (BacksolveAdjoint().refusal(tableau) is None) == served
    problem = Problem(SCHEDULE)
    for adjoint in (ContinuousAdjoint(eta=eta), BacksolveAdjoint()):
        if adjoint.refusal(tableau) is not None:
            with pytest.raises(ValueError, match=r"take|leave"):
                problem.draw(adjoint, sampler.name, 6)
        else:
            finished = problem.draw(adjoint, sampler.name, 6)
            assert torch.equal(finished, problem.draw(None, sampler.name, 6))
            assert all(bool(g.isfinite().all()) for g in gradients(finished, problem.tensors))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ContinuousAdjoint(order=3), "must be 1 or 2"),
        (lambda: BacksolveAdjoint(order=0), "must be 1 or 2"),
        (lambda: ContinuousAdjoint(steps=0), "must have at least 1"),
        (lambda: ContinuousAdjoint(eta=-1.0), "zero or positive"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_no_equation_leads_back_to_pure_noise() -> None:
    with pytest.raises(ValueError, match="pure noise"):
        Problem(FlowMatching()).draw(BacksolveAdjoint(), "ddim", 5, sigma_max=None)
    with pytest.raises(ValueError, match="The adjoint has 9 steps"):
        Problem(SCHEDULE).draw(ContinuousAdjoint(steps=9), "ddim", 5)
