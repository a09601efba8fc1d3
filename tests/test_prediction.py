r"""Predictions: what a network of any kind was trained to say gives back x_0 at the door.

Also corrections of x_0 and classifier-free guidance.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samplers.prediction import (
    PREDICTION_TYPES,
    PredictionType,
    check_kind,
    classifier_free_guidance,
    clip,
    door,
    dynamic_threshold,
    target,
)
from samplers.schedule import EDM, FlowMatching, Schedule, SubVP, VPLinear

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "sub-vp": SubVP(),
    "ve": EDM(),
    "flow": FlowMatching(),
}
KINDS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction", "flow", "score")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_all_kinds_are_tested() -> None:
    assert set(KINDS) == set(PREDICTION_TYPES)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_door_inverts_the_target(kind: PredictionType, schedule: Schedule) -> None:
    x0, eps = normal(2, 5), normal(2, 5, seed=1)
    for u in (0.02, 0.3, 0.9):
        at = schedule.point(schedule.at_fraction(torch.tensor(u, dtype=torch.float64)))
        x = at.alpha * x0 + at.sigma * eps
        output = target(kind, x0, eps, at.alpha, at.sigma)
        numbers = door(kind, at)
        found = numbers.of_x * x + numbers.of_output * output
        torch.testing.assert_close(found, x0, rtol=1e-9, atol=1e-9 * float(1 + at.rho))


def test_velocity_is_a_rotation_where_variance_is_preserved() -> None:
    at = VPLinear().point(torch.tensor(0.4, dtype=torch.float64))
    numbers = door("v_prediction", at)
    assert float(numbers.of_x) == pytest.approx(float(at.alpha), rel=1e-12)
    assert float(numbers.of_output) == pytest.approx(-float(at.sigma), rel=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "score"])
def test_noise_says_nothing_at_pure_noise(kind: PredictionType) -> None:
    with pytest.raises(ValueError, match="alpha = 0"):
        door(kind, FlowMatching().noisiest)


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow"])
def test_the_other_kinds_are_defined_at_pure_noise(kind: PredictionType) -> None:
    at = FlowMatching().noisiest
    x0, eps = normal(3), normal(3, seed=1)
    numbers = door(kind, at)
    found = numbers.of_x * eps + numbers.of_output * target(kind, x0, eps, at.alpha, at.sigma)
    torch.testing.assert_close(found, x0)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon, sample"):
        check_kind("noise")


def test_clipping() -> None:
    x = torch.tensor([-3.0, -0.5, 2.0])
    assert clip(1.0)(x).tolist() == [-1.0, -0.5, 1.0]
    with pytest.raises(ValueError, match="positive"):
        clip(0.0)


def test_dynamic_threshold_scales_each_sample_by_its_own_quantile() -> None:
    x = torch.cat([torch.linspace(-1, 1, 101)[None] * 4, torch.linspace(-1, 1, 101)[None] / 2])
    found = dynamic_threshold(0.9, 10.0)(x)
    limit = torch.quantile(x[0].abs(), 0.9)
    torch.testing.assert_close(found[0], x[0].clamp(-limit, limit) / limit)
    torch.testing.assert_close(found[1], x[1])  # a quantile below 1 changes nothing
    torch.testing.assert_close(dynamic_threshold(0.9, 2.0)(x)[0], x[0].clamp(-2, 2) / 2)
    with pytest.raises(ValueError, match="ratio"):
        dynamic_threshold(0.0, 1.0)
    with pytest.raises(ValueError, match="maximum"):
        dynamic_threshold(0.9, 0.5)


def conditional(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    return x * t[:, None] + condition


def test_guidance_is_linear_in_the_scale() -> None:
    x, t = normal(4, 3), torch.rand(4, dtype=torch.float64)
    condition, null = normal(4, 3, seed=1), torch.zeros(4, 3, dtype=torch.float64)
    with_it, without = conditional(x, t, condition), conditional(x, t, null)
    for scale in (0.0, 1.0, 2.5):
        guided = classifier_free_guidance(conditional, condition, null, scale)
        torch.testing.assert_close(guided(x, t), without + scale * (with_it - without))


def test_rescaled_guidance_has_the_deviation_of_the_condition() -> None:
    x, t = normal(4, 3), torch.rand(4, dtype=torch.float64)
    condition, null = normal(4, 3, seed=1), torch.zeros(4, 3, dtype=torch.float64)
    guided = classifier_free_guidance(conditional, condition, null, 7.5, rescale=1.0)
    expected = conditional(x, t, condition).std(1)
    torch.testing.assert_close(guided(x, t).std(1), expected)
    with pytest.raises(ValueError, match="between 0 and 1"):
        classifier_free_guidance(conditional, condition, null, 2.0, rescale=1.5)


def test_guidance_at_scale_one_costs_one_call_of_the_batch() -> None:
    sizes: list[int] = []

    def counted(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        sizes.append(len(x))
        return conditional(x, t, condition)

    x, t, condition = normal(2, 3), torch.rand(2, dtype=torch.float64), normal(2, 3, seed=1)
    classifier_free_guidance(counted, condition, condition, 1.0)(x, t)
    classifier_free_guidance(counted, condition, condition, 2.0)(x, t)
    assert sizes == [2, 4]
