r"""The likelihood of data: exact on Gaussians, near the truth on a mixture, honest about its error.

On Gaussian data the probability-flow ODE is an affine map, along each eigenvector a factor, so the
density that the prior has after the flow is known in closed form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from samplers.adaptive import Adaptive
from samplers.likelihood import (
    ExactTrace,
    Hutchinson,
    Likelihood,
    Trace,
    bits_per_dim,
    dequantised,
    log_likelihood,
)
from samplers.prediction import PredictionType
from samplers.schedule import EDM, FlowMatching, Point, Schedule, SubVP, VPLinear
from tests.mixture import PLANE, gaussian

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "ve": EDM(),
    "sub-vp": SubVP(),
    "flow": FlowMatching(),
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
) -> Likelihood:
    def model(x: Tensor, t: Tensor) -> Tensor:
        at = Point(*(v[:, None] for v in schedule.point(t.double())))
        return data.denoise(x, at)

    return log_likelihood(
        model,
        x_0,
        schedule=schedule,
        prediction="sample",
        trace=trace,
        settings=settings,
        seeds=seeds,
        sigma_min=SIGMA_MIN,
        sigma_max=SIGMA_MAX,
    )


@pytest.mark.parametrize("dimension", [2, 16, 256])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_exact_trace_gives_the_closed_form(schedule: str, dimension: int) -> None:
    if dimension == 256 and schedule != "vp":
        pytest.skip("one schedule is enough where the trace has 256 terms")
    data = Gaussian.of(dimension)
    x_0 = data.sample(2 if dimension == 256 else 5)
    settings = Adaptive("dormand-prince", 1e-6, 1e-6, 3_000) if dimension == 256 else FINE
    result = found(data, x_0, SCHEDULES[schedule], ExactTrace(), settings)
    exact = data.flowed_log_prob(x_0, *ends_of(SCHEDULES[schedule]))
    assert bool(result.within_tolerance.all())
    torch.testing.assert_close(result.log_prob, exact, rtol=1e-5, atol=1e-5)
    assert bool((result.standard_error == 0).all())


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
            schedule=schedule,
            prediction=kind,
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
            schedule=schedule,
            prediction="sample",
            trace=ExactTrace(),
            settings=FINE,
            sigma_min=0.1,
            sigma_max=sigma_max,
        )
        exact = PLANE.log_prob(x_0, clean.alpha, clean.sigma)
        misses.append(float((result.log_prob - exact).abs().max()))
    assert misses[1] < 1e-3
    assert misses[1] < misses[0] / 8


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """But for the network's own products of matrices, which round with their size."""
    data = Gaussian.of(16)
    x_0 = data.sample(3)
    together = found(data, x_0, SCHEDULES["vp"], Hutchinson(2), COARSE, range(3))
    for i in range(3):
        seeds = range(i, i + 1)
        alone = found(data, x_0[i : i + 1], SCHEDULES["vp"], Hutchinson(2), COARSE, seeds)
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[i], rtol=1e-9, atol=1e-9)
        assert int(alone.nfe[0]) == int(together.nfe[i])


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


def test_dequantised_images_keep_their_bytes() -> None:
    images = torch.arange(256).to(torch.uint8).reshape(2, 1, 8, 16)
    x = dequantised(images, (5, 6))
    assert torch.equal(((x + 1) * 128).floor().to(torch.uint8), images)
    assert bool(((x >= -1) & (x < 1)).all())
    assert torch.equal(dequantised(images[1:], (6,))[0], x[1])


def test_bad_input_is_one_sentence() -> None:
    data = Gaussian.of(2)
    with pytest.raises(ValueError, match="finite"):
        found(data, torch.full((2, 2), math.nan).double(), SCHEDULES["vp"], ExactTrace())
    with pytest.raises(ValueError, match="needs one"):
        Hutchinson(probes=0)
    with pytest.raises(ValueError, match="rademacher"):
        Hutchinson(law="uniform")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bytes"):
        dequantised(torch.zeros(1, 2, 2), (0,))
    with pytest.raises(ValueError, match="2 seeds came for 1"):
        dequantised(torch.zeros(1, 2, 2, dtype=torch.uint8), (0, 1))
