r"""``sample``: what the executor gives, at both ends of the noise, and what is refused.

Also its gradient: through every sampler, to the starting noise and to the network's weights, it
equals central differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import samplers
from samplers.denoiser import Denoiser
from samplers.errors import NotFiniteError
from samplers.grid import Grid, make_grid
from samplers.methods import pf_ode
from samplers.noise import RowNoise
from samplers.prediction import PredictionType, clip
from samplers.registry import Sampler, get_sampler, registry
from samplers.sampling import build_tableau, sample
from samplers.schedule import EDM, FlowMatching, Schedule, VPDiscrete, VPLinear
from samplers.solve import Solver, State
from tests.convergence import finish, without_noise
from tests.mixture import PLANE
from tests.test_schedule import zero_terminal

EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
SEEDS = (1, 2, 3)
# Methods that expand in the log-SNR or in rho start where it is finite; the first step is DDIM's.
ENDS: dict[str, tuple[Schedule, PredictionType]] = {
    "flow": (FlowMatching(), "flow"),
    "zero-terminal": (zero_terminal(), "v_prediction"),
}


def start(count: int = len(SEEDS), dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 2, dtype=torch.float64, generator=generator).to(dtype)


def test_the_public_face() -> None:
    assert samplers.sample is sample
    assert set(samplers.__all__) >= {"Sampler", "get_sampler", "list_samplers", "sample"}
    assert samplers.list_samplers("fixed-grid") == list(registry())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@EACH
def test_it_is_the_executor_on_a_grid(sampler: Sampler, dtype: torch.dtype) -> None:
    schedule = VPLinear()
    model = PLANE.model(schedule, "epsilon")
    x = start(dtype=dtype)
    found = sample(model, x, sampler=sampler.name, steps=4, grid="karras", seeds=SEEDS)
    on = make_grid(schedule, 4, "karras")
    solver = Solver(sampler.tableau(on), "epsilon", RowNoise(SEEDS, (2,)))
    assert found.dtype == dtype
    assert torch.equal(found, finish(solver, model, solver.init(x)).to(dtype))
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("end", ENDS)
@EACH
def test_from_no_signal_to_no_noise(sampler: Sampler, end: str) -> None:
    """alpha = 0 at the start and sigma = 0 at the end, in one, two and three steps."""
    schedule, kind = ENDS[end]
    model = PLANE.model(schedule, kind)
    for steps in (1, 2, 3):
        grid = make_grid(schedule, steps)
        assert grid.start.pure_noise
        assert grid.end.clean
        # The steps that touch an end make one call each.
        if min(steps, 2) + max(steps - 2, 0) * sampler.calls < sampler.calls:
            with pytest.raises(ValueError, match="network evaluations"):
                sampler.tableau(grid)
            continue
        x = sample(model, start(), sampler=sampler.name, grid=grid, seeds=SEEDS)
        assert bool(x.isfinite().all())
        if steps == 1:
            torch.testing.assert_close(x, PLANE.mean.expand(3, 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["epsilon", "score"])
@EACH
def test_noise_prediction_is_refused_at_no_signal(sampler: Sampler, kind: PredictionType) -> None:
    calls: list[int] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(1)
        return x

    with pytest.raises(ValueError, match=r"alpha = 0.*sigma_max"):
        sample(
            Denoiser(model, FlowMatching(), kind),
            start(),
            sampler=sampler.name,
            steps=3,
            seeds=SEEDS,
        )
    assert not calls


@pytest.mark.parametrize(
    "sampler", [s for s in registry().values() if s.order], ids=lambda s: s.name
)
def test_more_steps_come_nearer(sampler: Sampler) -> None:
    """Without noise, to the same point; with it, samples stay samples of the data."""
    schedule = EDM()
    model = PLANE.model(schedule, "sample")
    options = without_noise(sampler)

    def run(name: str, steps: int, options: dict[str, Any]) -> Tensor:
        return sample(
            model,
            80 * start(),
            sampler=name,
            steps=steps,
            grid="log-snr",
            sigma_min=0.02,
            seeds=SEEDS,
            options=options,
        )

    exact = run("rk4", 150, {})
    # Freezing the drift of the reverse SDE costs reverse diffusion four times the steps.
    steps = (64, 256) if sampler.name.startswith("reverse-diffusion") else (16, 64)
    errors = [float((run(sampler.name, n, options) - exact).abs().max()) for n in steps]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


# Gradients.


@EACH
def test_gradients_flow_through_every_sampler(sampler: Sampler) -> None:
    schedule = FlowMatching()
    weight = torch.tensor([0.8, -0.4], dtype=torch.float64)

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        def model(x: Tensor, t: Tensor) -> Tensor:
            return torch.tanh(x * weight[0] + weight[1]) * (1 + t[:, None])

        own = Denoiser(model, schedule, "flow")
        end = sample(own, x, sampler=sampler.name, steps=3, sigma_max=5.0, seeds=SEEDS[:1])
        return end.square().sum()

    inputs = (start(1).requires_grad_(), weight.clone().requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def test_no_graph_is_kept_under_no_grad() -> None:
    with torch.no_grad():
        x = sample(Denoiser(lambda x, t: x, VPLinear()), start().requires_grad_(), steps=2)
    assert not x.requires_grad


# What it is given.


def test_a_callback_sees_every_state() -> None:
    seen: list[int] = []
    finished: list[Tensor] = []

    def callback(state: State) -> None:
        seen.append(state.row)
        finished.append(state.x)

    x = sample(Denoiser(lambda x, t: x, VPLinear()), start(), steps=5, callback=callback)
    assert seen == [1, 2, 3, 4, 5]
    assert torch.equal(finished[-1], x)


def test_a_method_of_ones_own_is_a_sampler() -> None:
    schedule = VPLinear()
    model = PLANE.model(schedule, "epsilon")
    own = sample(model, start(), sampler=pf_ode.ddim, steps=5)
    assert torch.equal(own, sample(model, start(), sampler="ddim", steps=5))
    grid = make_grid(schedule, 5)
    assert build_tableau(pf_ode.ddim, grid).to_json() == build_tableau("ddim", grid).to_json()


def test_options_and_corrections_reach_the_sampler() -> None:
    model = PLANE.model(VPLinear(), "epsilon")
    arguments: dict[str, Any] = {"steps": 5, "seeds": SEEDS}
    still = sample(model, start(), sampler="ancestral", options={"eta": 0.0}, **arguments)
    torch.testing.assert_close(
        still, sample(model, start(), sampler="ddim", **arguments), rtol=0, atol=1e-12
    )
    clipped = sample(replace(model, correction=clip(0.2)), start(), sampler="dpmpp-2m", **arguments)
    assert float(clipped.abs().max()) <= 0.2


def test_the_end_and_range_of_the_grid_can_be_set() -> None:
    seen: list[float] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return x

    grid_ends: dict[str, Any] = {"sigma_min": 0.5, "sigma_max": 8.0, "final": "sigma_min"}
    sample(Denoiser(model, EDM()), start(), steps=3, grid="log-snr", **grid_ends)
    assert seen == pytest.approx([8.0, 8.0 * (1 / 16) ** (1 / 3), 8.0 * (1 / 16) ** (2 / 3)])


def test_seeds_make_noise_a_function_of_the_sample() -> None:
    schedule = VPLinear()

    def run(seeds: tuple[int, ...], x: Tensor) -> Tensor:
        return sample(
            Denoiser(lambda x, t: x * 0.5, schedule), x, sampler="ancestral", steps=4, seeds=seeds
        )

    x = start()
    whole = run(SEEDS, x)
    assert torch.equal(run(SEEDS[1:2], x[1:2])[0], whole[1])
    assert not torch.equal(run((4, 5, 6), x), whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_network_that_fails_is_named_with_its_call(bad: float) -> None:
    calls: list[Tensor] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(x)
        return x * bad if len(calls) == 3 else x

    with pytest.raises(NotFiniteError, match="evaluation 3 of 5") as caught:
        sample(Denoiser(model, VPLinear()), start(), steps=5)
    assert torch.equal(caught.value.x, calls[-1])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "whole number from 1"),
    ({"steps": -1}, "whole number from 1"),
    ({"sampler": "dpmpp-2x"}, "did you mean"),
    ({"grid": "even"}, "must be one of"),
    ({"conditions": {"label": torch.zeros(2)}}, "2 rows for 3 samples"),
    ({"seeds": (1, 2)}, "2 seeds came for 3 samples"),
    ({"seeds": (1, 2, -3)}, "whole numbers"),
    ({"sampler": "ancestral"}, "seeds"),
    ({"options": {"eta": 7.0}, "sampler": "ancestral", "seeds": SEEDS}, "eta"),
    ({"options": {"speed": 7.0}}, "no option 'speed'"),
    ({"sampler": "heun", "steps": 1}, "2 network evaluations"),
    ({"sigma_min": 0.0}, "sigma_min"),
    ({"final": "one"}, "ends at"),
    ({"x_T": torch.full((3, 2), torch.nan)}, "x_T holds NaN"),
    ({"x_T": torch.zeros(3, 2, dtype=torch.long)}, r"torch\.int64; it must be one of floats"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_impossible_settings_are_refused(arguments: dict[str, Any], said: str) -> None:
    calls: list[int] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(1)
        return x

    with pytest.raises(ValueError, match=said):
        sample(Denoiser(model, VPLinear()), **{"x_T": start(), **arguments})
    assert not calls


def test_a_network_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        sample(Denoiser(lambda x, t: x[:, :1], VPLinear()), start(), steps=2)


def on_times(schedule: Schedule, times: list[float]) -> Grid:
    return Grid(schedule, schedule.point(torch.tensor(times, dtype=torch.float64)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: on_times(VPLinear(), [0.9, 0.5, 0.2]),
        lambda: on_times(VPDiscrete.linear(), [900.0, 450.5, 3.0]),
    ],
)
def test_a_grid_of_ones_own_is_used_as_it_is(make: Callable[[], Grid]) -> None:
    grid = make()
    seen: list[float] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return x

    sample(Denoiser(model, grid.schedule), start(), grid=grid, sampler="ddim", steps=77)
    assert seen == grid.points.t[:-1].tolist()
    assert get_sampler("ddim").tableau(grid).calls == len(seen)
