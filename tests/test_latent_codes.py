"""Latent codes: there and back, standard normal on the model's own data, and ways between them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from samplers.probability_flow.codes import decode, encode, interpolate, tempered
from samplers.probability_flow.integration import Adaptive
from samplers.schedule import EDM, FlowMatching, Schedule, SubVP, VPLinear
from tests.mixture import PLANE, gaussian

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "ve": EDM(),
    "sub-vp": SubVP(),
    "flow": FlowMatching(),
}
FINE = Adaptive("dormand-prince", rtol=1e-7, atol=1e-7, max_nfe=2_000)


def codes(x_0: Tensor, schedule: Schedule) -> Tensor:
    return encode(
        PLANE.model(schedule, "sample"), x_0, settings=FINE, sigma_min=0.05, sigma_max=40.0
    ).x


def images(code: Tensor, schedule: Schedule) -> Tensor:
    return decode(
        PLANE.model(schedule, "sample"), code, settings=FINE, sigma_min=0.05, sigma_max=40.0
    ).x


def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_there_and_back(schedule: str) -> None:
    x_0 = 1.5 * noise(16)
    back = images(codes(x_0, SCHEDULES[schedule]), SCHEDULES[schedule])
    torch.testing.assert_close(back, x_0, rtol=0, atol=1e-4)


def test_every_schedule_has_the_same_codes() -> None:
    """A flow of the same levels is the same map, and the codes are in units of the prior."""
    x_0 = noise(8)
    found = [codes(x_0, schedule) for schedule in SCHEDULES.values()]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-4)


def test_codes_of_exact_data_are_standard_normal() -> None:
    """Exactly: on Gaussian data the code is an affine function of the image."""
    data = gaussian([1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]])
    schedule, sigma_max = EDM(sigma_max=500.0), 400.0
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double()
    code = encode(
        data.model(schedule, "sample"), corners, settings=FINE, sigma_min=0.01, sigma_max=sigma_max
    ).x
    linear = torch.stack([code[1] - code[0], code[2] - code[0]], dim=1)
    level = data.covariance + 0.01**2 * torch.eye(2)
    torch.testing.assert_close(linear @ level @ linear.T, torch.eye(2).double(), rtol=0, atol=1e-4)
    mean = code[0] + linear @ data.mean
    torch.testing.assert_close(mean, data.mean / sigma_max, rtol=0, atol=1e-4)


def test_codes_of_sampled_images_need_the_noise_of_the_cleanest_level() -> None:
    """Data of std s have codes of std sqrt(s^2 / (s^2 + sigma^2)), with the noise of std 1."""
    std, level = 0.04, 0.1
    data = gaussian([0.0, 0.0], [[std**2, 0.0], [0.0, std**2]])
    generator = torch.Generator().manual_seed(2)
    x_0 = std * torch.randn(1000, 2, generator=generator, dtype=torch.float64)

    def spread(noise_seeds: range | None) -> float:
        code = encode(
            data.model(EDM(level, 80.0), "sample"),
            x_0,
            settings=Adaptive(rtol=1e-3, atol=1e-3),
            noise_seeds=noise_seeds,
        ).x
        return float(code.std())

    # A standard deviation of 2,000 numbers has a relative error of 1.6 %.
    assert spread(None) == pytest.approx(std / math.hypot(std, level), rel=0.06)
    assert spread(range(1000)) == pytest.approx(1, rel=0.06)
    with pytest.raises(ValueError, match="noise_seeds"):
        spread(range(3))


def test_a_great_circle() -> None:
    a, b = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    way = interpolate(a, b, 9)
    torch.testing.assert_close(way[0], a)
    torch.testing.assert_close(way[-1], b)
    lengths = way.flatten(1).norm(dim=1)
    assert bool((lengths > 0.99 * min(a.norm(), b.norm())).all())
    a, b = a / a.norm(), b / b.norm()
    steps = interpolate(a, b, 9).flatten(1).diff(dim=0).norm(dim=1)
    torch.testing.assert_close(steps, steps[:1].expand(8))


@pytest.mark.parametrize("factor", [1.0, -1.0, 2.0, 0.0])
def test_a_straight_line_where_there_is_no_circle(factor: float) -> None:
    a = noise(3)
    way = interpolate(a, factor * a, 3)
    torch.testing.assert_close(way[1], (1 + factor) / 2 * a)


def test_temperature_scales_the_variance() -> None:
    code = noise(100)
    torch.testing.assert_close(tempered(code, 0.49), 0.7 * code)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="need one"):
        interpolate(torch.zeros(2), torch.zeros(3), 4)
    with pytest.raises(ValueError, match="at least its 2 ends"):
        interpolate(torch.zeros(2), torch.zeros(2), 1)
    for temperature in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            tempered(torch.zeros(2), temperature)
