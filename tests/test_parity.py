r"""Parity: the schedulers of diffusers 0.42 on the same noise levels and noise, and the papers.

Each diffusers scheduler is driven by its own loop in float32, on its own timesteps; ours runs on a
grid through its noise levels, and the two samples agree to 1e-5 of their size. The network is the
exact denoiser of a mixture, asked at the noise level of the coefficients. Where diffusers departs
from the paper, docs/parity.md says how ours is called. Formulas of papers are written out here in
float64 and agree to 1e-12, and so do methods that are the same under two names.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from samplers.grid import Grid, grid_from_sigmas, grid_from_times, make_grid
from samplers.prediction import PredictionType, target
from samplers.registry import get_sampler
from samplers.schedule import EDM, FlowMatching, Point, Schedule, VPDiscrete, VPLinear
from samplers.solve import Model, Solver
from samplers.tableau import Tableau
from tests.convergence import finish
from tests.mixture import PLANE

# diffusers announces the end of some options, and numpy that of some of diffusers' calls.
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-5
BATCH = 6


@dataclass(frozen=True)
class Replay:
    """Noise drawn beforehand: row k of a tableau gets the k-th draw of the other side."""

    draws: tuple[Tensor, ...]

    def __call__(self, row: int) -> Tensor:
        return self.draws[row].to(torch.float64)


def normal(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, 2, generator=generator)


def draws(count: int) -> tuple[Tensor, ...]:
    return tuple(normal(100 + i) for i in range(count))


def point(rho: float) -> Point:
    """The noise level ``rho`` where variance is preserved."""
    level = torch.tensor(rho, dtype=torch.float64)
    alpha = 1 / torch.sqrt(1 + level.square())
    return Point(level, alpha, level * alpha)


def network(x: Tensor, at: Point, kind: PredictionType) -> Tensor:
    """The exact denoiser, in float64 inside, as a prediction of this kind."""
    wide = x.to(torch.float64)
    x0 = PLANE.denoise(wide, at.alpha, at.sigma)
    return target(kind, x0, (wide - at.alpha * x0) / at.sigma, at.alpha, at.sigma).to(x.dtype)


def scheduler(name: str, steps: int, **config: Any) -> Any:
    """A scheduler of diffusers, its steps set.

    The betas end where sigma / alpha is 12, not 157: a prediction of eps in float32 is divided by
    alpha, and its rounding would hide what is compared.
    """
    known = getattr(importlib.import_module("diffusers"), name)
    betas = {"beta_end": 0.01} if "beta_end" in inspect.signature(known).parameters else {}
    made = known(**betas, **config)
    made.set_timesteps(steps)
    return made


def inject(monkeypatch: pytest.MonkeyPatch, theirs: Any, noise: Sequence[Tensor]) -> None:
    """Give the scheduler this noise, draw by draw."""
    queue = iter(noise)
    module = importlib.import_module(type(theirs).__module__)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(queue), raising=False)


def run_theirs(
    theirs: Any,
    start: Tensor,
    levels: Sequence[float],
    kind: PredictionType,
    before: Callable[[int], None] = lambda call: None,
    **options: Any,
) -> Tensor:
    """diffusers' own loop; ``levels`` are the noise levels of its calls."""
    x = start
    for call, t in enumerate(theirs.timesteps):
        before(call)
        seen = theirs.scale_model_input(x, t)
        x = theirs.step(network(seen, point(levels[call]), kind), t, x, **options).prev_sample
    return x


def run_ours(tableau: Tableau, model: Model, start: Tensor, kind: PredictionType) -> Tensor:
    noise = Replay(draws(tableau.calls)) if tableau.stochastic else None
    solver = Solver(tableau, kind, noise)
    return finish(solver, model, solver.init(start))


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.dtype == theirs.dtype == torch.float32
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


@dataclass(frozen=True)
class Case:
    """One scheduler with its settings, and our sampler with its options.

    scaled: its state is x / alpha (the Euler family), not the network's own x.
    """

    theirs: str
    ours: str
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = False
    steps: tuple[int, ...] = (4, 10, 20)

    def __str__(self) -> str:
        settings = "-".join(str(value) for value in self.config.values())
        return f"{self.theirs.removesuffix('Scheduler')}-{self.ours}-{settings}"


MULTI = "DPMSolverMultistepScheduler"
UNIPC = "UniPCMultistepScheduler"
OPEN = {"final_sigmas_type": "sigma_min"}


def multistep(ours: str, algorithm: str, order: int, **config: Any) -> Case:
    return Case(MULTI, ours, {"algorithm_type": algorithm, "solver_order": order, **config})


