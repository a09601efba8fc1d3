r"""Guidance by two predictions: what each kind is equal to, where it is skipped, what it costs.

The condition of most models here is a shift of the data of a Gaussian mixture, so that the exact
denoiser is known for every condition, every schedule and every prediction type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adjoint import CheckpointAdjoint
from samplers import (
    Adaptive,
    CFGPlusPlus,
    Denoiser,
    GuidanceInterval,
    Schedule,
    Unbatched,
    adaptive_projected_guidance,
    autoguidance,
    classifier_free_guidance,
    log_likelihood,
    make_grid,
    sample,
    sample_adaptive,
)
from samplers.prediction import PredictionType, clip, target
from samplers.schedule import EDM, FlowMatching, Point, SubVP, VPDiscrete, VPLinear
from tests.mixture import PLANE

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "discrete": VPDiscrete.linear(),
    "sub-vp": SubVP(),
    "ve": EDM(),
    "flow": FlowMatching(),
}
ON = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
KINDS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction", "flow", "score")
OF = pytest.mark.parametrize("kind", KINDS)
NULL = {"shift": 0.0}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shifted(
    schedule: Schedule, kind: PredictionType = "v_prediction", seen: list[int] | None = None
) -> Denoiser:
    """The exact denoiser of data shifted by the condition; ``seen`` gets the size of each batch."""

    def network(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        if seen is not None:
            seen.append(len(x))
        at = schedule.point(t.detach().unsqueeze(-1))
        alpha, sigma = at.alpha, at.sigma
        x0 = shift + PLANE.denoise(x - alpha * shift, alpha.unsqueeze(-1), sigma.unsqueeze(-1))
        return target(kind, x0, (x - alpha * x0) / sigma, alpha, sigma)

    return Denoiser(network, schedule, kind)


def at_levels(schedule: Schedule, *rhos: float) -> Tensor:
    return schedule.at_lam(-torch.tensor(rhos, dtype=torch.float64).log()).t


def start(schedule: Schedule, count: int = 3) -> dict[str, Any]:
    """Initial noise at sigma / alpha = 8, and the conditions."""
    model = shifted(schedule)
    x = model.initial((2,), range(count), sigma_max=8.0, dtype=torch.float64)
    return {"x_T": x, "sigma_max": 8.0, "conditions": {"shift": normal(count, 2, seed=1)}}


# ------------------------------------------------------------------------------------ intervals


@OF
@ON
def test_an_interval_guides_inside_and_is_the_conditional_model_outside(
    schedule: Schedule, kind: PredictionType
) -> None:
    """For samples at levels of their own, as an adaptive driver evaluates them."""
    model = shifted(schedule, kind)
    t = at_levels(schedule, 0.1, 0.3, 1.0, 3.0, 5.0)
    x, shift = normal(5, 2), normal(5, 2, seed=1)
    guided = classifier_free_guidance(model, NULL, 2.5)(x, t, shift=shift)
    interval = classifier_free_guidance(model, NULL, GuidanceInterval(2.5, 0.3, 3.0))
    found, plain = interval(x, t, shift=shift), model(x, t, shift=shift)
    torch.testing.assert_close(found[1:4], guided[1:4], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[[0, 4]], plain[[0, 4]], rtol=1e-12, atol=1e-12)


def test_the_unconditional_evaluation_is_skipped_outside() -> None:
    schedule, seen = EDM(), list[int]()
    model = shifted(schedule, seen=seen)
    scale = GuidanceInterval(2.0, 0.3, 3.0)
    guided = classifier_free_guidance(model, NULL, scale)
    projected = adaptive_projected_guidance(model, NULL, scale)
    for some in (guided, projected):
        for rhos in ((0.1, 9.0, 0.2), (0.1, 0.5, 0.2), (0.4, 0.5, 0.6)):
            some(normal(3, 2), at_levels(schedule, *rhos), shift=normal(3, 2, seed=1))
    assert seen == 2 * [3, 4, 6]


def test_an_interval_of_everything_is_guidance_and_an_empty_stretch_is_none() -> None:
    schedule, given = VPLinear(), start(VPLinear())
    model = shifted(schedule)

    def run(scale: Any) -> Tensor:
        return sample(classifier_free_guidance(model, NULL, scale), steps=5, **given)

    assert torch.equal(run(GuidanceInterval(3.0)), run(3.0))
    assert torch.equal(run(GuidanceInterval(3.0, 50.0, 60.0)), sample(model, steps=5, **given))
    assert torch.equal(run(GuidanceInterval(1.0)), sample(model, steps=5, **given))


@ON
def test_the_ends_of_an_interval_are_guided_in_single_precision_too(schedule: Schedule) -> None:
    """A grid's own level names an end of the interval; the network gets its time in float32."""
    grid = make_grid(schedule, 12, "log-snr", sigma_min=0.02, sigma_max=20.0)
    scale = GuidanceInterval(2.0, float(grid.points.rho[8]), float(grid.points.rho[3]))
    seen: list[int] = []
    model = classifier_free_guidance(shifted(schedule, seen=seen), NULL, scale)
    x, shift = normal(1, 2).float(), normal(1, 2, seed=1).float()
    info = sample(model, x, grid=grid, conditions={"shift": shift}, return_info=True)
    assert seen == [2 if 3 <= step <= 8 else 1 for step in range(12)]
    assert info.nfe == sum(seen) == 18


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, math.nan)])
def test_an_interval_without_levels_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"guidance interval is from .* sigma / alpha"):
        GuidanceInterval(2.0, low, high)


