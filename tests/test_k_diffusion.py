"""Samplers as functions of k-diffusion's signature: they are ``sample`` on the caller's levels,
k-diffusion's formulas where these are the same sampler, and a sentence where an option is not."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samplers import (
    EDM,
    Adaptive,
    Denoiser,
    FlowMatching,
    NotFiniteError,
    Schedule,
    get_sampler,
    grid_from_times,
    list_samplers,
    sample,
    sample_adaptive,
)
from samplers.k_diffusion import SamplingFunction, sampler
from samplers.registry import Sampler, adaptive_registry, registry
from tests.mixture import PLANE
from tests.tiny_tuned import as_if_tuned

SEEDS = (1, 2, 3)
EACH = pytest.mark.parametrize("row", registry().values(), ids=registry())
SCHEDULES: dict[str, Schedule] = {"ve": EDM(0.03, 14.6), "flow": FlowMatching()}
ON_EACH = pytest.mark.parametrize("kind", SCHEDULES)

Model = Callable[..., Tensor]


def model_on(schedule: Schedule) -> Model:
    """The exact denoiser D(x; sigma) of a mixture, in float64 whatever the dtype of x."""

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        at = schedule.point(sigma.double().reshape(-1, 1, 1))
        return PLANE.denoise(x.double(), at.alpha, at.sigma).to(x.dtype)

    return model


VE = model_on(SCHEDULES["ve"])


def levels(kind: str = "ve", steps: int = 5) -> Tensor:
    """Noise levels as k-diffusion's get_sigmas_karras has them; even times of a flow."""
    if kind == "flow":
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    positive = (14.6 ** (1 / 7) + ramp * (0.03 ** (1 / 7) - 14.6 ** (1 / 7))) ** 7
    return torch.cat([positive, torch.zeros(1, dtype=torch.float64)])


def start(kind: str = "ve", dtype: torch.dtype = torch.float64, count: int = 3) -> Tensor:
    noise = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return (float(levels(kind)[0]) * noise).to(dtype)


def of_seeds(row: Sampler) -> dict[str, Any]:
    return {"seeds": SEEDS} if row.stochastic else {}


def recorded(seed: int = 0) -> Callable[[Any, Any], Tensor]:
    """The same noise at the same levels, whoever asks."""

    def noise_sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        key = hash((seed, round(float(sigma), 9), round(float(sigma_next), 9))) % 2**31
        return torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(key))

    return noise_sampler


# ------------------------------------------------------------------------- the same as sample


@ON_EACH
@EACH
def test_it_is_sample_on_the_given_levels(row: Sampler, kind: str) -> None:
    schedule, sigmas = SCHEDULES[kind], levels(kind)
    found = sampler(row, schedule=schedule)(
        model_on(schedule), start(kind), sigmas, disable=True, **of_seeds(row)
    )
    grid = grid_from_times(schedule, sigmas[:-1], "zero")
    model = Denoiser(model_on(schedule), schedule, "sample")
    expected = sample(model, start(kind), sampler=row.name, grid=grid, seeds=SEEDS)
    assert torch.equal(found, expected)


@ON_EACH
@EACH
def test_evaluations_and_callbacks_are_counted(row: Sampler, kind: str) -> None:
    schedule, sigmas = SCHEDULES[kind], levels(kind)
    given: list[float] = []
    reports: list[dict[str, Any]] = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (len(x),)
        given.append(float(sigma[0]))
        return model_on(schedule)(x, sigma)

    function = sampler(row, schedule=schedule)
    function(model, start(kind), sigmas, None, reports.append, True, **of_seeds(row))
    tableau = row.tableau(grid_from_times(schedule, sigmas[:-1], "zero"))
    assert given == [float(each.at.t) for each in tableau.rows]
    assert [report["i"] for report in reports] == list(range(len(sigmas) - 1))
    assert [report["sigma"] for report in reports] == sigmas[:-1].tolist()
    for report in reports:
        assert set(report) == {"x", "i", "sigma", "sigma_hat", "denoised"}
        assert float(report["sigma_hat"]) in given
        at_hat = report["sigma_hat"].expand(3)
        torch.testing.assert_close(report["denoised"], model_on(schedule)(report["x"], at_hat))