def unipc(ours: str, order: int, variant: str, *, data: bool = True) -> Case:
    config: dict[str, Any] = {"solver_order": order, "solver_type": variant, "predict_x0": data}
    if data and variant == "bh2":
        return Case(UNIPC, ours, config)
    # The other variants are not a number at sigma = 0.
    return Case(UNIPC, ours, {**config, **OPEN}, {} if data else {"predicting": "noise"})


LEADING = {"timestep_spacing": "leading", "clip_sample": False}
CASES = [
    Case("EulerDiscreteScheduler", "ddim", {}, scaled=True),
    Case("EulerDiscreteScheduler", "euler", {"use_karras_sigmas": True}, scaled=True),
    Case("HeunDiscreteScheduler", "heun", {}, scaled=True),
    Case("HeunDiscreteScheduler", "heun", {"use_karras_sigmas": True}, scaled=True),
    Case("KDPM2DiscreteScheduler", "dpm-solver-2", {}, scaled=True),
    Case("EulerAncestralDiscreteScheduler", "ancestral", {}, scaled=True),
    multistep("ddim", "dpmsolver++", 1),
    multistep("dpmpp-2m", "dpmsolver++", 2),
    multistep("dpmpp-2m", "dpmsolver++", 2, use_karras_sigmas=True),
    multistep("dpmpp-2m", "dpmsolver++", 2, use_lu_lambdas=True),
    multistep("dpmpp-3m-reference", "dpmsolver++", 3),
    multistep("ddim", "dpmsolver", 1, **OPEN),
    multistep("dpm-solver-2m", "dpmsolver", 2, **OPEN),
    multistep("dpm-solver-3m-reference", "dpmsolver", 3, **OPEN),
    multistep("mr-ode-d-2", "dpmsolver++", 2, solver_type="heun"),
    multistep("mr-ode-n-2", "dpmsolver", 2, solver_type="heun", **OPEN),
    multistep("mr-sde-d-2", "sde-dpmsolver++", 2, solver_type="heun"),
    multistep("mr-sde-n-2", "sde-dpmsolver", 2, solver_type="heun", **OPEN),
    multistep("sde-dpmpp-1", "sde-dpmsolver++", 1),
    multistep("sde-dpmpp-2m", "sde-dpmsolver++", 2),
    multistep("sde-dpm-solver-1", "sde-dpmsolver", 1, **OPEN),
    multistep("sde-dpm-solver-2m", "sde-dpmsolver", 2, **OPEN),
    *(unipc(f"unipc-{k}", k, "bh2") for k in (1, 2, 3)),
    *(unipc(f"unipc-{k}-b1", k, "bh1") for k in (1, 2, 3)),
    *(unipc(f"unipc-{k}", k, "bh2", data=False) for k in (1, 2, 3)),
    unipc("unipc-2-b1", 2, "bh1", data=False),
    Case("DEISMultistepScheduler", "deis-1", {"solver_order": 1}),
    Case("DEISMultistepScheduler", "deis-2", {"solver_order": 2}),
]


def options(case: Case, steps: int) -> dict[str, Any]:
    """diffusers lowers the order of the last steps, but (UniPC apart) only of short runs."""
    available = get_sampler(case.ours).options
    lowered = {"lower_order_final": case.theirs == UNIPC or steps < 15}
    return {**{k: v for k, v in lowered.items() if k in available}, **case.options}


