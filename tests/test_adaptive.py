r"""The adaptive solvers: the error follows the tolerance, and no sample minds the others.

On a mixture with exact score in float64; the reference is DOP853 at 1e-12. With a network that
treats samples alike, a sample is bit for bit the same alone and in any batch. Network calls are
counted one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.errors import NotFiniteError
from samplers.methods.embedded import BOGACKI_SHAMPINE, DORMAND_PRINCE, Embedded, Parts
from samplers.prediction import PREDICTION_TYPES, PredictionType, clip
from samplers.probability_flow.adaptive import (
    AdaptiveResult,
    angle_of,
    encode_adaptive,
    probability_flow,
    sample_adaptive,
)
from samplers.probability_flow.integration import Adaptive, Field, integrate
from samplers.registry import (
    AdaptiveSampler,
    adaptive_registry,
    get_adaptive_sampler,
    list_samplers,
)
from samplers.schedule import (
    EDM,
    VE,
    FlowMatching,
    Schedule,
    SubVP,
    VPCosine,
    VPDiscrete,
    VPLinear,
)
from tests.mixture import PLANE, Flow, gaussian
from tests.test_schedule import zero_terminal

EACH = pytest.mark.parametrize("pair", adaptive_registry().values(), ids=list_samplers("adaptive"))
SCHEDULE = VPLinear()
SCHEDULES: dict[str, Schedule] = {
    "vp": SCHEDULE,
    "discrete": VPDiscrete.linear(),
    "cosine": VPCosine(),
    "sub-vp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
    "flow": FlowMatching(),
}
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PLENTY = 5000


def settings(pair: AdaptiveSampler, tolerance: float = 1e-3, max_nfe: int = PLENTY) -> Adaptive:
    return Adaptive(pair.name, tolerance, tolerance, max_nfe)


def noise(count: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=generator, dtype=torch.float64).to(dtype)


class Problem(NamedTuple):
    """States x at one end of the trained range, and the exact ones at the other."""

    x: Tensor
    exact: Tensor


@cache
def decoding() -> Problem:
    """From pure noise, nearly, to the cleanest level."""
    top, bottom = SCHEDULE.noisiest, SCHEDULE.cleanest
    x = noise(64)
    start = float(top.lam)
    exact = Flow(PLANE, x / top.alpha, start, start, float(bottom.lam))(float(bottom.lam))
    return Problem(x, bottom.alpha * exact)


@cache
def encoding() -> Problem:
    """From data, with the little noise of the cleanest level, to the noisiest."""
    top, bottom = SCHEDULE.noisiest, SCHEDULE.cleanest
    generator = torch.Generator().manual_seed(4)
    component = torch.multinomial(PLANE.weights, 64, replacement=True, generator=generator)
    spread = torch.linalg.cholesky(PLANE.covariances)[component]
    data = PLANE.means[component] + torch.einsum("bij,bj->bi", spread, noise(64, seed=5))
    y = data + bottom.rho * noise(64, seed=6)
    start = float(bottom.lam)
    exact = Flow(PLANE, y, start, float(top.lam), start)(float(top.lam))
    return Problem(bottom.alpha * y, top.alpha * exact)


def median_error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).square().mean(dim=1).sqrt().median())


def decoded(pair: AdaptiveSampler, tolerance: float) -> AdaptiveResult:
    return sample_adaptive(
        PLANE.model(SCHEDULE, "v_prediction"),
        decoding().x,
        settings=settings(pair, tolerance),
        final="sigma_min",
    )


def encoded(pair: AdaptiveSampler, x: Tensor, tolerance: float) -> AdaptiveResult:
    return encode_adaptive(
        PLANE.model(SCHEDULE, "v_prediction"), x, settings=settings(pair, tolerance)
    )


# The error follows the tolerance.


def check_proportional(errors: list[float]) -> None:
    """At most ten times the tolerance each, and one decade for a decade."""
    logs = [math.log10(error) for error in errors]
    mean = (len(logs) - 1) / 2
    spread = sum((i - mean) ** 2 for i in range(len(logs)))
    slope = -sum((i - mean) * log for i, log in enumerate(logs)) / spread
    assert all(e <= 10 * t for e, t in zip(errors, TOLERANCES, strict=False)), errors
    assert slope == pytest.approx(1, abs=0.2), errors


FEW_STEPS = pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=pytest.mark.slow if pair.name.startswith("dpm") else ())
        for pair in adaptive_registry().values()
    ],
    ids=list_samplers("adaptive"),
)
"""The pairs of DPM-Solver take more steps, and are for the slow tests."""


@FEW_STEPS
def test_the_error_follows_the_tolerance(pair: AdaptiveSampler) -> None:
    # Thousands of steps of the lowest order are for the slow test.
    tolerances = TOLERANCES[:-2] if pair.order == 2 else TOLERANCES
    results = [decoded(pair, tolerance) for tolerance in tolerances]
    assert all(bool(result.within_tolerance.all()) for result in results)
    check_proportional([median_error(result.x, decoding().exact) for result in results])


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair", [pair for pair in adaptive_registry().values() if pair.order == 2], ids=lambda p: p.name
)
def test_the_error_follows_the_tolerance_of_the_lowest_order(pair: AdaptiveSampler) -> None:
    results = [decoded(pair, tolerance) for tolerance in TOLERANCES]
    check_proportional([median_error(result.x, decoding().exact) for result in results])


@EACH
def test_encoding_follows_the_tolerance_too(pair: AdaptiveSampler) -> None:
    for tolerance in TOLERANCES[:3]:
        found = encoded(pair, encoding().x, tolerance)
        assert median_error(found.x, encoding().exact) <= 10 * tolerance
        assert bool(found.within_tolerance.all())


@FEW_STEPS
def test_there_and_back(pair: AdaptiveSampler) -> None:
    x = encoding().x
    there = encoded(pair, x, 1e-4)
    back = sample_adaptive(
        PLANE.model(SCHEDULE, "v_prediction"),
        there.x,
        settings=settings(pair, 1e-4),
        final="sigma_min",
    )
    assert median_error(back.x, x) <= 10 * 1e-4


@pytest.mark.parametrize("table", [BOGACKI_SHAMPINE, DORMAND_PRINCE])
def test_the_last_stage_of_a_runge_kutta_pair_is_the_new_point(table: Embedded) -> None:
    c, a, b = table.butcher
    assert a[-1] == b[:-1]
    assert b[-1] == 0
    assert [sum(row) for row in a] == pytest.approx(c)
    assert sum(b) == pytest.approx(1)
    assert sum(table.error) == pytest.approx(0, abs=1e-15)


# Coordinates do not matter.


@EACH
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_takes_the_same_steps(name: str, pair: AdaptiveSampler) -> None:
    """With the same noise per signal, the solution is the same in units of the signal."""

    def run(schedule: Schedule) -> tuple[Tensor, Tensor]:
        start, end = (
            schedule.at_lam(torch.tensor(-math.log(rho), dtype=torch.float64))
            for rho in (8.0, 0.05)
        )
        found = sample_adaptive(
            PLANE.model(schedule, "sample"),
            start.alpha * 8 * noise(8),
            settings=settings(pair, 1e-2),
            sigma_max=8.0,
            sigma_min=0.05,
            final="sigma_min",
        )
        return found.x / end.alpha, found.nfe

    (x, nfe), (expected, expected_nfe) = run(SCHEDULES[name]), run(EDM())
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-9)
    assert torch.equal(nfe, expected_nfe)


@EACH
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_every_prediction_gives_the_same_sample(
    kind: PredictionType, pair: AdaptiveSampler
) -> None:
    def run(kind: PredictionType) -> AdaptiveResult:
        return sample_adaptive(PLANE.model(SCHEDULE, kind), noise(8), settings=settings(pair, 1e-2))

    found, expected = run(kind), run("sample")
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-8)
    assert torch.equal(found.nfe, expected.nfe)


# Bitwise.


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    """A network that treats samples alike, bit for bit, and each of them differently."""
    t = t.reshape(-1, *(1 for _ in x.shape[1:]))
    return torch.sin(2 * x + t / (1 + t)) + 0.3 * x


@EACH
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("vp", torch.float64),
        ("flow", torch.float64),
        ("discrete", torch.float32),
        ("flow", torch.bfloat16),
    ],
    ids=str,
)
def test_a_sample_is_the_same_alone_and_in_any_batch(
    name: str, dtype: torch.dtype, pair: AdaptiveSampler
) -> None:
    schedule = SCHEDULES[name]
    x = torch.cat([noise(11, dtype=dtype), noise(11, 5, dtype)], dim=1)[:, :3]

    def run(x: Tensor) -> AdaptiveResult:
        return sample_adaptive(
            Denoiser(elementwise, schedule, "v_prediction"), x, settings=settings(pair, 1e-3)
        )

    whole = run(x)
    assert whole.x.dtype == dtype
    assert len(whole.nfe.unique()) > 1, "the samples should differ in cost"
    for places in ([0], [7], [10], [3, 2], [10, 0, 5, 1, 7], list(range(10, -1, -1))):
        for found, expected in zip(run(x[places]), whole, strict=True):
            assert torch.equal(found, expected[places])


# Every call is counted.


class Counting(NamedTuple):
    """A field, how often each sample was in a call, and how many were in each call."""

    field: Field
    calls: Counter[int]
    sizes: list[int]


def counting() -> Counting:
    inner = probability_flow(PLANE.model(SCHEDULE, "sample"))
    calls: Counter[int] = Counter()
    sizes: list[int] = []

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        assert angle.shape == places.shape == (len(parts.tensors[0]),)
        calls.update(places.tolist())
        sizes.append(len(places))
        return inner(parts, angle, places)

    return Counting(field, calls, sizes)


@EACH
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_the_calls_of_each_sample_are_counted(final: str, pair: AdaptiveSampler) -> None:
    count = 16
    counted = counting()
    parts = Parts((noise(count),))
    start, end = angle_of(SCHEDULE.noisiest), angle_of(SCHEDULE.cleanest)
    land = 0.0 if final == "zero" else None
    found = integrate(counted.field, parts, start, end, settings(pair), land)
    assert found.nfe.tolist() == [counted.calls[i] for i in range(count)]
    tried = found.accepted + found.rejected
    # What is known at the beginning of a step is not asked again after a rejection.
    if pair.keeps_last:
        expected = 1 + (pair.calls - 1) * tried
    else:
        expected = found.accepted + (pair.calls - 1) * tried + (1 if final == "zero" else 0)
    assert torch.equal(found.nfe, expected)
    assert bool((found.rejected > 0).any())
    # Those that have arrived are not asked any more.
    assert counted.sizes[0] == count
    assert counted.sizes[-1] < count


@EACH
def test_each_sample_keeps_its_conditions(pair: AdaptiveSampler) -> None:
    """Whatever samples are in a call, the network is given what belongs to them."""
    shifts, labels = noise(12, seed=9), torch.arange(12)

    def run(places: Tensor) -> AdaptiveResult:
        def network(x: Tensor, t: Tensor, shift: Tensor, label: Tensor) -> Tensor:
            torch.testing.assert_close(shifts[label], shift, rtol=0, atol=0)
            return elementwise(x, t) + 0.1 * shift * label[:, None]

        return sample_adaptive(
            Denoiser(network, SCHEDULE, "v_prediction"),
            noise(12)[places],
            conditions={"shift": shifts[places], "label": labels[places]},
            settings=settings(pair, 1e-2),
        )

    whole = run(labels)
    assert len(whole.nfe.unique()) > 1
    for places in (torch.tensor([8]), torch.tensor([11, 3, 7])):
        assert torch.equal(run(places).x, whole.x[places])


# The budget.


@EACH
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_the_budget_is_kept_to_the_call(final: str, pair: AdaptiveSampler) -> None:
    start, end = angle_of(SCHEDULE.noisiest), angle_of(SCHEDULE.cleanest)
    land = 0.0 if final == "zero" else None
    field = probability_flow(PLANE.model(SCHEDULE, "sample"))

    def run(max_nfe: int) -> tuple[Tensor, int, bool]:
        found = integrate(
            field, Parts((noise(1),)), start, end, settings(pair, 1e-2, max_nfe), land
        )
        return found.x.tensors[0], int(found.nfe), bool(found.within_tolerance)

    free, needed, _ = run(PLENTY)
    for max_nfe in range(pair.least_nfe, needed + 3):
        x, nfe, within = run(max_nfe)
        assert nfe <= max_nfe
        assert within == (max_nfe >= needed)
        assert torch.equal(x, free) == within
        assert bool(x.isfinite().all())


def test_a_spent_budget_ends_with_a_ddim_step() -> None:
    """Its x_0 is the prediction where the last step that fitted had ended."""
    predicted: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        predicted.append(PLANE.model(SCHEDULE, "sample")(x, t))
        return predicted[-1]

    found = sample_adaptive(
        Denoiser(network, SCHEDULE, "sample"),
        noise(1),
        settings=Adaptive("dpmpp-23", 1e-4, 1e-4, max_nfe=12),
    )
    assert not bool(found.within_tolerance)
    assert len(predicted) == int(found.nfe) <= 12
    torch.testing.assert_close(found.x, predicted[-1], rtol=0, atol=1e-12)


def test_one_sample_out_of_budget_leaves_the_others_alone() -> None:
    free = decoded(get_adaptive_sampler("dormand-prince"), 1e-4)
    limit = int(free.nfe.double().quantile(0.5))
    found = sample_adaptive(
        PLANE.model(SCHEDULE, "v_prediction"),
        decoding().x,
        settings=Adaptive("dormand-prince", 1e-4, 1e-4, limit),
        final="sigma_min",
    )
    enough = free.nfe <= limit
    assert torch.equal(found.within_tolerance, enough)
    assert 0 < int(enough.sum()) < len(enough)
    torch.testing.assert_close(found.x[enough], free.x[enough], rtol=0, atol=1e-12)
    assert int(found.nfe.max()) <= limit


# Both ends.


@EACH
def test_the_clean_end_is_the_prediction_at_the_last_level(pair: AdaptiveSampler) -> None:
    model = PLANE.model(SCHEDULE, "sample")

    def run(final: str) -> Tensor:
        return sample_adaptive(
            model,
            noise(4),
            settings=settings(pair),
            final="zero" if final == "zero" else "sigma_min",
        ).x

    t = torch.full((4,), SCHEDULE.t_min, dtype=torch.float64)
    torch.testing.assert_close(run("zero"), model(run("sigma_min"), t), rtol=0, atol=1e-9)


PURE_NOISE: dict[str, tuple[Schedule, PredictionType]] = {
    "flow": (FlowMatching(), "flow"),
    "zero-terminal": (zero_terminal(), "v_prediction"),
}
PURE_NOISE_END = 3.0


@cache
def from_pure_noise() -> Problem:
    """From pure noise to a log-SNR of 3, in units of the signal at the end."""
    x, near = noise(32), -11.0
    # So near to pure noise x is x_T + alpha E[x_0], but for a relative 1e-9 or so.
    y = math.hypot(1, math.exp(-near)) * x + PLANE.mean
    return Problem(x, Flow(PLANE, y, near, near, PURE_NOISE_END)(PURE_NOISE_END))


@EACH
@pytest.mark.parametrize("name", PURE_NOISE)
def test_from_pure_noise_and_back(name: str, pair: AdaptiveSampler) -> None:
    schedule, kind = PURE_NOISE[name]
    model, sigma_min = PLANE.model(schedule, kind), math.exp(-PURE_NOISE_END)
    alpha = schedule.at_lam(torch.tensor(PURE_NOISE_END, dtype=torch.float64)).alpha
    for tolerance in (1e-2, 1e-4):
        found = sample_adaptive(
            model,
            from_pure_noise().x,
            settings=settings(pair, tolerance),
            sigma_min=sigma_min,
            final="sigma_min",
        )
        assert median_error(found.x / alpha, from_pure_noise().exact) <= 10 * tolerance
        back = encode_adaptive(
            model, found.x, settings=settings(pair, tolerance), sigma_min=sigma_min
        )
        assert median_error(back.x, from_pure_noise().x) <= 20 * tolerance


@pytest.mark.parametrize("kind", ["epsilon", "score"])
def test_noise_prediction_is_refused_at_pure_noise(kind: PredictionType) -> None:
    schedule = FlowMatching()
    with pytest.raises(ValueError, match="alpha = 0"):
        sample_adaptive(PLANE.model(schedule, kind), noise(1))


def test_no_way_is_no_step() -> None:
    found = integrate(counting().field, Parts((noise(3),)), 0.5, 0.5)
    assert torch.equal(found.x.tensors[0], noise(3))
    assert found.nfe.tolist() == [0, 0, 0]
    assert bool(found.within_tolerance.all())


# An image and a number.


@EACH
@pytest.mark.parametrize("towards", ["noise", "data"])
def test_a_number_is_carried_along(towards: str, pair: AdaptiveSampler) -> None:
    r"""The log-density along the flow of normal data: ``d log p / dphi = -div v``."""
    law = gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    flow = probability_flow(law.model(SCHEDULE, "sample"))

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        def slope(x: Tensor) -> Tensor:
            return flow(Parts((x,)), angle, places).tensors[0]

        x, _ = parts.tensors
        jacobian = torch.func.jacrev(lambda x: slope(x).sum(0))(x)
        return Parts((slope(x), -torch.einsum("ibi->b", jacobian)))

    def log_p(x: Tensor, angle: float) -> Tensor:
        cos, sin = math.cos(angle), math.sin(angle)
        covariance = cos**2 * law.covariance + sin**2 * torch.eye(2, dtype=torch.float64)
        at = torch.distributions.MultivariateNormal(cos * law.mean, covariance)
        density: Tensor = at.log_prob(x)
        return density

    ends = [angle_of(SCHEDULE.cleanest), angle_of(SCHEDULE.noisiest)]
    start, end = ends if towards == "noise" else ends[::-1]
    x = noise(8)
    found = integrate(field, Parts((x, log_p(x, start))), start, end, settings(pair, 1e-4))
    end_x, end_log_p = found.x.tensors
    assert float((end_log_p - log_p(end_x, end)).abs().median()) < 2e-3


def test_the_worst_part_decides() -> None:
    """A number that is hard to follow shortens the steps; one that is constant does not."""

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        x, _ = parts.tensors
        return Parts((torch.zeros_like(x), torch.cos(40 * angle)))

    hard = Parts((noise(1).repeat(1, 500), torch.zeros(1, dtype=torch.float64)))
    found = integrate(field, hard, 0.0, 1.0, Adaptive("dormand-prince", 1e-6, 1e-6))
    assert float(found.x.tensors[1]) == pytest.approx(math.sin(40) / 40, abs=1e-5)
    assert int(found.accepted) > 10


# Precision, gradients, corrections.


def test_float32_errs_by_its_rounding_alone() -> None:
    wide = decoded(get_adaptive_sampler("bogacki-shampine"), 1e-4)
    narrow = sample_adaptive(
        PLANE.model(SCHEDULE, "v_prediction"),
        decoding().x.float(),
        settings=Adaptive(rtol=1e-4, atol=1e-4),
        final="sigma_min",
    )
    assert narrow.x.dtype == torch.float32
    assert median_error(narrow.x.double(), wide.x) < 1e-5


@pytest.mark.parametrize(
    "pair", [get_adaptive_sampler("dormand-prince"), get_adaptive_sampler("dpmpp-23")]
)
def test_gradients_flow_to_the_noise_and_to_the_weights(pair: AdaptiveSampler) -> None:
    model = PLANE.model(SCHEDULE, "v_prediction")

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return sample_adaptive(
            Denoiser(lambda x, t: weight * model(x, t), SCHEDULE, "v_prediction"),
            x,
            settings=settings(pair, 1e-5),
        ).x.sum()

    x, weight = noise(2).requires_grad_(), torch.ones((), dtype=torch.float64, requires_grad=True)
    along = noise(2, seed=8)
    of_x, of_weight = torch.autograd.grad(run(x, weight), (x, weight))
    with torch.no_grad():
        d = 1e-3
        in_x = (run(x + d * along, weight) - run(x - d * along, weight)) / (2 * d)
        in_weight = (run(x, weight + d) - run(x, weight - d)) / (2 * d)
    assert float((of_x * along).sum()) == pytest.approx(float(in_x), rel=5e-3)
    assert float(of_weight) == pytest.approx(float(in_weight), rel=5e-3)


def test_a_correction_is_applied_to_every_prediction() -> None:
    found = sample_adaptive(
        replace(PLANE.model(SCHEDULE, "epsilon"), correction=clip(0.5)), noise(16)
    )
    assert float(found.x.abs().max()) <= 0.5 + 1e-12


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rtol": 0.0}, "rtol is 0.0; it must be positive"),
        ({"atol": -1e-3}, "atol is -0.001; it must be positive"),
        ({"rtol": math.nan}, "rtol is nan"),
        ({"atol": math.inf}, "atol is inf"),
        ({"max_nfe": 6, "method": "dormand-prince"}, "needs at least 7 network evaluations"),
        ({"max_nfe": 4, "method": "dpmpp-23"}, "needs at least 5 network evaluations"),
        ({"max_nfe": 40.5}, "whole number"),
        ({"method": "dormand-price"}, "did you mean 'dormand-prince'"),
        ({"method": "§"}, "no sampler named"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Adaptive(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("RK45", "dormand-prince"),
        ("dopri5", "dormand-prince"),
        ("sample_dpm_adaptive", "dpm-solver-23"),
        ("DPM_Solver_12", "dpm-solver-12"),
        ("dpm-solver++-23", "dpmpp-23"),
    ],
)
def test_a_method_has_the_names_that_people_know(name: str, expected: str) -> None:
    assert get_adaptive_sampler(name).name == expected


def test_no_name_stands_for_two_methods() -> None:
    names = [name for pair in adaptive_registry().values() for name in (pair.name, *pair.aliases)]
    assert len(names) == len(set(names))


def run_on(schedule: Schedule, x: Tensor, sigma_min: float | None = None) -> AdaptiveResult:
    return sample_adaptive(Denoiser(elementwise, schedule, "v_prediction"), x, sigma_min=sigma_min)


def test_impossible_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="give a sigma_min"):
        run_on(VPLinear(t_min=0.0), noise(1))
    run_on(VPLinear(t_min=0.0), noise(1), sigma_min=0.01)
    with pytest.raises(ValueError, match="sigma_min"):
        run_on(VPLinear(), noise(1), sigma_min=1e-9)
    with pytest.raises(ValueError, match="batch is empty"):
        run_on(VPLinear(), noise(0))


def test_ends_and_conditions_that_do_not_fit_are_refused() -> None:
    x, schedule = torch.zeros(3, 2), VPLinear()
    with pytest.raises(ValueError, match="x holds NaN"):
        encode_adaptive(Denoiser(no_model, schedule), x / 0)
    with pytest.raises(ValueError, match="x_T holds NaN"):
        sample_adaptive(Denoiser(no_model, schedule), x / 0)
    with pytest.raises(ValueError, match="final is 'end'; it must be one of"):
        sample_adaptive(Denoiser(no_model, schedule), x, final="end")  # type: ignore[arg-type]
    for call in (sample_adaptive, encode_adaptive):
        with pytest.raises(ValueError, match="The condition 'label' has 5 rows for 3 samples"):
            call(Denoiser(no_model, schedule), x, conditions={"label": torch.zeros(5)})


def no_model(x: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
    raise AssertionError("the network was called")


def test_a_tolerance_below_the_rounding_is_refused() -> None:
    tight = Adaptive(rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="float64"):
        sample_adaptive(Denoiser(elementwise, SCHEDULE), noise(1).float(), settings=tight)


def test_a_network_that_fails_is_named() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        output = elementwise(x, t)
        output[t < 0.5] = math.nan
        return output

    with pytest.raises(NotFiniteError, match="NaN or infinity for 3 of 3 samples") as caught:
        sample_adaptive(Denoiser(broken, SCHEDULE), noise(1).expand(3, 2))
    assert bool(caught.value.x.isfinite().all())
    with pytest.raises(ValueError, match="one prediction of the shape of x"):
        sample_adaptive(Denoiser(lambda x, t: x[:, :1], SCHEDULE), noise(2))