@ON_EACH
@pytest.mark.parametrize("name", adaptive_registry())
def test_adaptive_samplers_go_from_the_first_to_the_last_level(name: str, kind: str) -> None:
    """One sample, since the batch has one step size here, and each sample its own there."""
    schedule, sigmas, x = SCHEDULES[kind], levels(kind), start(kind, count=1)
    reports: list[dict[str, Any]] = []
    function = sampler(name, schedule=schedule)
    found = function(
        model_on(schedule), x, sigmas, callback=reports.append, disable=True, rtol=1e-3, atol=1e-3
    )
    low = schedule.point(sigmas[-2]).rho
    within = EDM(float(low), 14.6) if kind == "ve" else FlowMatching(u_min=float(sigmas[-2]))
    expected = sample_adaptive(
        Denoiser(model_on(schedule), within, "sample"), x, settings=Adaptive(name, 1e-3, 1e-3)
    )
    torch.testing.assert_close(found, expected.x, rtol=1e-12, atol=1e-12)
    assert [report["i"] for report in reports] == list(range(int(expected.nfe)))


def test_an_adaptive_batch_is_evaluated_as_a_whole() -> None:
    def model(x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        assert x.shape == (3, 2)
        assert bool((sigma == sigma[0]).all())
        return VE(x, sigma) + 0 * rows

    x_0 = sampler("dpm_adaptive")(
        model, start(), levels(), {"rows": torch.zeros(3, 1)}, disable=True, rtol=1e-4, atol=1e-4
    )
    fine = sampler("dpmpp-2m")(VE, start(), levels(steps=400), disable=True)
    torch.testing.assert_close(x_0, fine, rtol=0, atol=5e-3)


def test_an_adaptive_sampler_says_if_the_evaluations_ran_out() -> None:
    function = sampler("bogacki-shampine")
    with pytest.warns(UserWarning, match="limit of 8 evaluations"):
        function(VE, start(), levels(), disable=True, rtol=1e-6, atol=1e-6, max_nfe=8)


@pytest.mark.parametrize("nfe", [2, 5])
@ON_EACH
def test_a_tuned_sampler_on_its_own_levels(kind: str, nfe: int) -> None:
    schedule = SCHEDULES[kind]
    tuned = as_if_tuned(schedule, nfe)
    sigmas = tuned.grid(schedule).points.sigma
    x, single = start(kind), sigmas.float()
    expected = sample(Denoiser(model_on(schedule), schedule, "sample"), x, sampler=tuned)
    function = sampler(tuned, schedule=schedule)
    assert torch.equal(function(model_on(schedule), x, sigmas, disable=True), expected)
    assert torch.equal(function(model_on(schedule), x, single, disable=True), expected)
    with pytest.raises(ValueError, match=r"its own \d+ noise levels"):
        function(model_on(schedule), x, levels(kind, nfe + 1), disable=True)


def test_a_function_of_the_grid_serves_too() -> None:
    function = sampler(registry()["dpmpp-2m"].method)
    expected = sampler("dpmpp-2m")(VE, start(), levels(), disable=True)
    assert torch.equal(function(VE, start(), levels(), disable=True), expected)


def test_levels_may_end_above_zero() -> None:
    """In two runs, the first of which ends at a level, nothing is lost by a one-step method."""
    function, sigmas = sampler("heun"), levels(steps=8)
    half = function(VE, start(), sigmas[:5], disable=True)
    rest = function(VE, half, sigmas[4:], disable=True)
    torch.testing.assert_close(rest, function(VE, start(), sigmas, disable=True))


def test_without_a_step_x_is_returned() -> None:
    x = start()
    assert sampler("heun")(VE, x, levels()[:1]) is x


# ------------------------------------------------------------------------ k-diffusion's formulas


def euler(x: Tensor, sigmas: Tensor) -> Tensor:
    for sigma, nxt in pairwise(sigmas):
        x = x + (nxt - sigma) * (x - VE(x, sigma.expand(3))) / sigma
    return x


def heun(x: Tensor, sigmas: Tensor) -> Tensor:
    for sigma, nxt in pairwise(sigmas):
        d = (x - VE(x, sigma.expand(3))) / sigma
        there = x + (nxt - sigma) * d
        d_there = (there - VE(there, nxt.expand(3))) / nxt if nxt > 0 else d
        x = x + (nxt - sigma) * (d + d_there) / 2
    return x


def euler_ancestral(x: Tensor, sigmas: Tensor, eta: float, s_noise: float) -> Tensor:
    noise = recorded()
    for sigma, nxt in pairwise(sigmas):
        up = eta * nxt * (1 - (nxt / sigma) ** 2).sqrt()
        down = (nxt**2 - up**2).sqrt()
        x = x + (down - sigma) * (x - VE(x, sigma.expand(3))) / sigma
        x = x + s_noise * up * noise(sigma, nxt)
    return x


def dpmpp_2m(x: Tensor, sigmas: Tensor, eta: float = 0.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(2M) for eta = 0, and its SDE with the midpoint rule."""
    noise, old, h_old = recorded(), None, None
    for sigma, nxt in pairwise(sigmas):
        denoised = VE(x, sigma.expand(3))
        if nxt == 0:
            return denoised
        h = (sigma / nxt).log()
        slope = 0 * x if old is None or h_old is None else (denoised - old) * h / h_old
        gain = -torch.expm1(-(1 + eta) * h)
        x = nxt / sigma * torch.exp(-eta * h) * x + gain * (denoised + slope / 2)
        x = x + s_noise * nxt * (-torch.expm1(-2 * eta * h)).sqrt() * noise(sigma, nxt)
        old, h_old = denoised, h
    return x


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize(("name", "formula"), [("euler", euler), ("heun", heun)])
def test_runge_kutta_formulas(name: str, formula: Callable[..., Tensor], steps: int) -> None:
    sigmas = levels(steps=steps)
    found = sampler(f"sample_{name}")(VE, start(), sigmas, disable=True)
    torch.testing.assert_close(found, formula(start(), sigmas), rtol=1e-12, atol=1e-12)


def test_dpmpp_2m_formula() -> None:
    found = sampler("dpmpp_2m")(VE, start(), levels(steps=7), disable=True)
    torch.testing.assert_close(found, dpmpp_2m(start(), levels(steps=7)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("s_noise", [1.0, 1.1])
@pytest.mark.parametrize("eta", [1.0, 0.5])
@pytest.mark.parametrize(
    ("name", "formula"), [("euler_ancestral", euler_ancestral), ("dpmpp_2m_sde", dpmpp_2m)]
)
def test_stochastic_formulas_with_given_noise(
    name: str, formula: Callable[..., Tensor], eta: float, s_noise: float
) -> None:
    options: dict[str, Any] = {"eta": eta, "s_noise": s_noise}
    sigmas = levels(steps=7)
    found = sampler(name)(VE, start(), sigmas, disable=True, noise_sampler=recorded(), **options)
    expected = formula(start(), sigmas, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------- the noise


def test_the_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    function = sampler("euler_ancestral")
    together = function(VE, start(), levels(), disable=True)
    alone = function(VE, start()[1:2], levels(), disable=True)
    assert torch.equal(together[1:2], alone)


def test_seeds_of_comfyui_count_from_its_own() -> None:
    def model(x: Tensor, sigma: Tensor, seed: int) -> Tensor:
        return VE(x, sigma)

    function = sampler("dpmpp_2m_sde")
    found = function(model, start(), levels(), {"seed": 2**64 - 1}, disable=True)
    seeds = [2**63 - 1, 0, 1]
    assert torch.equal(found, function(VE, start(), levels(), disable=True, seeds=seeds))


def test_noise_along_a_path_is_that_of_sample() -> None:
    schedule = SCHEDULES["ve"]
    function = sampler("sde-dpmpp-2m", noise="brownian")
    found = function(VE, start(), levels(), disable=True, seeds=SEEDS)
    expected = sample(
        Denoiser(VE, schedule, "sample"),
        start(),
        sampler="sde-dpmpp-2m",
        grid=grid_from_times(schedule, levels()[:-1], "zero"),
        seeds=SEEDS,
        noise="brownian",
    )
    assert torch.equal(found, expected)
    assert not torch.equal(found, sampler("sde-dpmpp-2m")(VE, start(), levels(), seeds=SEEDS))


@pytest.mark.parametrize("name", ["edm-churn", "ancestral+annealed-langevin"])
def test_noise_that_is_of_no_step_is_not_the_callers(name: str) -> None:
    with pytest.raises(ValueError, match="omit noise_sampler"):
        sampler(name)(VE, start(), levels(), disable=True, noise_sampler=recorded())


def test_churn_raises_the_level_that_is_reported() -> None:
    reports: list[dict[str, Any]] = []
    options: dict[str, Any] = {"s_churn": 1.0, "s_tmin": 0.1, "s_tmax": 5.0}
    sampler("edm-churn")(VE, start(), levels(), None, reports.append, True, **options)
    for report in reports:
        gamma = 0.2 if 0.1 <= report["sigma"] <= 5 else 0.0
        assert float(report["sigma_hat"]) == pytest.approx(float(report["sigma"]) * (1 + gamma))


# -------------------------------------------------------------------- edits, dtypes, gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["euler", "dpmpp-2m", "abm", "heun"])
def test_an_edit_in_place_is_an_edit_of_the_sample(name: str, dtype: torch.dtype) -> None:
    """As web interfaces do for inpainting: a part of x is replaced, in the model or after it."""

    def replaced(x: Tensor) -> None:
        x[:, 0] = 0.5

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        replaced(x)
        return torch.full_like(x, 0.5)

    def after(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.full_like(x, 0.5)

    sigmas = levels()[:-1]
    in_model = sampler(name)(model, start(dtype=dtype), sigmas, disable=True)
    by_callback = sampler(name)(
        after, start(dtype=dtype), sigmas, None, lambda report: replaced(report["x"]), True
    )
    for found in (in_model, by_callback):
        torch.testing.assert_close(found[:, 0], torch.full_like(found[:, 0], 0.5))
        assert bool((found[:, 1] != 0.5).all())


def test_an_edit_of_the_prediction_is_one() -> None:
    """As ComfyUI inpaints: the known part of D is replaced."""

    def masked(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = VE(x, sigma)
        denoised[:, 0] = 0.25
        return denoised

    found = sampler("dpmpp-2m")(masked, start(), levels(), disable=True)
    torch.testing.assert_close(found[:, 0], torch.full_like(found[:, 0], 0.25))


def test_an_adaptive_sampler_refuses_edits() -> None:
    def edit(report: dict[str, Any]) -> None:
        report["x"].mul_(0.5)

    with pytest.raises(ValueError, match="edited x in place"):
        sampler("dormand-prince")(VE, start(), levels(), callback=edit, disable=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["dpmpp-2m", "euler_ancestral", "dpm_adaptive"])
def test_the_model_is_given_the_dtype_of_x(name: str, dtype: torch.dtype) -> None:
    def model(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == dtype
        return VE(x, sigma)

    found = sampler(name)(model, start(dtype=dtype), levels().float(), disable=True)
    assert found.dtype == dtype
    assert bool(found.isfinite().all())


@EACH
def test_inference_mode_serves_too(row: Sampler) -> None:
    """As ComfyUI runs everything."""
    expected = sampler(row)(VE, start(), levels(), disable=True, **of_seeds(row))
    with torch.inference_mode():
        found = sampler(row)(VE, start(), levels(), disable=True, **of_seeds(row))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["dpmpp-2m", "heun", "euler_ancestral"])
def test_gradients_pass(name: str) -> None:
    x, shift = start().requires_grad_(), torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, shift: Tensor) -> Tensor:
        options = of_seeds(get_sampler(name))
        return sampler(name)(
            lambda x, sigma: VE(x, sigma) + shift, x, levels(steps=3), disable=True, **options
        )

    assert torch.autograd.gradcheck(run, (x, shift))


# ------------------------------------------------------------------------ what a model states


class CONST:
    """Stands for the class of comfy.model_sampling by which ComfyUI marks a flow."""


class FlowSampling(CONST):
    noise_scale = 2.0


class LevelSampling:
    sigma_min, sigma_max = torch.tensor([0.03, 14.6], dtype=torch.float64)


class Wrapped(nn.Module):
    """A model around another one, as ComfyUI and k-diffusion wrap it."""

    def __init__(self, inner_model: object, function: Model = VE) -> None:
        super().__init__()
        self.inner_model, self.function = inner_model, function

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.function(x, sigma)


class Inner:
    def __init__(self, model_sampling: object) -> None:
        self.model_sampling = model_sampling


def test_a_flow_of_comfyui_is_known_by_its_class() -> None:
    flow = model_on(FlowMatching())
    found = sampler("dpmpp-2m")(
        Wrapped(Wrapped(Inner(FlowSampling())), flow), start("flow"), levels("flow"), disable=True
    )
    stated = sampler("dpmpp-2m", schedule=FlowMatching())
    assert torch.equal(found, stated(flow, start("flow"), levels("flow"), disable=True))


def test_noise_has_the_scale_that_a_flow_states() -> None:
    flow, call = model_on(FlowMatching()), (start("flow"), levels("flow"))
    found = sampler("ancestral")(
        Wrapped(Wrapped(Inner(FlowSampling())), flow), *call, disable=True, seeds=SEEDS
    )
    function = sampler("ancestral", schedule=FlowMatching())
    assert torch.equal(found, function(flow, *call, disable=True, seeds=SEEDS, s_noise=2.0))


@pytest.mark.parametrize("wrapped", [Inner(LevelSampling()), LevelSampling()])
def test_the_trained_range_is_the_models(wrapped: object) -> None:
    """The consistency sampler jumps to its cleanest level, and a tuned one is made for it."""
    model = Wrapped(Wrapped(wrapped))
    options: dict[str, Any] = {"disable": True, "seeds": SEEDS}
    stated = sampler("consistency", schedule=EDM(0.03, 14.6))
    found = sampler("consistency")(model, start(), levels(), **options)
    torch.testing.assert_close(found, stated(VE, start(), levels(), **options))
    tuned = as_if_tuned(EDM(0.03, 14.6))
    sigmas = tuned.grid(EDM(0.03, 14.6)).points.sigma
    sampler(tuned)(model, start(), sigmas, disable=True)
    with pytest.raises(ValueError, match="this schedule is from"):
        sampler(tuned)(VE, start(), sigmas, disable=True)


# ------------------------------------------------------------------- the signature and options


@pytest.mark.parametrize("name", list_samplers())
def test_the_signature_names_the_options(name: str) -> None:
    function = sampler(name)
    parameters = inspect.signature(function).parameters
    first = ["model", "x", "sigmas", "extra_args", "callback", "disable"]
    assert list(parameters) == [*first, *function.options]
    assert vars(function)["__name__"].isidentifier()
    row = get_sampler(name)
    assert set(row.options) <= set(function.options)
    assert ("noise_sampler" in parameters) == row.stochastic


def test_a_tuned_sampler_has_no_options() -> None:
    function = sampler(as_if_tuned(EDM(0.03, 14.6)))
    assert function.options == {}
    assert vars(function)["__name__"] == "sample_tunedsampler"


def test_options_that_are_off_mean_nothing() -> None:
    off: dict[str, Any] = {
        "eta": 0.0,
        "s_churn": 0.0,
        "s_tmin": 0.0,
        "s_tmax": math.inf,
        "s_noise": 1.0,
    }
    found = sampler("heun")(VE, start(), levels(), disable=True, noise_sampler=None, **off)
    assert torch.equal(found, sampler("heun")(VE, start(), levels(), disable=True))


FALLING = torch.tensor([3.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("name", "sigmas", "options", "sentence"),
    [
        ("heun", FALLING, {"s_churn": 5.0}, "'s_churn'; 'edm-churn' has it"),
        ("euler", FALLING, {"noise_sampler": recorded()}, "no option 'noise_sampler'"),
        ("euler_ancestral", FALLING, {"solver_type": "heun"}, "no option 'solver_type'"),
        ("dpm_adaptive", FALLING, {"eta": 1.0}, "no option 'eta'"),
        ("ancestral", FALLING, {"eta": -1.0}, "eta"),
        ("ancestral", FALLING, {"seeds": [1]}, "1 seeds came for 3 samples"),
        ("ancestral", FALLING, {"seeds": SEEDS, "noise_sampler": recorded()}, "one of them"),
        ("ancestral+langevin", FALLING, {"s_noise": 1.1}, "omit s_noise"),
        ("euler", FALLING.flip(0), {}, "fall strictly.*samplers.encode"),
        ("euler", torch.tensor([3.0, 2.0, 2.0, 0.0]), {}, "2 after 2; they must fall strictly"),
        ("euler", torch.tensor([3.0, math.nan, 0.0]), {}, "fall strictly"),
        ("euler", torch.tensor([3.0, 1.0, -1.0]), {}, "positive"),
        ("euler", torch.tensor([math.inf, 1.0, 0.0]), {}, "finite"),
        ("dpm_adaptive", torch.tensor([3.0, 0.0]), {}, "give two of these"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    name: str, sigmas: Tensor, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        sampler(name)(VE, start(), sigmas, disable=True, **options)


def test_bad_models_and_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        sampler("euler", schedule=FlowMatching())(VE, start(), FALLING)
    with pytest.raises(ValueError, match=r"must be samplers\.EDM"):
        sampler("euler", schedule="flow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes a Denoiser"):
        sampler("euler")(Denoiser(VE, EDM(), "sample"), start(), FALLING)
    with pytest.raises(ValueError, match="shape"):
        sampler("euler")(lambda x, sigma: x[:, :1], start(), FALLING, disable=True)
    with pytest.raises(NotFiniteError, match="evaluation 1 of 3"):
        sampler("euler")(lambda x, sigma: x * math.nan, start(), FALLING, disable=True)
    with pytest.raises(ValueError, match="did you mean"):
        sampler("dpmpp-2mm")


def test_the_progress_bar_can_be_disabled(capsys: pytest.CaptureFixture[str]) -> None:
    function: SamplingFunction = sampler("euler")
    function(VE, start(), levels(), disable=True)
    assert capsys.readouterr().err == ""
    function(VE, start(), levels(), disable=False)
    assert "5/5" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- its page


def test_the_page_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "k_diffusion.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"tuned": as_if_tuned(EDM(0.03, 14.6))}
    torch.manual_seed(0)
    exec(compile(blocks[0], "k_diffusion.md", "exec"), names)
    torch.testing.assert_close(names["x_0"].mean(0), torch.full((2,), 2.0), atol=0.05, rtol=0)
    torch.testing.assert_close(names["x_0"].std(0), torch.full((2,), 0.5), atol=0.05, rtol=0)
    for block in blocks[1:]:
        exec(compile(block, "k_diffusion.md", "exec"), names)
        assert bool(names["x_0"].isfinite().all())
