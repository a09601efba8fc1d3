r"""Schedules: ``time`` inverts ``lam``, noise grows with t, and drift and diffusion are the SDE's.

The forward SDE ``dx = f x dt + g dw`` moves the marginal exactly when alpha' = f alpha and
(sigma^2)' = 2 f sigma^2 + g^2; both are checked by central differences on every schedule.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from samplers.schedule import (
    EDM,
    VE,
    EDMPreconditioned,
    FlowMatching,
    Schedule,
    SubVP,
    VariancePreserving,
    VPCosine,
    VPDiscrete,
    VPLinear,
    VPScaledLinear,
)
from samplers.schedule.mean_reverting import MeanReverting


def zero_terminal() -> VPDiscrete:
    """The table of Stable Diffusion, shifted and scaled so that its last step holds no signal."""
    roots = VPDiscrete.scaled_linear().alphas_cumprod.sqrt()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return VPDiscrete(roots.square())


SCHEDULES: dict[str, Schedule] = {
    "mean-reverting": MeanReverting(),
    "mean-reverting-linear": MeanReverting("linear", 50, 0.01, "mr-sampler"),
    "vp-linear": VPLinear(),
    "vp-constant": VPLinear(10.0, 10.0),
    "vp-to-2": VPLinear(t_max=2.0),
    "vp-scaled-linear": VPScaledLinear(),
    "vp-scaled-constant": VPScaledLinear(10.0, 10.0, t_max=0.5),
    "vp-cosine": VPCosine(),
    "vp-discrete": VPDiscrete.linear(),
    "vp-discrete-scaled": VPDiscrete.scaled_linear(),
    "vp-discrete-cosine": VPDiscrete.cosine(),
    "vp-zero-terminal": zero_terminal(),
    "sub-vp": SubVP(),
    "sub-vp-constant": SubVP(10.0, 10.0, t_max=1.5),
    "ve": VE(),
    "ve-to-2": VE(t_max=2.0),
    "edm": EDM(),
    "edm-preconditioned": EDMPreconditioned(),
    "flow": FlowMatching(),
    "flow-shift": FlowMatching(shift=3.0),
}
EACH = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def times(schedule: Schedule, count: int = 57) -> Tensor:
    """Times strictly inside the range of the schedule, off the nodes of a discrete one."""
    return schedule.at_fraction(torch.linspace(0.0123, 0.9871, count, dtype=torch.float64))


def slope(function: Callable[[Tensor], Tensor], t: Tensor, width: float) -> Tensor:
    return (function(t + width) - function(t - width)) / (2 * width)


@EACH
def test_time_inverts_lam(schedule: Schedule) -> None:
    t = times(schedule)
    torch.testing.assert_close(schedule.time(schedule.lam(t)), t, rtol=1e-9, atol=1e-12)
    lam = schedule.lam(t)
    torch.testing.assert_close(schedule.at_lam(lam).lam, lam, rtol=1e-9, atol=1e-9)


@EACH
def test_what_is_asked_on_a_device_stays_there(schedule: Schedule) -> None:
    """``meta`` mixes with the CPU's tensors as little as a GPU does, and is everywhere."""
    t = times(schedule).to("meta")
    asked = [*schedule.point(t), *schedule.at_lam(t), schedule.drift(t), schedule.fraction(t)]
    asked.append(schedule.diffusion_squared(t))
    assert {(value.device.type, value.shape) for value in asked} == {("meta", t.shape)}


@EACH
def test_noise_grows_with_time(schedule: Schedule) -> None:
    lam = schedule.lam(schedule.at_fraction(torch.linspace(0, 1, 201, dtype=torch.float64)))
    assert bool((lam[1:] < lam[:-1]).all())


