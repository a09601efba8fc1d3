r"""The likelihood of data: exact on Gaussians, near the truth on a mixture, honest about its error.

On Gaussian data the probability-flow ODE is an affine map, along each eigenvector a factor, so the
density that the prior has after the flow is known in closed form.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from samplers.denoiser import Denoiser
from samplers.errors import NotFiniteError
from samplers.prediction import PredictionType
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import (
    DEFAULT,
    ExactTrace,
    Hutchinson,
    Likelihood,
    Trace,
    bits_per_dim,
    dequantised,
    log_likelihood,
)
from samplers.schedule import EDM, FlowMatching, Point, Schedule, SubVP, VPDiscrete, VPLinear
from tests.mixture import PLANE, gaussian

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "ve": EDM(),
    "sub-vp": SubVP(),
    "flow": FlowMatching(),
    "discrete": VPDiscrete.linear(),
}
SIGMA_MIN, SIGMA_MAX = 0.02, 40.0
FINE = Adaptive("dormand-prince", rtol=1e-8, atol=1e-8, max_nfe=3_000)
COARSE = Adaptive("dormand-prince", rtol=1e-4, atol=1e-4, max_nfe=3_000)


class Gaussian(NamedTuple):
    """N(mean, Q diag(variances) Q^T) in closed form."""

    mean: Tensor
    variances: Tensor
    eigenvectors: Tensor

    @classmethod
    def of(cls, dimension: int) -> Gaussian:
        generator = torch.Generator().manual_seed(dimension)
        square = torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)
        variances = torch.linspace(0.05, 1.5, dimension, dtype=torch.float64)
        return cls(square[0] / 4, variances, torch.linalg.qr(square)[0])

    @classmethod
    def flat(cls, dimension: int) -> Gaussian:
        """With a standard deviation of 1e-4 in all directions but for two."""
        plain = cls.of(dimension)
        variances = torch.full_like(plain.variances, 1e-8)
        variances[:2] = 1.0
        return plain._replace(variances=variances)

    def sample(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(count)
        z = torch.randn(count, len(self.mean), dtype=torch.float64, generator=generator)
        return self.mean + (z * self.variances.sqrt()) @ self.eigenvectors.T

    def marginal(self, at: Point) -> Tensor:
        return at.alpha.square() * self.variances + at.sigma.square()

    def denoise(self, x: Tensor, at: Point) -> Tensor:
        gain = at.alpha * self.variances / self.marginal(at)
        away = (x - at.alpha * self.mean) @ self.eigenvectors
        return self.mean + (away * gain) @ self.eigenvectors.T

    def model(self, schedule: Schedule) -> Denoiser:
        """The exact denoiser of this data; it predicts x_0."""

        def network(x: Tensor, t: Tensor) -> Tensor:
            return self.denoise(x, Point(*(v[:, None] for v in schedule.point(t.double()))))

        return Denoiser(network, schedule, "sample")

    def flowed_log_prob(self, x_0: Tensor, clean: Point, noisy: Point) -> Tensor:
        """Of the prior N(0, sigma^2) pulled back through the flow, along each eigenvector
        ``x_T - alpha_T m = sqrt(V_T / V_0) (alpha_0 x - alpha_0 m)``."""
        factor = (self.marginal(noisy) / self.marginal(clean)).sqrt() * clean.alpha
        away = ((x_0 - self.mean) @ self.eigenvectors) * factor
        x_T = away + noisy.alpha * self.mean @ self.eigenvectors
        prior = torch.distributions.Normal(0.0, noisy.sigma)
        return (prior.log_prob(x_T) + factor.log()).sum(dim=1)


def ends_of(schedule: Schedule) -> tuple[Point, Point]:
    levels = torch.tensor([SIGMA_MIN, SIGMA_MAX], dtype=torch.float64)
    both = schedule.at_lam(-levels.log())
    return Point(*(v[0] for v in both)), Point(*(v[1] for v in both))


def found(
    data: Gaussian,
    x_0: Tensor,
    schedule: Schedule,
    trace: Trace,
    settings: Adaptive = FINE,
    seeds: range | None = None,
    sigma_max: float | None = SIGMA_MAX,
) -> Likelihood:
    return log_likelihood(
        data.model(schedule),
        x_0,
        trace=trace,
        settings=settings,
        seeds=seeds,
        sigma_min=SIGMA_MIN,
        sigma_max=sigma_max,
    )


@pytest.mark.parametrize("dimension", [2, 16, 256])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_exact_trace_gives_the_closed_form(schedule: str, dimension: int) -> None:
    if dimension == 256 and schedule != "vp":
        pytest.skip("one schedule is enough where the trace has 256 terms")
    data = Gaussian.of(dimension)
    x_0 = data.sample(2 if dimension == 256 else 5)
    settings = Adaptive("dormand-prince", 1e-6, 1e-6, 3_000) if dimension == 256 else FINE
    result = found(data, x_0, SCHEDULES[schedule], ExactTrace(at_once=256), settings)
    exact = data.flowed_log_prob(x_0, *ends_of(SCHEDULES[schedule]))
    assert bool(result.within_tolerance.all())
    torch.testing.assert_close(result.log_prob, exact, rtol=1e-5, atol=1e-5)
    assert bool((result.standard_error == 0).all())


@pytest.mark.parametrize("at_once", [1, 5, 16, 100])
def test_terms_of_the_trace_may_share_a_pass(at_once: int) -> None:
    data = Gaussian.of(16)
    x_0 = data.sample(3)
    result = found(data, x_0, SCHEDULES["vp"], ExactTrace(at_once), COARSE)
    expected = found(data, x_0, SCHEDULES["vp"], ExactTrace(), COARSE)
    torch.testing.assert_close(result.log_prob, expected.log_prob, rtol=1e-10, atol=0)
    assert torch.equal(result.nfe, expected.nfe)


def test_the_flow_may_end_at_pure_noise() -> None:
    data, schedule = Gaussian.of(2), FlowMatching()
    x_0 = data.sample(5)
    result = found(data, x_0, schedule, ExactTrace(), sigma_max=None)
    clean, _ = ends_of(schedule)
    exact = data.flowed_log_prob(x_0, clean, schedule.noisiest)
    torch.testing.assert_close(result.log_prob, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", ["vp", "ve", "flow"])
def test_the_error_follows_the_tolerance_where_data_hardly_vary(schedule: str) -> None:
    """There the trace has a peak at the clean end, which not every pair of methods sees."""
    data, way = Gaussian.flat(16), SCHEDULES[schedule]
    x_0 = data.sample(4)
    exact = data.flowed_log_prob(x_0, way.cleanest, way.noisiest)
    for tolerance in (1e-2, 1e-3, 1e-4):
        settings = replace(DEFAULT, rtol=tolerance, atol=tolerance)
        result = log_likelihood(
            data.model(way), x_0, trace=ExactTrace(at_once=16), settings=settings
        )
        assert float((result.log_prob - exact).abs().max()) / 16 < 10 * tolerance


def test_data_in_other_units_have_the_density_in_these() -> None:
    """log p(a x) = log p(x) - d log a, if the noise levels are in the same units."""

    def log_prob(scale: float) -> Tensor:
        schedule = EDM(sigma_max=200.0)
        data = PLANE.affine(scale, torch.zeros(2))
        return log_likelihood(
            data.model(schedule, "sample"),
            scale * torch.tensor([[0.3, -0.2], [1.5, 0.7]]).double(),
            trace=ExactTrace(),
            settings=FINE,
            sigma_min=0.05 * scale,
            sigma_max=40.0 * scale,
        ).log_prob

    torch.testing.assert_close(log_prob(3.0), log_prob(1.0) - 2 * math.log(3.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
@pytest.mark.parametrize("dimension", [2, 16, 256])
def test_hutchinson_is_within_its_own_error(dimension: int, law: str) -> None:
    data = Gaussian.of(dimension)
    x_0 = data.sample(4)
    trace = Hutchinson(probes=64, law="gaussian" if law == "gaussian" else "rademacher")
    result = found(data, x_0, SCHEDULES["vp"], trace, COARSE)
    exact = data.flowed_log_prob(x_0, *ends_of(SCHEDULES["vp"]))
    assert bool(((result.log_prob - exact).abs() <= 3 * result.standard_error + 1e-3).all())
    assert bool((result.standard_error > 0).all())


def test_signs_have_less_variance_than_normal_probes() -> None:
    data, errors = Gaussian.of(16), {}
    for law in ("rademacher", "gaussian"):
        trace = Hutchinson(64, "gaussian" if law == "gaussian" else "rademacher")
        errors[law] = found(data, data.sample(4), SCHEDULES["ve"], trace, COARSE).standard_error
    assert bool((errors["rademacher"] < errors["gaussian"]).all())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "score", "flow"])
def test_every_prediction_gives_the_same_density(prediction: PredictionType) -> None:
    data = gaussian([1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]])
    schedule, x_0 = SCHEDULES["sub-vp"], torch.tensor([[0.9, -0.4], [2.0, 1.0]]).double()
    found = [
        log_likelihood(
            data.model(schedule, kind),
            x_0,
            trace=ExactTrace(),
            settings=FINE,
            sigma_min=0.05,
            sigma_max=SIGMA_MAX,
        ).log_prob
        for kind in (prediction, "sample")
    ]
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


def test_a_mixture_has_its_own_density() -> None:
    """Up to what the prior N(0, sigma_T^2) leaves out, which falls as sigma_T grows."""
    schedule = EDM(sigma_max=400.0)
    x_0 = torch.tensor([[0.3, -0.2], [1.5, 0.7], [-1.0, 1.0]]).double()
    clean = schedule.at_lam(-torch.tensor(0.1).double().log())
    misses = []
    for sigma_max in (20.0, 200.0):
        result = log_likelihood(
            PLANE.model(schedule, "sample"),
            x_0,
            trace=ExactTrace(),
            settings=FINE,
            sigma_min=0.1,
            sigma_max=sigma_max,
        )
        exact = PLANE.log_prob(x_0, clean.alpha, clean.sigma)
        misses.append(float((result.log_prob - exact).abs().max()))
    assert misses[1] < 1e-3
    assert misses[1] < misses[0] / 8


TRACES = [Hutchinson(3), Hutchinson(8, "gaussian"), ExactTrace(), ExactTrace(4)]


def alike(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """A network that treats samples alike, bit for bit, and each of them differently."""
    of_sample = (-1, *(1 for _ in x.shape[1:]))
    t, label = t.reshape(of_sample), label.reshape(of_sample)
    return torch.sin(2 * x + x.roll(1, dims=1) + t / (1 + t) + label) + 0.3 * x


@pytest.mark.parametrize("trace", TRACES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_sample_is_the_same_alone_and_in_any_batch(dtype: torch.dtype, trace: Trace) -> None:
    x_0 = Gaussian.of(7).sample(9).to(dtype)
    labels = torch.arange(9).to(dtype)

    def run(places: list[int]) -> Likelihood:
        return log_likelihood(
            Denoiser(alike, SCHEDULES["vp"], "v_prediction"),
            x_0[places],
            trace=trace,
            seeds=places,
            conditions={"label": labels[places]},
        )

    whole = run(list(range(9)))
    assert len(whole.nfe.unique()) > 1, "the samples should differ in cost"
    for places in ([0], [8], [3, 2], [8, 0, 5, 1, 7]):
        for mine, expected in zip(run(places), whole, strict=True):
            assert torch.equal(mine, expected[places])


def test_nothing_is_kept_of_a_call_if_no_gradient_is_wanted() -> None:
    """The memory does not grow with the number of steps."""
    data, weight = Gaussian.of(2), torch.ones((), dtype=torch.float64, requires_grad=True)
    exact = data.model(SCHEDULES["vp"])
    outputs: list[weakref.ref[Tensor]] = []
    alive = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        alive.append(sum(output() is not None for output in outputs))
        output = weight * exact(x, t)
        outputs.append(weakref.ref(output))
        return output

    with torch.no_grad():
        log_likelihood(Denoiser(model, SCHEDULES["vp"], "sample"), data.sample(2))
    assert len(alive) > 10
    assert max(alive) == 0


def test_a_spent_budget_has_no_density() -> None:
    data = Gaussian.of(2)
    short = replace(FINE, max_nfe=40)
    result = found(data, data.sample(2), SCHEDULES["vp"], Hutchinson(2), short)
    assert not bool(result.within_tolerance.any())
    assert bool(result.log_prob.isnan().all())
    assert bool(result.standard_error.isnan().all())
    assert bool(result.latent.isfinite().all())


def test_gradients_flow_only_where_they_are_wanted() -> None:
    data, x_0 = Gaussian.of(2), Gaussian.of(2).sample(2).requires_grad_()
    with torch.no_grad():
        assert not found(data, x_0, SCHEDULES["ve"], ExactTrace(), COARSE).log_prob.requires_grad
    result = found(data, x_0, SCHEDULES["ve"], ExactTrace())
    (score,) = torch.autograd.grad(result.log_prob.sum(), x_0)
    free = x_0.detach().requires_grad_()
    exact = data.flowed_log_prob(free, *ends_of(SCHEDULES["ve"]))
    (expected,) = torch.autograd.grad(exact.sum(), free)
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-4)


def test_bits_per_dim_count_the_bytes() -> None:
    """Uniform noise over all bytes has 8 bits; its density in [-1, 1] is one half."""
    log_prob = torch.tensor([784 * math.log(0.5)])
    torch.testing.assert_close(bits_per_dim(log_prob, 784), torch.tensor([8.0]))
    # Uniform on [0, 1]^d, where the density is 1.
    torch.testing.assert_close(bits_per_dim(torch.zeros(1), 784, span=1.0), torch.tensor([8.0]))
    with pytest.raises(ValueError, match="span of the data is 0; it must be positive"):
        bits_per_dim(log_prob, 784, span=0)


def test_dequantised_images_keep_their_bytes() -> None:
    images = torch.arange(256).to(torch.uint8).reshape(2, 1, 8, 16)
    x = dequantised(images, (5, 6))
    assert torch.equal(((x + 1) * 128).floor().to(torch.uint8), images)
    assert bool(((x >= -1) & (x < 1)).all())
    assert torch.equal(dequantised(images[1:], (6,))[0], x[1])


def test_dequantised_images_stay_on_their_device() -> None:
    images = torch.zeros(2, 3, dtype=torch.uint8, device="meta")
    assert dequantised(images, (0, 1)).device.type == "meta"


def test_bad_input_is_one_sentence() -> None:
    data = Gaussian.of(2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        found(data, torch.full((2, 2), math.nan).double(), SCHEDULES["vp"], ExactTrace())
    with pytest.raises(ValueError, match="batch"):
        found(data, torch.zeros(2).double(), SCHEDULES["vp"], ExactTrace())
    with pytest.raises(ValueError, match="3 seeds came for 2 samples"):
        found(data, data.sample(2), SCHEDULES["vp"], Hutchinson(), seeds=range(3))
    for count in (0, 1.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="whole number from 1 up"):
            Hutchinson(probes=count)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="whole number from 1 up"):
            ExactTrace(at_once=count)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be a Hutchinson\(\) or an ExactTrace\(\)"):
        found(data, data.sample(2), SCHEDULES["vp"], ExactTrace)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"torch\.int64; it must be one of floats"):
        found(data, data.sample(2).long(), SCHEDULES["vp"], ExactTrace())
    with pytest.raises(ValueError, match="rademacher"):
        Hutchinson(law="uniform")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bytes"):
        dequantised(torch.zeros(1, 2, 2), (0,))
    with pytest.raises(ValueError, match="2 seeds came for 1"):
        dequantised(torch.zeros(1, 2, 2, dtype=torch.uint8), (0, 1))


def test_gradients_pass_attention_by_its_plain_kernel() -> None:
    weight = torch.eye(2, dtype=torch.float64, requires_grad=True)

    def network(x: Tensor, t: Tensor) -> Tensor:
        rows = (x @ weight)[:, None, :, None]
        return nn.functional.scaled_dot_product_attention(rows, rows, rows)[:, 0, :, 0]

    with sdpa_kernel(SDPBackend.MATH):
        result = log_likelihood(
            Denoiser(network, SCHEDULES["vp"], "sample"), Gaussian.of(2).sample(2)
        )
        (slope,) = torch.autograd.grad(result.log_prob.sum(), [weight])
    assert bool((slope != 0).all())


@pytest.mark.parametrize("recording", [False, True])
def test_a_network_that_records_nothing_is_refused(recording: bool) -> None:
    """Its divergence would be taken for that of the rest of the slope."""
    data, schedule = Gaussian.of(2), SCHEDULES["vp"]
    model = data.model(schedule)
    silent: list[Callable[..., Tensor]] = [
        torch.no_grad()(model),
        lambda x, t: model(x, t).detach(),
    ]
    for network in silent:
        with torch.set_grad_enabled(recording), pytest.raises(ValueError, match="not recorded"):
            log_likelihood(Denoiser(network, schedule, "sample"), data.sample(2))
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch\.no_grad"):
        log_likelihood(model, data.sample(2))


def test_a_network_or_a_condition_that_does_not_fit_is_named() -> None:
    x_0 = Gaussian.of(2).sample(2)

    def run(network: Callable[..., Tensor], **conditions: Tensor) -> Likelihood:
        model = Denoiser(network, SCHEDULES["vp"], "v_prediction")
        return log_likelihood(model, x_0, conditions=conditions)

    with pytest.raises(ValueError, match="3 rows for 2 samples"):
        run(alike, label=torch.zeros(3))
    with pytest.raises(ValueError, match="one prediction of the shape of x"):
        run(lambda x, t: x[:, :1])
    with pytest.raises(NotFiniteError, match="NaN or infinity"):
        run(lambda x, t: math.nan * x)