# ----------------------------------------------------------------------------- what it costs


def guidances(model: Denoiser, weaker: Denoiser) -> dict[str, Denoiser]:
    interval = GuidanceInterval(2.0, 0.2, 3.0)
    return {
        "none": model,
        "scale 1": classifier_free_guidance(model, NULL, 1.0),
        "classifier-free": classifier_free_guidance(model, NULL, 2.0),
        "interval": classifier_free_guidance(model, NULL, interval),
        "projected": adaptive_projected_guidance(model, NULL, interval, norm_threshold=1.0),
        "auto": autoguidance(model, weaker, interval),
        "both": autoguidance(classifier_free_guidance(model, NULL, interval), weaker, 1.5),
    }


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "dpmpp-3s", "ancestral+langevin"])
def test_the_evaluations_of_a_sample_are_counted(sampler: str) -> None:
    """As many rows go through the networks as are reported, for every guidance."""
    schedule, seen = VPLinear(), list[int]()
    given = start(schedule, 2)
    model, weaker = (shifted(schedule, kind, seen) for kind in ("v_prediction", "flow"))
    counts = {}
    for name, guided in guidances(model, weaker).items():
        seen.clear()
        info = sample(guided, sampler=sampler, steps=6, seeds=(0, 1), return_info=True, **given)
        assert sum(seen) == 2 * info.nfe, name
        counts[name] = info.nfe
    assert counts["scale 1"] == counts["none"]
    assert counts["classifier-free"] == 2 * counts["none"]
    assert counts["none"] < counts["interval"] == counts["projected"] < counts["classifier-free"]
    assert counts["both"] == counts["interval"] + counts["none"]


@pytest.mark.parametrize("method", ["bogacki-shampine", "dpmpp-23"])
def test_the_evaluations_of_adaptive_steps_are_counted(method: str) -> None:
    schedule, seen = VPLinear(), list[int]()
    given, settings = start(schedule), Adaptive(method, 0.05, 0.05)
    model, weaker = (shifted(schedule, kind, seen) for kind in ("v_prediction", "flow"))
    for name, guided in guidances(model, weaker).items():
        seen.clear()
        found = sample_adaptive(guided, settings=settings, **given)
        assert sum(seen) == int(found.nfe.sum()), name
        assert bool(found.within_tolerance.all())


def test_the_evaluations_of_a_likelihood_are_counted() -> None:
    schedule, seen = VPLinear(), list[int]()
    model, x = shifted(schedule, seen=seen), normal(2, 2)
    guided = classifier_free_guidance(model, NULL, GuidanceInterval(2.0, 0.2, 3.0))
    found = log_likelihood(guided, x, seeds=(0, 1), conditions={"shift": normal(2, 2, seed=1)})
    assert sum(seen) == int(found.nfe.sum())


