r"""Predictions: what a network of any kind was trained to say gives back x_0.

Also corrections of x_0, and guidance with a classifier and without.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from samplers.denoiser import Denoiser
from samplers.guidance import classifier_free_guidance, classifier_guidance
from samplers.prediction import (
    PREDICTION_TYPES,
    PredictionType,
    clip,
    dynamic_threshold,
    prediction_type,
    target,
    to_data,
)
from samplers.schedule import EDM, FlowMatching, Schedule, SubVP, VPLinear
from tests.mixture import Mixture

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
        numbers = to_data(kind, at)
        found = numbers.of_x * x + numbers.of_output * output
        torch.testing.assert_close(found, x0, rtol=1e-9, atol=1e-9 * float(1 + at.rho))


def test_velocity_is_a_rotation_where_variance_is_preserved() -> None:
    at = VPLinear().point(torch.tensor(0.4, dtype=torch.float64))
    numbers = to_data("v_prediction", at)
    assert float(numbers.of_x) == pytest.approx(float(at.alpha), rel=1e-12)
    assert float(numbers.of_output) == pytest.approx(-float(at.sigma), rel=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "score"])
def test_noise_says_nothing_at_pure_noise(kind: PredictionType) -> None:
    with pytest.raises(ValueError, match="alpha = 0"):
        to_data(kind, FlowMatching().noisiest)


@pytest.mark.parametrize("kind", ["sample", "v_prediction", "flow"])
def test_the_other_kinds_are_defined_at_pure_noise(kind: PredictionType) -> None:
    at = FlowMatching().noisiest
    x0, eps = normal(3), normal(3, seed=1)
    numbers = to_data(kind, at)
    found = numbers.of_x * eps + numbers.of_output * target(kind, x0, eps, at.alpha, at.sigma)
    torch.testing.assert_close(found, x0)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon, sample"):
        prediction_type("something")


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


CONDITIONAL = Denoiser(conditional, VPLinear())


def test_guidance_is_linear_in_the_scale() -> None:
    x, t = normal(4, 3), torch.rand(4, dtype=torch.float64)
    condition, null = normal(4, 3, seed=1), torch.zeros(4, 3, dtype=torch.float64)
    with_it, without = conditional(x, t, condition), conditional(x, t, null)
    for scale in (0.0, 1.0, 2.5):
        guided = classifier_free_guidance(CONDITIONAL, {"condition": null}, scale)
        torch.testing.assert_close(
            guided(x, t, condition=condition), without + scale * (with_it - without)
        )


def test_rescaled_guidance_has_the_deviation_of_the_condition() -> None:
    x, t = normal(4, 3), torch.rand(4, dtype=torch.float64)
    condition = normal(4, 3, seed=1)
    guided = classifier_free_guidance(CONDITIONAL, {"condition": 0.0}, 7.5, rescale=1.0)
    expected = conditional(x, t, condition).std(1)
    torch.testing.assert_close(guided(x, t, condition=condition).std(1), expected)
    with pytest.raises(ValueError, match="between 0 and 1"):
        classifier_free_guidance(CONDITIONAL, {"condition": 0.0}, 2.0, rescale=1.5)


def test_guidance_at_scale_one_costs_one_call_of_the_batch() -> None:
    sizes: list[int] = []

    def counted(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        sizes.append(len(x))
        return conditional(x, t, condition)

    x, t, condition = normal(2, 3), torch.rand(2, dtype=torch.float64), normal(2, 3, seed=1)
    model = Denoiser(counted, VPLinear())
    for scale in (1.0, 2.0):
        guided = classifier_free_guidance(model, {"condition": condition}, scale)
        guided(x, t, condition=condition)
    assert sizes == [2, 4]


# Guidance by a classifier.

TOLD_APART = Mixture(
    torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [0.8, -0.4], [0.1, 1.2]], dtype=torch.float64),
    torch.tensor(
        [[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]], [[0.1, 0.0], [0.0, 0.1]]],
        dtype=torch.float64,
    ),
)


def component(label: int) -> Mixture:
    """The samples of one class."""
    return Mixture(
        torch.ones(1, dtype=torch.float64),
        TOLD_APART.means[label : label + 1],
        TOLD_APART.covariances[label : label + 1],
    )


def exact_classifier(schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(class, x | t) up to a constant of its own for each sample."""

    def logits(x: Tensor, t: Tensor) -> Tensor:
        at, eye = schedule.point(t[0]), torch.eye(2, dtype=torch.float64)
        total = at.alpha.square() * TOLD_APART.covariances + at.sigma.square() * eye
        law = MultivariateNormal(at.alpha * TOLD_APART.means, total)
        found: Tensor = TOLD_APART.weights.log() + law.log_prob(x[:, None]) + x.sum(1, keepdim=True)
        return found

    return logits


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_classifier_gives_the_exact_conditional_model(
    kind: PredictionType, schedule: Schedule
) -> None:
    label = torch.tensor([0, 1, 2, 1])
    model, classifier = TOLD_APART.model(schedule, kind), exact_classifier(schedule)
    guided = classifier_guidance(model, classifier, label, 1.0)
    for u in (0.02, 0.3, 0.6, 0.95):
        at = schedule.point(schedule.at_fraction(torch.tensor(u, dtype=torch.float64)))
        x = (at.alpha + at.sigma) * normal(4, 2)
        t = at.t.expand(4)
        found, numbers = guided(x, t), to_data(kind, at)
        for i in range(4):
            exact = component(int(label[i])).model(schedule, kind)(x[i : i + 1], t[:1])[0]
            error = numbers.of_output * (found[i] - exact)  # of x_0
            assert float(error.abs().max()) < 1e-8