@EACH
def test_points_are_float64_and_consistent(schedule: Schedule) -> None:
    at = schedule.point(times(schedule).to(torch.float32))
    assert {values.dtype for values in at} == {torch.float64}
    torch.testing.assert_close(at.lam, schedule.lam(at.t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at.rho, torch.exp(-at.lam), rtol=1e-12, atol=0)


@EACH
def test_fraction_inverts_at_fraction(schedule: Schedule) -> None:
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    t = schedule.at_fraction(u)
    torch.testing.assert_close(schedule.fraction(t), u, rtol=0, atol=1e-12)
    assert float(t[0]) == pytest.approx(schedule.t_min)
    assert float(t[-1]) == pytest.approx(schedule.t_max)


@EACH
def test_drift_and_diffusion_are_those_of_the_marginals(schedule: Schedule) -> None:
    t = times(schedule)
    if isinstance(schedule, VPDiscrete):
        t = t.floor() + 0.5  # between the trained steps, where log alpha is linear
    width = 1e-6 * (schedule.t_max - schedule.t_min)
    drift, spread = schedule.drift(t), schedule.diffusion_squared(t)
    alpha = slope(schedule.alpha, t, width)
    variance = slope(lambda s: schedule.sigma(s).square(), t, width)
    torch.testing.assert_close(drift * schedule.alpha(t), alpha, rtol=1e-5, atol=1e-8)
    expected = 2 * drift * schedule.sigma(t).square() + spread
    torch.testing.assert_close(expected, variance, rtol=1e-5, atol=1e-8)
    assert bool((spread > 0).all())


@EACH
def test_gradients_flow_through_time(schedule: Schedule) -> None:
    t = times(schedule, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(schedule.lam(t).sum(), t)
    torch.testing.assert_close(
        -2 * schedule.sigma(t).square() * gradient, schedule.diffusion_squared(t)
    )
    lam = schedule.lam(t).detach().requires_grad_()
    (inverse,) = torch.autograd.grad(schedule.time(lam).sum(), lam)
    torch.testing.assert_close(inverse * gradient, torch.ones_like(t), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "schedule", [s for s in SCHEDULES.values() if isinstance(s, VariancePreserving)]
)
def test_variance_is_preserved(schedule: Schedule) -> None:
    at = schedule.point(times(schedule))
    torch.testing.assert_close(at.alpha**2 + at.sigma**2, torch.ones_like(at.t), rtol=1e-13, atol=0)


def test_published_formulas() -> None:
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    beta = 0.1 + t * 19.9
    torch.testing.assert_close(VPLinear().drift(t), -beta / 2)
    torch.testing.assert_close(VPLinear().diffusion_squared(t), beta)
    scaled = (math.sqrt(0.85) + t * (math.sqrt(12.0) - math.sqrt(0.85))).square()
    torch.testing.assert_close(VPScaledLinear().drift(t), -scaled / 2)
    torch.testing.assert_close(VE().sigma(t), 0.01 * 5000**t)
    torch.testing.assert_close(EDM().sigma(t), t)
    torch.testing.assert_close(SubVP().sigma(t), 1 - SubVP().alpha(t).square())
    torch.testing.assert_close(FlowMatching().alpha(t), 1 - t)
    u = FlowMatching(shift=3.0, u_min=0.0).at_fraction(t)
    torch.testing.assert_close(u, 3 * t / (1 + 2 * t))
    preconditioned = EDMPreconditioned(sigma_data=0.5)
    rho = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    at = preconditioned.at_lam(-rho.log())
    torch.testing.assert_close(at.alpha, 1 / torch.sqrt(rho**2 + 0.25))
    torch.testing.assert_close(at.t, rho.log() / 4)


def test_discrete_schedules_hold_the_trained_table() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    schedule = VPDiscrete.linear()
    table = torch.cumprod(1 - betas, 0)
    index = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(index).square(), table, rtol=1e-12, atol=0)
    halfway = schedule.log_alpha(torch.tensor(10.5, dtype=torch.float64))
    assert float(halfway) == pytest.approx(float(table[10:12].log().mean() / 2), rel=1e-12)
    cosine = VPDiscrete.cosine()
    ratio = cosine.alphas_cumprod[1:] / cosine.alphas_cumprod[:-1]
    assert float((1 - ratio).max()) <= 0.999 + 1e-12


def test_zero_terminal_signal() -> None:
    schedule = zero_terminal()
    at = schedule.noisiest
    assert at.pure_noise
    assert not at.finite
    assert float(at.sigma) == 1.0
    near = torch.linspace(998.0, 999.0, 5, dtype=torch.float64)
    straight = schedule.alpha(near)
    torch.testing.assert_close(straight.diff(), straight.diff()[:1].expand(4))
    assert float(FlowMatching().noisiest.alpha) == 0.0


@EACH
def test_the_clean_end_is_the_data(schedule: Schedule) -> None:
    clean = schedule.clean()
    assert clean.clean
    assert float(clean.alpha) == 1.0
    assert clean.lam == math.inf


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_scale_of_the_data_is_kept_and_changes_no_point(schedule: Schedule) -> None:
    other = schedule.with_data_scale(3.0)
    assert (schedule.data_scale, other.data_scale) == (1.0, 3.0)
    assert torch.equal(torch.stack(other.noisiest), torch.stack(schedule.noisiest))
    assert copy.deepcopy(other).data_scale == pickle.loads(pickle.dumps(other)).data_scale == 3.0


def test_a_schedule_can_be_copied_after_its_derivative_was_taken() -> None:
    schedule = MeanReverting()
    schedule.diffusion_squared(torch.tensor(0.5).double())
    copies = copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))
    assert all(torch.equal(own.noisiest.sigma, schedule.noisiest.sigma) for own in copies)


def test_schedules_are_equal_if_their_settings_are() -> None:
    assert VPLinear(1, 2) == VPLinear(1, 2) != VPLinear(1, 3)
    assert VPDiscrete.linear() != VPDiscrete.cosine()
    assert repr(EDM()) == "EDM(sigma_min=0.002, sigma_max=80.0)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VPLinear(beta_min=2.0, beta_max=1.0), "beta_min"),
        (lambda: VPLinear(t_min=0.5, t_max=0.4), "Times"),
        (lambda: VPScaledLinear(beta_min=-1.0), "beta_min"),
        (lambda: VPCosine(s=-1.0), "offset"),
        (lambda: VE(sigma_min=0.0), "sigma_min"),
        (lambda: VE(t_min=2.0, t_max=1.0), "Times"),
        (lambda: EDM(sigma_min=2.0, sigma_max=1.0), "sigma_min"),
        (lambda: EDMPreconditioned(sigma_data=0.0), "sigma_data"),
        (lambda: FlowMatching(shift=0.0), "shift"),
        (lambda: EDM().with_data_scale(0.0), "scale of the data is 0.0"),
        (lambda: EDM().with_data_scale("3"), "scale of the data is '3'"),  # type: ignore[arg-type]
        (lambda: VPDiscrete.linear().with_data_scale(math.nan), "scale of the data is nan"),
        (lambda: SubVP(t_max=math.inf), "Times"),
        (lambda: VPCosine(t_max=2.0), "<= 1.0"),
        (lambda: VPDiscrete(torch.tensor([0.5, 0.6])), "fall strictly"),
        (lambda: VPDiscrete(torch.tensor([1.0, 0.6])), "between 0 and 1"),
        (lambda: VPDiscrete(torch.tensor([0.5])), "vector"),
        (lambda: VPDiscrete(torch.tensor([0.5, float("nan")])), "alphas_cumprod"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], Schedule], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