def test_a_custom_wrapper_says_what_it_costs() -> None:
    model = shifted(VPLinear())
    at = VPLinear().point(torch.tensor([0.2, 0.7], dtype=torch.float64))
    assert model.nfe(at).tolist() == [1, 1]
    twice = model.wrapped(model, lambda at: 2 * model.nfe(at))
    assert twice.wrapped(twice).nfe(at).tolist() == [2, 2]
    assert replace(twice, correction=clip(1.0)).nfe(at).tolist() == [2, 2]


# ---------------------------------------------------------------------------------- projection


def data(model: Denoiser, x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
    return model.data(x, t, shift=shift)


@OF
@ON
def test_projected_guidance_moves_across_the_prediction_and_no_further(
    schedule: Schedule, kind: PredictionType
) -> None:
    """The change of D is orthogonal to D, has a bounded norm, and is that of the paper."""
    model, w, r = shifted(schedule, kind), 4.0, 0.3
    x, t = normal(4, 2), at_levels(schedule, 0.1, 0.5, 2.0, 9.0)
    shift = normal(4, 2, seed=1)
    own, null = data(model, x, t, shift), data(model, x, t, 0 * shift)
    guided = data(adaptive_projected_guidance(model, NULL, w), x, t, shift)
    update = guided - own
    torch.testing.assert_close((update * own).sum(1), torch.zeros(4).double(), atol=1e-9, rtol=0)
    across = torch.stack([-own[:, 1], own[:, 0]], dim=1) / own.norm(dim=1, keepdim=True)
    expected = (w - 1) * ((own - null) * across).sum(1, keepdim=True) * across
    torch.testing.assert_close(update, expected, rtol=1e-7, atol=1e-9)

    short = adaptive_projected_guidance(model, NULL, w, parallel=1.0, norm_threshold=r)
    update, long = data(short, x, t, shift) - own, own - null
    size = long.norm(dim=1, keepdim=True)
    assert 0 < int((size > r).sum()) < 4
    torch.testing.assert_close(
        update, (w - 1) * long * (r / size).clamp(max=1), rtol=1e-7, atol=1e-9
    )


@OF
def test_projected_guidance_with_all_of_the_parallel_part_is_classifier_free(
    kind: PredictionType,
) -> None:
    schedule = VPLinear()
    model, x, shift = shifted(schedule, kind), normal(4, 2), normal(4, 2, seed=1)
    t = at_levels(schedule, 0.1, 0.5, 2.0, 9.0)
    found = adaptive_projected_guidance(model, NULL, 3.0, parallel=1.0)(x, t, shift=shift)
    expected = classifier_free_guidance(model, NULL, 3.0)(x, t, shift=shift)
    torch.testing.assert_close(found, expected)


def test_projection_treats_samples_alone_and_differentiates() -> None:
    schedule = VPLinear()
    guided = adaptive_projected_guidance(
        shifted(schedule), NULL, GuidanceInterval(3.0, 0.3, 3.0), 0.2, norm_threshold=0.4
    )
    x, shift = normal(3, 2), normal(3, 2, seed=1)
    t = at_levels(schedule, 0.5, 5.0, 2.0)
    together = guided(x, t, shift=shift)
    for i in range(3):
        alone = guided(x[i : i + 1], t[i : i + 1], shift=shift[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=1e-12)
    needing = [v.clone().requires_grad_() for v in (x, shift)]
    assert torch.autograd.gradcheck(lambda x, shift: guided(x, t, shift=shift), needing)
    none = torch.zeros_like(shift).requires_grad_()  # the same under both conditions
    (gradient,) = torch.autograd.grad(guided(x, t, shift=none).sum(), none)
    assert bool(gradient.isfinite().all())


def test_a_norm_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="norm threshold of guidance is 0; it must be positive"):
        adaptive_projected_guidance(shifted(EDM()), NULL, 2.0, norm_threshold=0)


# --------------------------------------------------------------------------------------- CFG++


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@ON
def test_cfg_plus_plus_renoises_by_the_unconditional_prediction(
    schedule: Schedule, strength: float
) -> None:
    """``x' = alpha' D_s + sigma' eps_null``, step by step, to sigma = 0."""
    model, count = shifted(schedule), 3
    starts = FlowMatching().noisiest if schedule is SCHEDULES["flow"] else None
    grid = make_grid(schedule, 6, sigma_max=None if starts else 8.0, spacing="trailing")
    shift = normal(count, 2, seed=1)
    x = normal(count, 2) * schedule.initial_std(grid.start)
    guided = classifier_free_guidance(model, NULL, CFGPlusPlus(strength, grid))
    found = sample(guided, x, sampler="ddim", grid=grid, conditions={"shift": shift})
    for step in range(grid.steps):
        at, to = grid[step], grid[step + 1]
        t = at.t.expand(count)
        null, own = data(model, x, t, 0 * shift), data(model, x, t, shift)
        eps = (x - at.alpha * null) / at.sigma
        x = to.alpha * (null + strength * (own - null)) + to.sigma * eps
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_cfg_plus_plus_on_a_geometric_grid_is_one_scale_until_the_last_step() -> None:
    schedule = EDM()
    grid = make_grid(schedule, 5, "log-snr", sigma_min=0.1, sigma_max=8.0)
    ratio = (8.0 / 0.1) ** (1 / 4)
    found = CFGPlusPlus(0.6, grid)(Point(*(values[:-1] for values in grid.points)))
    steps = torch.full((4,), 0.6 / (1 - 1 / ratio), dtype=torch.float64)
    torch.testing.assert_close(found, torch.cat([steps, torch.tensor([0.6]).double()]))
    between = schedule.at_lam(-torch.tensor([7.9, 0.05]).double().log())
    torch.testing.assert_close(CFGPlusPlus(0.6, grid)(between), found[[0, 4]])
    with pytest.raises(ValueError, match=r"strength of CFG\+\+ is 1.5; .* between 0 and 1"):
        CFGPlusPlus(1.5, grid)


# -------------------------------------------------------------------------------- autoguidance


@OF
@ON
def test_autoguidance_extrapolates_scores_whatever_the_models_predict(
    schedule: Schedule, kind: PredictionType
) -> None:
    """And times: the weaker network counts them from 0 to 1000 of the schedule's own."""
    x, t = normal(4, 2), at_levels(schedule, 0.1, 0.5, 2.0, 9.0)
    shift = normal(4, 2, seed=1)
    for other in KINDS:
        broad = PLANE.affine(1.7, torch.zeros(2).double()).model(schedule, other)
        slow = Denoiser(
            lambda x, t, shift, of=broad: of(x, t / 1000), schedule, other, time_scale=1000
        )
        model = shifted(schedule, kind)
        guided = autoguidance(model, slow, GuidanceInterval(2.5, 0.2, 5.0))
        own, its = model.score(x, t, shift=shift), slow.score(x, t, shift=shift)
        expected = torch.where(
            torch.tensor([[0], [1], [1], [0]]) == 1, its + 2.5 * (own - its), own
        )
        torch.testing.assert_close(guided.score(x, t, shift=shift), expected, rtol=1e-6, atol=1e-8)


def test_autoguidance_away_from_the_null_condition_is_classifier_free() -> None:
    schedule, given = VPLinear(), start(VPLinear())
    model = shifted(schedule)
    null = model.wrapped(lambda x, t, shift: model(x, t, shift=0 * shift))
    found = sample(autoguidance(model, null, 2.0), steps=5, **given)
    expected = sample(classifier_free_guidance(model, NULL, 2.0), steps=5, **given)
    torch.testing.assert_close(found, expected)
    same = sample(autoguidance(model, model, 2.0), steps=5, **given)
    torch.testing.assert_close(same, sample(model, steps=5, **given))


def test_autoguidance_away_from_a_model_that_is_corrected() -> None:
    schedule = VPLinear()
    x, t, shift = normal(4, 2), at_levels(schedule, 0.1, 0.5, 2.0, 9.0), normal(4, 2, seed=1)
    model = shifted(schedule)
    weaker = replace(model, correction=clip(0.1))
    given = model.data(x, t, shift=shift)
    expected = given.clamp(-0.1, 0.1) + 2.0 * (given - given.clamp(-0.1, 0.1))
    found = autoguidance(model, weaker, 2.0).data(x, t, shift=shift)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_scale_may_be_a_function_to_a_number() -> None:
    given = start(VPLinear())
    guided = classifier_free_guidance(shifted(VPLinear()), NULL, lambda at: 2.0)
    expected = classifier_free_guidance(shifted(VPLinear()), NULL, 2.0)
    found = sample(guided, steps=4, **given)
    torch.testing.assert_close(found, sample(expected, steps=4, **given))


@pytest.mark.parametrize("scale", ["2", math.nan, math.inf, None])
def test_a_scale_that_is_none_is_refused(scale: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number, or a function"):
        classifier_free_guidance(shifted(VPLinear()), NULL, scale)


def test_autoguidance_needs_one_schedule() -> None:
    loaded = VPDiscrete.linear(), VPDiscrete.linear()  # the same, read twice
    autoguidance(shifted(loaded[0]), shifted(loaded[1]), 2.0)
    with pytest.raises(ValueError, match=r"schedule EDM.* they must be equal"):
        autoguidance(shifted(VPLinear()), shifted(EDM()), 2.0)
    with pytest.raises(ValueError, match=r"they must be equal"):
        autoguidance(shifted(VPDiscrete.linear()), shifted(VPDiscrete.linear(end=0.021)), 2.0)
    with pytest.raises(ValueError, match="must be a Denoiser"):
        autoguidance(shifted(EDM()), lambda x, t: x, 2.0)  # type: ignore[arg-type]


# --------------------------------------------------------------------- in sampling, and gradients


@pytest.mark.parametrize("build", [classifier_free_guidance, adaptive_projected_guidance])
def test_a_null_value_needs_a_condition_of_each_sample(build: Callable[..., Denoiser]) -> None:
    guided = build(shifted(EDM()), NULL, 2.0)
    x, t = normal(3, 2), torch.ones(3, dtype=torch.float64)
    with pytest.raises(
        ValueError, match="null value for the condition 'shift', which is not given"
    ):
        guided(x, t)
    for shared in (1.0, Unbatched(normal(3, 2)), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"which all samples share; .* row for each"):
            guided(x, t, shift=shared)


def test_other_conditions_go_to_both_halves() -> None:
    """One with a row for each sample, a number, and a tensor that all share."""

    def network(x: Tensor, t: Tensor, a: Tensor, b: Tensor, c: float, d: Tensor) -> Tensor:
        assert d.shape == (2, 2)
        return x + a + c * b @ d

    model, x = Denoiser(network, EDM(), "sample"), normal(2, 2)
    a, b, d = (normal(2, 2, seed=seed) for seed in (1, 2, 3))
    for scale in (3.0, GuidanceInterval(3.0, 1.0)):
        guided = classifier_free_guidance(model, {"a": 0.0}, scale)
        found = guided(x, torch.tensor([0.5, 2.0]).double(), a=a, b=b, c=2.0, d=Unbatched(d))
        w = torch.tensor([[1.0 if callable(scale) else 3.0], [3.0]])
        torch.testing.assert_close(found, x + w * a + 2 * b @ d)


@pytest.mark.parametrize("name", ["interval", "projected", "auto"])
def test_gradients_flow_through_an_adjoint(name: str) -> None:
    schedule, given = VPLinear(), start(VPLinear())
    weights = normal(2, 2, seed=3).requires_grad_()
    inner = shifted(schedule)

    def network(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        output: Tensor = inner(x, t, shift=shift) + 0.1 * torch.tanh(x @ weights)
        return output

    model = guidances(Denoiser(network, schedule, "v_prediction"), shifted(schedule, "flow"))[name]
    x = given.pop("x_T").requires_grad_()
    tensors = [x, given["conditions"]["shift"].requires_grad_()]
    runs = [sample(model, x, steps=4, adjoint=how, **given) for how in (None, CheckpointAdjoint())]
    own, expected = ([*torch.autograd.grad(run.square().sum(), tensors)] for run in reversed(runs))
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)


def test_the_code_of_the_page_runs() -> None:
    def network(x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        return torch.tanh(x) + class_labels[:, None] / 10

    model = Denoiser(network, VPDiscrete.linear(), "v_prediction")
    names: dict[str, Any] = {"model": model, "labels": torch.tensor([3, 4])}
    names["x_T"] = model.initial((2,), (0, 1))
    page = (Path(__file__).parents[1] / "docs" / "guidance.md").read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
        exec(compile(code, "guidance.md", "exec"), names)
    assert 20 < names["info"].nfe < 40
    assert names["x_0"].shape == (2, 2)