def test_the_weight_of_a_classifier_is_linear_and_0_is_the_model() -> None:
    schedule, x, t = EDM(), normal(3, 2), torch.full((3,), 0.7, dtype=torch.float64)
    model, classifier = TOLD_APART.model(schedule, "flow"), exact_classifier(schedule)

    def shift(scale: float) -> Tensor:
        label = torch.tensor([2, 0, 1])
        guided = classifier_guidance(model, classifier, label, scale)
        return guided(x, t) - model(x, t)

    assert bool((shift(0.0) == 0).all())
    torch.testing.assert_close(shift(3.0), 3 * shift(1.0))


def test_a_classifier_guides_samples_at_times_of_their_own() -> None:
    """As an adaptive driver calls it."""
    schedule, label = VPLinear(), torch.tensor([0, 1])
    x, t = normal(2, 2), torch.tensor([0.2, 0.7], dtype=torch.float64)

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([x[:, 0] * t, x[:, 1]], dim=1)

    model = Denoiser(lambda x, t: 0 * x, schedule)
    guided = classifier_guidance(model, classifier, label, 1.0)
    together = guided(x, t)
    for i in range(2):
        alone = classifier_guidance(model, classifier, label[i : i + 1], 1.0)
        assert torch.equal(alone(x[i : i + 1], t[i : i + 1])[0], together[i])
        assert torch.equal(alone(x, t)[i], together[i])  # one class for all


def test_guidance_by_a_classifier_runs_without_a_graph_and_differentiates_with_one() -> None:
    schedule, t = VPLinear(), torch.full((2,), 0.4, dtype=torch.float64)
    weight, label = normal(2, 2, seed=2), torch.tensor([0, 1])

    def guided(x: Tensor, weight: Tensor) -> Tensor:
        model = classifier_guidance(
            Denoiser(lambda x, t: torch.tanh(x), schedule, "v_prediction"),
            lambda x, t: torch.sin(x @ weight),
            label,
            2.0,
        )
        return model(x, t)

    x = normal(2, 2)
    plain = guided(x, weight)
    assert not plain.requires_grad
    needing = [v.clone().requires_grad_() for v in (x, weight)]
    assert torch.autograd.gradcheck(guided, needing, eps=1e-6, atol=1e-7, rtol=1e-5)
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            found = guided(x, needing[1])
        assert found.requires_grad == (mode is torch.enable_grad)
        torch.testing.assert_close(found.detach(), plain, rtol=0, atol=0)


def test_a_gradient_is_no_guide_at_pure_noise() -> None:
    schedule, x = FlowMatching(), normal(2, 2)
    model = Denoiser(lambda x, t: x, schedule, "flow")
    guided = classifier_guidance(model, lambda x, t: x, torch.tensor([0, 1]), 1.0)
    with pytest.raises(ValueError, match=r"alpha = 0.*sigma_max"):
        guided(x, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("ratio", [0.003, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_the_threshold_is_the_quantile_of_each_sample(ratio: float, count: int) -> None:
    x0 = 9 * torch.randn(3, count, generator=torch.Generator().manual_seed(0)).double()
    limit = torch.quantile(x0.abs(), ratio, dim=1, keepdim=True).clamp(1, 20)
    torch.testing.assert_close(dynamic_threshold(ratio, 20)(x0), x0.clamp(-limit, limit) / limit)


def test_a_sample_may_have_more_numbers_than_torch_quantile_takes() -> None:
    x0 = torch.linspace(-4, 4, 2**24 + 2).unsqueeze(0)
    found = dynamic_threshold(0.75, 10)(x0)
    torch.testing.assert_close(found, (x0 / 3).clamp(-1, 1), rtol=1e-5, atol=1e-5)