def levels_of(theirs: Any) -> tuple[list[float], list[float]]:
    """The noise levels of a scheduler's grid, and of its network calls."""
    sigmas = [float(sigma) for sigma in theirs.sigmas]
    calls = [float(s) for s in getattr(theirs, "sigmas_interpol", theirs.sigmas)]
    if hasattr(theirs, "sigmas_interpol"):
        calls = [b if i % 2 else a for i, (a, b) in enumerate(zip(sigmas, calls, strict=True))]
    return list(dict.fromkeys(sigmas)), calls


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_diffusers(case: Case, kind: PredictionType, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in case.steps:
        theirs = scheduler(case.theirs, steps, prediction_type=kind, **case.config)
        levels, calls = levels_of(theirs)
        schedule = VPDiscrete(theirs.alphas_cumprod)
        grid = grid_from_sigmas(schedule, levels)
        tableau = get_sampler(case.ours).tableau(grid, options(case, steps))
        assert tableau.calls == len(theirs.timesteps)
        inject(monkeypatch, theirs, draws(tableau.calls))

        def model(x: Tensor, t: Tensor, schedule: Schedule = schedule) -> Tensor:
            return network(x, schedule.point(t[0]), kind)

        start = normal(1)
        scale = float(grid.start.alpha) if case.scaled else 1.0
        found = run_theirs(theirs, start / scale, calls, kind)
        found = found * float(grid.end.alpha) if case.scaled else found
        close(run_ours(tableau, model, start, kind), found)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_diffusers_lms_until_its_last_interval(kind: PredictionType) -> None:
    """diffusers extrapolates over the interval to sigma = 0, which ours crosses as DDIM."""
    for steps in (4, 10, 20):
        theirs = scheduler("LMSDiscreteScheduler", steps, prediction_type=kind)
        levels, calls = levels_of(theirs)
        schedule = VPDiscrete(theirs.alphas_cumprod)
        grid = grid_from_sigmas(schedule, levels)
        solver = Solver(get_sampler("lms-4").tableau(grid), kind, None)

        def model(x: Tensor, t: Tensor, schedule: Schedule = schedule) -> Tensor:
            return network(x, schedule.point(t[0]), kind)

        *_, before, _ = solver.run(model, solver.init(normal(1)))
        theirs.timesteps = theirs.timesteps[:-1]
        found = run_theirs(theirs, normal(1) / float(grid.start.alpha), calls, kind)
        close(before.x, found * float(grid[steps - 1].alpha))


LEAD = [
    ("DDIMParallelScheduler", "ddim", {}, {}),
    ("CogVideoXDDIMScheduler", "ddim", {}, {}),
    ("DDIMScheduler", "ddim", {}, {}),
    ("DDIMScheduler", "ancestral", {}, {"eta": 1.0}),
    ("DDIMScheduler", "ancestral", {"eta": 0.5}, {"eta": 0.5}),
    ("DDPMScheduler", "ancestral", {}, {}),
]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(("name", "ours", "chosen", "theirs_options"), LEAD)
def test_diffusers_on_leading_timesteps(
    name: str,
    ours: str,
    chosen: dict[str, Any],
    theirs_options: dict[str, Any],
    kind: PredictionType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DDIM and DDPM, which step by N // n whatever their timesteps: so on leading ones."""
    for steps in (5, 20):
        theirs = scheduler(name, steps, prediction_type=kind, **LEADING)
        inject(monkeypatch, theirs, draws(steps))
        schedule = VPDiscrete(theirs.alphas_cumprod)
        grid = make_grid(schedule, steps, "leading")
        assert grid.points.t[:-1].tolist() == theirs.timesteps.tolist()
        tableau = get_sampler(ours).tableau(grid, chosen)
        levels = [float(rho) for rho in grid.points.rho]

        def model(x: Tensor, t: Tensor, schedule: Schedule = schedule) -> Tensor:
            return network(x, schedule.point(t[0]), kind)

        found = run_theirs(theirs, normal(1), levels, kind, **theirs_options)
        close(run_ours(tableau, model, normal(1), kind), found)


SINGLESTEP = [
    (2, "dpmsolver++", "dpmpp-2s", ("midpoint", "midpoint")),
    (2, "dpmsolver", "dpm-solver-2", ("midpoint", "midpoint")),
    (3, "dpmsolver++", "dpmpp-3s", ("heun", "midpoint")),
    (3, "dpmsolver", "dpm-solver-3", ("heun", "midpoint")),
]


@pytest.mark.parametrize(("order", "algorithm", "ours", "kinds"), SINGLESTEP)
def test_diffusers_singlestep(
    order: int, algorithm: str, ours: str, kinds: tuple[str, str]
) -> None:
    """Its inner levels are grid points, so the grid is even in the log-SNR.

    Third order: the second stage is the paper's under "heun", the last under "midpoint".
    """
    count = 4
    theirs = scheduler(
        "DPMSolverSinglestepScheduler",
        count * order,
        solver_order=order,
        algorithm_type=algorithm,
        lower_order_final=False,
        **OPEN,
    )
    levels = torch.logspace(1, -1, count * order + 1, dtype=torch.float64)
    theirs.sigmas = levels.to(torch.float32)
    theirs.timesteps = torch.arange(count * order)
    theirs.order_list = list(range(1, order + 1)) * count

    def choose(call: int) -> None:
        theirs.register_to_config(solver_type=kinds[call % order == order - 1])

    start = normal(1)
    found = run_theirs(theirs, start, levels.tolist(), "epsilon", choose)
    schedule = VPDiscrete(theirs.alphas_cumprod)
    tableau = get_sampler(ours).tableau(grid_from_sigmas(schedule, levels[::order]))

    def model(x: Tensor, t: Tensor) -> Tensor:
        return network(x, schedule.point(t[0]), "epsilon")

    close(run_ours(tableau, model, start, "epsilon"), found)


EDM_CASES = [
    ("EDMEulerScheduler", "ddim", {}),
    ("EDMDPMSolverMultistepScheduler", "dpmpp-2m", {"solver_order": 2}),
    ("EDMDPMSolverMultistepScheduler", "dpmpp-3m-reference", {"solver_order": 3}),
    (
        "EDMDPMSolverMultistepScheduler",
        "sde-dpmpp-2m",
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
    ),
]


@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@pytest.mark.parametrize(("name", "ours", "config"), EDM_CASES)
def test_diffusers_edm(
    name: str,
    ours: str,
    config: dict[str, Any],
    spacing: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network inside EDM's preconditioning is undone, so that both sides see one denoiser."""
    for steps in (4, 20):
        theirs = scheduler(name, steps, sigma_schedule=spacing, **config)
        inject(monkeypatch, theirs, draws(steps))
        levels = [float(sigma) for sigma in theirs.sigmas]
        start = normal(1) * levels[0]
        x = start
        for level, t in zip(levels, theirs.timesteps, strict=False):
            theirs.scale_model_input(x, t)
            denoised = edm_denoise(x, torch.tensor(level))
            skip, out = edm_factors(level)
            x = theirs.step((denoised - skip * x) / out, t, x).prev_sample
        tableau = get_sampler(ours).tableau(
            grid_from_sigmas(EDM(), levels),
            options(Case(name, ours), steps),
        )
        found = run_ours(tableau, lambda x, t: edm_denoise(x, t[0]), start, "sample")
        close(found, x)


def edm_denoise(x: Tensor, level: Tensor) -> Tensor:
    one = torch.ones((), dtype=torch.float64)
    return PLANE.denoise(x.to(torch.float64), one, level.to(torch.float64)).to(x.dtype)


def edm_factors(level: float, data: float = 0.5) -> tuple[float, float]:
    total = level**2 + data**2
    return data**2 / total, level * data / math.sqrt(total)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_diffusers_flow_matching(shift: float) -> None:
    """From t = 1, where no signal is left."""
    for steps in (2, 5, 20):
        theirs = scheduler("FlowMatchEulerDiscreteScheduler", steps, shift=shift)
        times = [float(sigma) for sigma in theirs.sigmas]
        schedule = FlowMatching(shift=shift)
        model = PLANE.model(schedule, "flow")
        x = start = normal(1)
        for time, t in zip(times, theirs.timesteps, strict=False):
            x = theirs.step(model(x, torch.full((BATCH,), time)), t, x).prev_sample
        tableau = get_sampler("ddim").tableau(grid_from_times(schedule, times[:-1], "zero"))
        close(run_ours(tableau, model, start, "flow"), x)


def test_diffusers_reverse_sde(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its step is 1 / n whatever its timesteps, so they are set to lie 1 / n apart."""
    module = pytest.importorskip("diffusers.schedulers.deprecated.scheduling_sde_vp")
    steps = 12
    theirs = module.ScoreSdeVpScheduler(beta_min=0.1, beta_max=20)
    inject(monkeypatch, theirs, draws(steps))
    theirs.timesteps = 1 - torch.arange(steps, dtype=torch.float64) / steps
    schedule = VPLinear(t_min=1e-9)
    model = PLANE.model(schedule, "epsilon")
    x = start = normal(1)
    for t in theirs.timesteps[:-1]:
        x, _ = theirs.step_pred(model(x, t.expand(BATCH)), x, t)
    tableau = get_sampler("euler-maruyama").tableau(
        grid_from_times(schedule, theirs.timesteps, "sigma_min")
    )
    close(run_ours(tableau, model, start, "epsilon"), x.to(torch.float32))


# What the papers print, in float64.

LAMS = torch.tensor([-2.0, -1.1, -0.4, 0.1, 0.9, 1.4], dtype=torch.float64)


def uneven(schedule: Schedule | None = None) -> Grid:
    schedule = schedule or VPLinear()
    return Grid(schedule, schedule.at_lam(LAMS))


def trajectory(
    name: str, chosen: Mapping[str, Any] | None = None
) -> tuple[Grid, list[Tensor], list[Tensor]]:
    """Every point of a run on the uneven grid and the predictions made there, oldest first."""
    grid = uneven()
    tableau = get_sampler(name).tableau(grid, chosen)
    noise = Replay(draws(tableau.calls)) if tableau.stochastic else None
    solver = Solver(tableau, "sample", noise)
    state = solver.init(normal(1).to(torch.float64))
    points, made = [state.x], []
    for state in solver.run(PLANE.model(grid.schedule, "sample"), state):
        points.append(state.x)
        made.append(state.predictions[0])
    return grid, points, made


def test_dpm_solver_pp_2m_as_published() -> None:
    """Algorithm 2 of Lu et al. 2022b: x = s'/s x - a' (e^-h - 1) [(1 + 1/2r) D0 - 1/2r D1]."""
    grid, x, data = trajectory("dpmpp-2m")
    for i in range(1, grid.steps):
        now, nxt = grid[i], grid[i + 1]
        h = nxt.lam - now.lam
        r = (now.lam - grid[i - 1].lam) / h
        mixed = (1 + 1 / (2 * r)) * data[i] - data[i - 1] / (2 * r)
        expected = nxt.sigma / now.sigma * x[i] - nxt.alpha * torch.expm1(-h) * mixed
        torch.testing.assert_close(x[i + 1], expected, rtol=1e-12, atol=1e-12)


def test_sde_dpm_solver_pp_3m_as_published() -> None:
    """Taylor's formula with exact weights: (1 - e^-2h), and its integrals against t and t^2/2."""
    grid, x, data = trajectory("sde-dpmpp-3m")
    for i in range(2, grid.steps):
        now, nxt = grid[i], grid[i + 1]
        h, h0, h1 = (grid[i + 1 - k].lam - grid[i - k].lam for k in range(3))
        slope0, slope1 = (data[i] - data[i - 1]) / h0, (data[i - 1] - data[i - 2]) / h1
        second = 2 * (slope0 - slope1) / (h0 + h1)
        slope = slope0 + h0 / 2 * second
        gone = -torch.expm1(-2 * h)
        expected = (
            nxt.sigma / now.sigma * torch.exp(-h) * x[i]
            + nxt.alpha * gone * data[i]
            + nxt.alpha * (h - gone / 2) * slope
            + nxt.alpha * (h * h / 2 - h / 2 + gone / 4) * second
            + nxt.sigma * torch.sqrt(gone) * draws(grid.steps)[i].double()
        )
        torch.testing.assert_close(x[i + 1], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", ["dpmpp-sde", "seeds-2"])
def test_singlestep_sde_2_as_published(which: str) -> None:
    """The stage at r = 1/2 decides: x = (s'/s) e^-h x + a' (1 - e^-2h) D_r + s' (1 - e^-2h)^1/2 z.

    DPM++ SDE draws both noises from one Brownian path in sigma / alpha, SEEDS-2 carries the
    stage's noise on by the decay of the rest of the step.
    """
    grid, x, data = trajectory(which)
    noise = [z.double() for z in draws(2 * grid.steps)]
    for i in range(grid.steps):
        now, nxt = grid[i], grid[i + 1]
        part = grid.at_lam((now.lam + nxt.lam) / 2)
        h, half = nxt.lam - now.lam, (nxt.lam - now.lam) / 2
        first, second = noise[2 * i], noise[2 * i + 1]
        decay = part.sigma / now.sigma * torch.exp(-half)
        stage = decay * x[2 * i] - part.alpha * torch.expm1(-2 * half) * data[2 * i]
        stage = stage + part.sigma * torch.sqrt(-torch.expm1(-2 * half)) * first
        torch.testing.assert_close(x[2 * i + 1], stage, rtol=1e-12, atol=1e-12)
        if which == "dpmpp-sde":
            share = (now.rho - part.rho) / (now.rho - nxt.rho)
            z = torch.sqrt(share) * first + torch.sqrt(1 - share) * second
            z = torch.sqrt(-torch.expm1(-2 * h)) * z
        else:
            z = torch.sqrt(-torch.expm1(-2 * half)) * (torch.exp(-half) * first + second)
        gone = -torch.expm1(-2 * h)
        x_t = nxt.sigma / now.sigma * torch.exp(-h) * x[2 * i] + nxt.alpha * gone * data[2 * i + 1]
        torch.testing.assert_close(x[2 * i + 2], x_t + nxt.sigma * z, rtol=1e-12, atol=1e-12)


def test_res_multistep_ancestral_as_published() -> None:
    """ComfyUI's: b1 = phi_1 - phi_2 / c2, b2 = phi_2 / c2, down to sigma_down, in sigma / alpha."""
    grid, x, data = trajectory("res-multistep-ancestral")
    noise = [z.double() for z in draws(grid.steps)]
    y = [point / grid[i].alpha for i, point in enumerate(x)]
    for i in range(1, grid.steps):
        before, now, nxt = (grid[k].rho for k in (i - 1, i, i + 1))
        down, down_before = nxt.square() / now, now.square() / before
        h = (now / down).log()
        c2 = (down_before / before).log() / h
        phi_1 = torch.expm1(-h) / -h
        phi_2 = (phi_1 - 1) / -h
        expected = torch.exp(-h) * y[i]
        expected = expected + h * ((phi_1 - phi_2 / c2) * data[i] + phi_2 / c2 * data[i - 1])
        up = torch.sqrt(nxt.square() - down.square())
        torch.testing.assert_close(y[i + 1], expected + up * noise[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["", "-b1"])
def test_unipc_2_as_published(variant: str) -> None:
    """Algorithms 1 and 2 of Zhao et al. 2023 in data prediction; UniC-2 solves its system."""
    grid = uneven()
    solver = Solver(
        get_sampler(f"unipc-2{variant}").tableau(grid, {"lower_order_final": False}), "sample"
    )
    model = PLANE.model(grid.schedule, "sample")
    start = normal(1).to(torch.float64)
    found = finish(solver, model, solver.init(start))

    corrected = predicted = start
    data: list[Tensor] = []
    for i in range(grid.steps):
        new = model(predicted, grid[i].t.expand(BATCH))
        if i:
            corrected = _unic(grid, i, corrected, data, new, variant)
        data.append(new)
        predicted = _unip(grid, i, corrected, data, variant)
    torch.testing.assert_close(found, predicted, rtol=1e-12, atol=1e-12)


def _b(h: Tensor, variant: str) -> Tensor:
    return -h if variant else torch.expm1(-h)


def _unip(grid: Grid, i: int, x: Tensor, data: list[Tensor], variant: str) -> Tensor:
    now, nxt = grid[i], grid[i + 1]
    h = nxt.lam - now.lam
    x = nxt.sigma / now.sigma * x - nxt.alpha * torch.expm1(-h) * data[i]
    if i == 0:
        return x
    r = (grid[i - 1].lam - now.lam) / h
    return x - nxt.alpha * _b(h, variant) * 0.5 * (data[i - 1] - data[i]) / r


def _unic(grid: Grid, i: int, x: Tensor, data: list[Tensor], new: Tensor, variant: str) -> Tensor:
    now, nxt = grid[i - 1], grid[i]
    h = nxt.lam - now.lam
    first = nxt.sigma / now.sigma * x - nxt.alpha * torch.expm1(-h) * data[i - 1]
    b, difference = _b(h, variant), new - data[i - 1]
    if i == 1:
        return first - nxt.alpha * b * 0.5 * difference
    r = (grid[i - 2].lam - now.lam) / h
    phi_2 = (torch.expm1(-h) / -h - 1) / -h
    phi_3 = (phi_2 - 0.5) / -h
    matrix = torch.stack([torch.ones(2, dtype=torch.float64), torch.stack([r, torch.ones_like(r)])])
    right = torch.stack([-h * phi_2, 2 * -h * phi_3]) / b
    rho: Tensor = torch.linalg.solve(matrix, right)
    older = (data[i - 2] - data[i - 1]) / r
    return first - nxt.alpha * b * (rho[0] * older + rho[1] * difference)


def test_edm_churn_as_published() -> None:
    """Algorithm 2 of Karras et al. 2022, which asks the network at the noised point."""
    levels = torch.tensor([9.0, 4.0, 1.5, 0.5, 0.1, 0.0], dtype=torch.float64)
    steps, gamma = 5, math.sqrt(2) - 1  # the cap, S_churn / n being larger
    noise = [z.double() for z in draws(steps)]
    x = start = normal(1).double() * levels[0]
    for now, nxt, z in zip(levels[:-1], levels[1:], noise, strict=True):
        raised = now + gamma * now
        hat = x + torch.sqrt(raised.square() - now.square()) * z
        slope = (hat - edm_denoise(hat, raised)) / raised
        x = hat + (nxt - raised) * slope
        if nxt > 0:
            second = (x - edm_denoise(x, nxt)) / nxt
            x = hat + (nxt - raised) * (slope + second) / 2
    tableau = get_sampler("edm-churn").tableau(grid_from_sigmas(EDM(), levels))
    # The first point is noised before its row, the others by the second row of the step before.
    solver = Solver(tableau, "sample", lambda row: noise[(row + 1) // 2])
    found = finish(solver, lambda x, t: edm_denoise(x, t[0]), solver.init(start))
    torch.testing.assert_close(found, x, rtol=1e-12, atol=1e-12)


LEVELS = torch.tensor([9.0, 6.5, 4.0, 1.5, 0.5, 0.1, 0.0], dtype=torch.float64)


def slopes(levels: Tensor, x: list[Tensor], data: list[Tensor]) -> list[Tensor]:
    """d = (x - D) / sigma at every point but the next, newest first."""
    made = zip(x, data, levels[:-1], strict=True)
    return [(point - denoised) / level for point, denoised, level in made][::-1]


def ipndm(levels: Tensor, x: list[Tensor], data: list[Tensor]) -> Tensor:
    """Zhang and Chen 2023, algorithm iPNDM, as in ComfyUI's ``ipndm``."""
    d = slopes(levels, x, data)
    match d[:4]:
        case [d0]:
            mean = d0
        case [d0, d1]:
            mean = (3 * d0 - d1) / 2
        case [d0, d1, d2]:
            mean = (23 * d0 - 16 * d1 + 5 * d2) / 12
        case [d0, d1, d2, d3]:
            mean = (55 * d0 - 59 * d1 + 37 * d2 - 9 * d3) / 24
    return x[-1] + (levels[-1] - levels[-2]) * mean


def gradient_estimation(levels: Tensor, x: list[Tensor], data: list[Tensor]) -> Tensor:
    """Permenter and Yuan 2024 with gamma = 2, as in ComfyUI's ``gradient_estimation``."""
    newest, *older = slopes(levels, x, data)
    mean = 2 * newest - older[0] if older else newest
    return x[-1] + (levels[-1] - levels[-2]) * mean


def res_multistep(levels: Tensor, x: list[Tensor], data: list[Tensor]) -> Tensor:
    """Zhang et al. 2023, as in ComfyUI's ``res_multistep``: b_1 D_0 + b_2 D_1 at c_2."""
    h = (levels[-2] / levels[-1]).log()
    phi_1 = torch.expm1(-h) / -h
    if len(x) == 1:
        return torch.exp(-h) * x[-1] + h * phi_1 * data[-1]
    phi_2, c_2 = (phi_1 - 1) / -h, (levels[-2] / levels[-3]).log() / h
    mixed = (phi_1 - phi_2 / c_2) * data[-1] + phi_2 / c_2 * data[-2]
    return torch.exp(-h) * x[-1] + h * mixed


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ipndm", ipndm),
        ("gradient-estimation", gradient_estimation),
        ("res-multistep", res_multistep),
    ],
)
def test_multistep_methods_in_sigma_as_published(
    name: str, step: Callable[[Tensor, list[Tensor], list[Tensor]], Tensor]
) -> None:
    """Whose step to sigma = 0 ends at the prediction."""
    x = [normal(1).double() * LEVELS[0]]
    data: list[Tensor] = []
    for i in range(2, len(LEVELS)):
        data.append(edm_denoise(x[-1], LEVELS[i - 2]))
        x.append(step(LEVELS[:i], x, data))
    close_in_edm(name, x[0], edm_denoise(x[-1], LEVELS[-2]))


@pytest.mark.parametrize(("name", "r"), [("res-2s", 0.5), ("exponential-heun", 1.0)])
def test_singlestep_res_as_published(name: str, r: float) -> None:
    """Zhang et al. 2023 with c_2 = r; with r = 1 as in ComfyUI's ``exp_heun_2_x0``."""
    x = start = normal(1).double() * LEVELS[0]
    for now, nxt in pairwise(LEVELS[:-1]):
        h = (now / nxt).log()
        data = edm_denoise(x, now)
        inner = now * torch.exp(-r * h)
        stage = torch.exp(-r * h) * x - torch.expm1(-r * h) * data
        phi_1 = torch.expm1(-h) / -h
        b_2 = (phi_1 - 1) / -h / r
        mixed = (phi_1 - b_2) * data + b_2 * edm_denoise(stage, inner)
        x = torch.exp(-h) * x + h * mixed
    close_in_edm(name, start, edm_denoise(x, LEVELS[-2]))


def close_in_edm(name: str, start: Tensor, expected: Tensor) -> None:
    """What a sampler ends at on these levels, where alpha is 1."""
    tableau = get_sampler(name).tableau(grid_from_sigmas(EDM(), LEVELS))
    solver = Solver(tableau, "sample")
    found = finish(solver, lambda x, t: edm_denoise(x, t[0]), solver.init(start))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_ipndm_is_adams_bashforth_for_equal_steps() -> None:
    levels = torch.linspace(9.0, 0.5, 12, dtype=torch.float64)
    ipndm, lms = (
        get_sampler(name).tableau(grid_from_sigmas(EDM(), levels)) for name in ("ipndm", "lms-4")
    )
    for a, b in zip(ipndm.rows, lms.rows, strict=True):
        torch.testing.assert_close(a.points, b.points, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(a.predictions, b.predictions, rtol=1e-11, atol=1e-11)


def test_deis_3_as_published() -> None:
    """The weights of diffusers' DEIS-3, Lagrange polynomials in log rho, integrated in float64."""
    grid = uneven()
    rows = get_sampler("deis-3").tableau(grid).rows
    rho = grid.points.rho.numpy()

    def primitive(t: float, b: float, c: float, d: float) -> float:
        """Of (ln t - ln c)(ln t - ln d) / ((ln b - ln c)(ln b - ln d)), over t."""
        lt, lb, lc, ld = np.log([t, b, c, d])
        top = t * (lc * (ld - lt + 1) - ld * lt + ld + lt**2 - 2 * lt + 2)
        return float(top / ((lb - lc) * (lb - ld)))

    for i in range(2, grid.steps):
        t, s0, s1, s2 = rho[i + 1], rho[i], rho[i - 1], rho[i - 2]
        cycles = [(s0, s1, s2), (s1, s2, s0), (s2, s0, s1)]
        weights = [primitive(t, *cycle) - primitive(s0, *cycle) for cycle in cycles]
        row = rows[i]
        for lag, weight in enumerate(weights):
            expected = -grid[i + 1].alpha * weight * grid[i - lag].alpha / grid[i - lag].sigma
            found = row.predictions[0, row.prediction_lags.index(lag)]
            assert float(found) == pytest.approx(float(expected), rel=1e-9)


SAME: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("deis-1", {}, "ddim", {}),
    ("mr-ode-d-2", {}, "deis-data-2", {}),
    ("ipndm", {"max_order": 1}, "ddim", {}),
    ("gradient-estimation", {"gamma": 1.0}, "ddim", {}),
    ("gradient-estimation", {"gamma": 1.5}, "ipndm", {"max_order": 2}),
    ("exponential-heun", {"r": 0.5}, "res-2s", {}),
    ("dpmpp-2s", {"second_order": "exact"}, "res-2s", {}),
    ("sde-dpmpp-1", {}, "ancestral", {}),
    ("sde-dpmpp-2m", {"eta": 0.0}, "dpmpp-2m", {}),
    ("sde-dpmpp-3m", {"eta": 0.0}, "dpmpp-3m-corrected", {}),
    ("sde-dpm-solver-2m", {"eta": 0.0}, "dpm-solver-2m", {}),
    ("ancestral", {"eta": 0.0}, "ddim", {}),
    ("edm-churn", {"s_churn": 0.0}, "heun", {}),
    ("sde-dpmpp-1", {"eta": 0.0}, "ddim", {}),
    ("seeds-2", {"eta": 0.0}, "dpmpp-2s", {}),
    ("dpmpp-sde", {"eta": 0.0}, "dpmpp-2s", {}),
    ("seeds-3", {"eta": 0.0}, "dpmpp-3s", {}),
    ("res-multistep-ancestral", {"eta": 0.0}, "mr-ode-d-2", {}),
    ("sde-dpm-solver-1", {"eta": 0.0}, "ddim", {}),
]


@pytest.mark.parametrize(("one", "one_options", "other", "other_options"), SAME)
def test_two_names_of_one_method(
    one: str, one_options: dict[str, Any], other: str, other_options: dict[str, Any]
) -> None:
    for schedule in (VPLinear(), EDM(), FlowMatching()):
        grid = uneven(schedule)
        ends = []
        for name, chosen in ((one, one_options), (other, other_options)):
            tableau = get_sampler(name).tableau(grid, chosen)
            noise = Replay(draws(tableau.calls)) if tableau.stochastic else None
            solver = Solver(tableau, "sample", noise)
            start = normal(1).to(torch.float64) * grid.start.sigma
            ends.append(finish(solver, PLANE.model(schedule, "sample"), solver.init(start)))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("deis-3", "dpm-solver-3m-corrected"),
        ("deis-data-3", "dpmpp-3m-corrected"),
        ("unipc-3", "unipc-3-b1"),
    ],
)
def test_two_names_of_one_method_after_their_ramps(one: str, other: str) -> None:
    """At full order the weights follow from the conditions of order, however they are derived."""
    grid = uneven()
    full = {"lower_order_final": False}
    pair = [get_sampler(name).tableau(grid, full).rows[3:] for name in (one, other)]
    for a, b in zip(*pair, strict=True):
        torch.testing.assert_close(a.points, b.points, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(a.predictions, b.predictions, rtol=1e-11, atol=1e-12)
