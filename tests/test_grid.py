"""Grids: for every spacing, schedule and n the right number of points, in the trained range, with
strictly falling noise, from the noisiest point on; trained steps are distinct whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from samplers import noise_levels
from samplers.choices import SPACINGS, Spacing
from samplers.grid import (
    Final,
    Grid,
    grid_from_sigmas,
    grid_from_times,
    make_grid,
)
from samplers.schedule import EDM, VE, FlowMatching, Schedule, SubVP, VPDiscrete, VPLinear
from samplers.spacings import spacing_name
from tests.test_schedule import SCHEDULES

ALL: tuple[Spacing, ...] = (
    "uniform",
    "quadratic",
    "leading",
    "trailing",
    "linspace",
    "log-flow",
    "log-snr",
    "karras",
    "exponential",
    "polyexponential",
    "kl-optimal",
    "laplace",
    "vp",
    "normal",
    "sgm-uniform",
    "simple",
    "ddim-uniform",
    "beta",
    "linear-quadratic",
)
OF_ONE_NETWORK: tuple[Spacing, ...] = ("ays-sd", "ays-sdxl", "ays-svd")
TRAINED: tuple[Spacing, ...] = (
    *("leading", "trailing", "linspace"),
    *("simple", "ddim-uniform", "beta"),
)


def test_all_spacings_are_tested() -> None:
    assert {*ALL, *OF_ONE_NETWORK} == set(SPACINGS)


def check(schedule: Schedule, grid: Grid, steps: int, *, clean: bool) -> None:
    """What every grid must be; that its noise falls strictly is checked when it is built."""
    points, top, bottom = grid.points, schedule.noisiest, schedule.cleanest
    assert grid.steps == steps
    assert grid.end.clean == clean
    inner = points.t[:-1] if clean else points.t
    assert float(inner.min()) >= schedule.t_min - 1e-9
    assert float(inner.max()) <= schedule.t_max * (1 + 1e-12)
    assert float(points.alpha[0]) >= float(top.alpha)
    assert float(points.sigma[-1]) >= (0.0 if clean else float(bottom.sigma) * (1 - 1e-9))


@pytest.mark.parametrize("spacing", ALL)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_some_lengths_on_every_schedule(schedule: Schedule, spacing: Spacing) -> None:
    for steps in (1, 2, 3, 7, 10, 20, 50, 61, 103, 121, 200, 999):
        check(schedule, make_grid(schedule, steps, spacing), steps, clean=True)
        ended = make_grid(schedule, steps, spacing, final="sigma_min")
        check(schedule, ended, steps, clean=False)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ALL)
@pytest.mark.parametrize(
    "schedule", [VPDiscrete.linear(), EDM(), FlowMatching()], ids=["vp", "ve", "flow"]
)
def test_every_length(schedule: Schedule, spacing: Spacing) -> None:
    for steps in range(1, 1001):
        check(schedule, make_grid(schedule, steps, spacing), steps, clean=True)


@pytest.mark.parametrize("spacing", TRAINED)
def test_trained_steps_are_distinct_whole_numbers(spacing: Spacing) -> None:
    schedule = VPDiscrete.scaled_linear()
    for steps in range(1, 1001):
        index = make_grid(schedule, steps, spacing).points.t[:-1]
        assert torch.equal(index, index.round())
        assert bool((index.diff() <= -1).all())
        assert 0 <= float(index[-1]) <= float(index[0]) <= 999


def test_trained_steps_by_their_definitions() -> None:
    schedule = VPDiscrete.linear()

    def times(spacing: Spacing, steps: int, offset: int = 0) -> list[float]:
        return make_grid(schedule, steps, spacing, offset=offset).points.t[:-1].tolist()

    assert times("leading", 4) == [750, 500, 250, 0]
    assert times("leading", 4, offset=1) == [751, 501, 251, 1]
    assert times("trailing", 4) == [999, 749, 499, 249]
    assert times("linspace", 4) == [999, 666, 333, 0]
    for steps in (16, 37, 80, 333):  # halves are rounded to even, as diffusers does
        theirs = np.round(np.arange(steps, 0, -1) * 1000 / steps) - 1
        assert times("trailing", steps) == theirs.tolist()
        assert times("linspace", steps) == np.linspace(0, 999, steps).round()[::-1].tolist()
    assert times("linspace", 1) == times("trailing", 1) == [999]
    assert times("leading", 1000, offset=1) == list(range(999, -1, -1))
    assert times("uniform", 3) == [999, 499.5, 0]


@pytest.mark.parametrize("schedule", [VPLinear(), VE(), SubVP()], ids=["vp", "ve", "sub-vp"])
def test_even_spacings_are_even(schedule: Schedule) -> None:
    even = make_grid(schedule, 8, "uniform", final="sigma_min").points
    torch.testing.assert_close(even.t.diff(), even.t.diff()[:1].expand(8))
    geometric = make_grid(schedule, 8, "log-snr", final="sigma_min").points
    torch.testing.assert_close(geometric.lam.diff(), geometric.lam.diff()[:1].expand(8))
    karras = make_grid(schedule, 8, "karras", final="sigma_min").points.rho ** (1 / 7)
    torch.testing.assert_close(karras.diff(), karras.diff()[:1].expand(8))
    for points in (even, geometric):
        assert float(points.t[0]) == schedule.t_max
        assert float(points.t[-1]) == pytest.approx(schedule.t_min, rel=1e-9)


def test_exponential_is_log_snr() -> None:
    one, other = (make_grid(EDM(), 9, spacing) for spacing in ("exponential", "log-snr"))
    assert torch.equal(one.points.t, other.points.t)


@pytest.mark.parametrize("schedule", [VPDiscrete.linear(), EDM(), SubVP()], ids=["vp", "ve", "sub"])
def test_log_flow_is_even_in_the_log_of_a_time_of_flow_matching(schedule: Schedule) -> None:
    rho = make_grid(schedule, 8, "log-flow", final="sigma_min").points.rho
    steps = (rho / (rho + noise_levels._SHIFT)).log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(8))


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_log_flow_scales_with_the_data(steps: int) -> None:
    plain = make_grid(EDM(0.002, 80), steps, "log-flow").points
    scaled = make_grid(EDM(0.08, 3200).with_data_scale(40), steps, "log-flow").points
    torch.testing.assert_close(scaled.rho, 40 * plain.rho)


def test_log_flow_begins_at_pure_noise() -> None:
    start = make_grid(FlowMatching(), 8, "log-flow").start
    assert (float(start.alpha), float(start.sigma)) == (0, 1)


def test_the_last_level_of_log_flow_falls_with_the_steps() -> None:
    """Down to the trained range; a given sigma_min is not raised."""
    schedule = EDM()

    def last(steps: int, sigma_min: float | None = None, final: Final = "zero") -> float:
        rho = make_grid(schedule, steps, "log-flow", sigma_min=sigma_min, final=final).points.rho
        return float(rho[-2] if final == "zero" else rho[-1])

    levels = [last(steps) for steps in (2, 3, 5, 10, 30, 100)]
    assert levels == sorted(set(levels), reverse=True)
    assert last(100_000) == pytest.approx(schedule.sigma_min)
    assert last(4, sigma_min=0.01) == pytest.approx(0.01)
    assert last(4, final="sigma_min") == pytest.approx(schedule.sigma_min)


@pytest.mark.parametrize("spacing", ALL)
def test_the_last_noise_level_can_be_set(spacing: Spacing) -> None:
    schedule = FlowMatching()
    grid = make_grid(schedule, 6, spacing, sigma_min=0.05, sigma_max=4.0, final="sigma_min")
    rho = grid.points.rho
    assert float(rho.min()) >= 0.05 * (1 - 1e-9)
    assert float(rho.max()) <= 4.0 * (1 + 1e-9)
    if spacing in ("log-flow", "log-snr", "karras", "uniform"):
        assert float(rho[-1]) == pytest.approx(0.05)
        assert float(rho[0]) == pytest.approx(4.0)


@pytest.mark.parametrize("spacing", ALL)
@pytest.mark.parametrize(
    "schedule",
    [VPLinear(t_min=0.0), SubVP(t_min=0.0), FlowMatching(u_min=0.0)],
    ids=["vp", "sub-vp", "flow"],
)
def test_a_schedule_that_was_trained_to_no_noise(schedule: Schedule, spacing: Spacing) -> None:
    """Its end is the clean one; what is spaced by the noise can't go there."""
    for steps in (1, 2, 10):
        check(schedule, make_grid(schedule, steps, spacing, sigma_min=0.01), steps, clean=True)
        if spacing in ("log-snr", "karras", "exponential", "polyexponential", "laplace"):
            with pytest.raises(ValueError, match="give a sigma_min"):
                make_grid(schedule, steps, spacing)
        else:
            check(schedule, make_grid(schedule, steps, spacing), steps, clean=True)
        with pytest.raises(ValueError, match="give a sigma_min"):
            make_grid(schedule, steps, spacing, final="sigma_min")


def test_grids_of_ones_own() -> None:
    schedule = VPDiscrete.linear()
    grid = grid_from_times(schedule, [900, 500.5, 3], "zero")
    assert grid.points.t.tolist() == [900, 500.5, 3, 0]
    assert grid.end.clean
    assert not grid_from_times(schedule, [900.0, 3.0], "sigma_min").end.clean
    rho = [7.0, 2.0, 0.1]
    open_end = grid_from_sigmas(EDM(), rho)
    torch.testing.assert_close(open_end.points.rho, torch.tensor(rho, dtype=torch.float64))
    closed = grid_from_sigmas(EDM(), [*rho, 0.0])
    assert closed.steps == 3
    assert closed.end.clean
    assert float(closed.at_lam(torch.tensor(0.0, dtype=torch.float64)).t) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: make_grid(EDM(), 0), "whole number from 1"),
        (lambda: make_grid(EDM(), -3), "whole number from 1"),
        (lambda: make_grid(EDM(), 2.0), "whole number"),  # type: ignore[arg-type]
        (lambda: make_grid(EDM(), True), "whole number"),
        (lambda: make_grid(EDM(), 5, "even"), "must be one of"),
        (lambda: make_grid(EDM(), 5, final="none"), "sigma_min"),  # type: ignore[arg-type]
        (lambda: make_grid(EDM(), 5, offset=-1), "offset"),
        (lambda: make_grid(EDM(), 5, sigma_min=1e-9), "trained"),
        (lambda: make_grid(EDM(), 5, sigma_max=1e9), "trained"),
        (lambda: make_grid(EDM(), 5, sigma_min=2.0, sigma_max=1.0), "below sigma_max"),
        (lambda: make_grid(VPDiscrete.linear(), 1001, "trailing"), "1000 trained steps"),
        (lambda: grid_from_times(EDM(), [1.0, 2.0], "zero"), "fall strictly"),
        (lambda: grid_from_times(EDM(), [1.0], "sigma_min"), "at least two"),
        (lambda: grid_from_sigmas(EDM(), [1.0, 1.0]), "fall strictly"),
        (lambda: grid_from_sigmas(EDM(), [1.0, -1.0]), "positive"),
        (lambda: grid_from_sigmas(EDM(), [1.0, 0.0, 0.0]), "positive"),
        (lambda: grid_from_sigmas(EDM(), [1.0, float("nan")]), "positive"),
    ],
)
def test_impossible_grids_are_refused(make: Callable[[], Grid], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_grid_errors_name_what_came() -> None:
    with pytest.raises(ValueError, match=r"sigma / alpha came as 1, 2, 0"):
        grid_from_times(EDM(), [1.0, 2.0], "zero")


# The spacings of ComfyUI and k-diffusion by their published formulas. A flow has the levels t.

SD, FLOW = VPDiscrete.scaled_linear(), FlowMatching(shift=3.0)
COUNTS = (2, 3, 7, 10, 20)


def levels(schedule: Schedule, steps: int, spacing: Spacing) -> NDArray[Any]:
    """The positive noise levels."""
    points = make_grid(schedule, steps, spacing).points
    found = points.sigma if isinstance(schedule, FlowMatching) else points.rho
    return found[:-1].numpy()


def table(schedule: Schedule) -> NDArray[Any]:
    """The levels of a network that was trained at 1000 of them, the cleanest first."""
    if isinstance(schedule, FlowMatching):
        return shift(np.arange(1, 1001) / 1000)
    return schedule.point(torch.arange(1000)).rho.numpy()


def shift(u: NDArray[Any]) -> NDArray[Any]:
    return 3 * u / (1 + 2 * u)


ON_BOTH = pytest.mark.parametrize("schedule", [SD, FLOW], ids=["sd", "flow"])


@ON_BOTH
@pytest.mark.parametrize("steps", COUNTS)
def test_trained_levels_of_comfyui(schedule: Schedule, steps: int) -> None:
    trained = table(schedule)
    x = np.arange(steps)
    simple = trained[[-(1 + int(i * (1000 / steps))) for i in x]]
    np.testing.assert_allclose(levels(schedule, steps, "simple"), simple, rtol=1e-9)
    ddim = trained[1 + x[::-1] * (1000 // steps)]
    np.testing.assert_allclose(levels(schedule, steps, "ddim_uniform"), ddim, rtol=1e-9)
    for a, b in ((0.6, 0.6), (0.5, 0.7)):
        quantile = scipy.stats.beta.ppf(1 - x / steps, a, b)
        beta = trained[np.rint(quantile * 999).astype(int)]
        np.testing.assert_allclose(levels(schedule, steps, f"beta:{a},{b}"), beta, rtol=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
def test_normal_and_sgm_uniform(steps: int) -> None:
    logs, whole = np.log(table(SD)), np.arange(1000)
    for spacing, count in (("normal", steps), ("sgm-uniform", steps + 1)):
        t = np.linspace(999, 0, count)[:steps]
        expected = np.exp(np.interp(t, whole, logs))
        np.testing.assert_allclose(levels(SD, steps, spacing), expected, rtol=1e-9)
        u = np.linspace(1, shift(np.array(1e-3)), count)[:steps]  # the last is shifted twice
        np.testing.assert_allclose(levels(FLOW, steps, spacing), shift(u), rtol=1e-9)


@ON_BOTH
@pytest.mark.parametrize("steps", COUNTS)
def test_kl_optimal_and_linear_quadratic(schedule: Schedule, steps: int) -> None:
    low, high = table(schedule)[[0, -1]]
    even = np.tan(np.linspace(np.arctan(high), np.arctan(low), steps))
    np.testing.assert_allclose(levels(schedule, steps, "KL Optimal"), even, rtol=1e-9)
    half, noise, i = steps // 2, 0.025, np.arange(steps)
    q = (half - noise * steps) / (half * (steps - half) ** 2)
    slope = noise / half - 2 * half * q
    x = np.where(i < half, i * noise / half, q * i**2 + slope * i + q * half**2)
    np.testing.assert_allclose(
        levels(schedule, steps, "linear_quadratic"), high * (1 - x), rtol=1e-9
    )


@pytest.mark.parametrize("steps", COUNTS)
def test_levels_of_k_diffusion(steps: int) -> None:
    low, high = table(SD)[[0, -1]]
    falling = np.linspace(1, 0, steps)
    for rho in (1, 0.7):
        poly = np.exp(falling**rho * np.log(high / low) + np.log(low))
        np.testing.assert_allclose(levels(SD, steps, f"polyexponential:{rho}"), poly, rtol=1e-9)
    karras = (low ** (1 / 5) + falling * (high ** (1 / 5) - low ** (1 / 5))) ** 5
    np.testing.assert_allclose(levels(SD, steps, "karras:5"), karras, rtol=1e-9)
    x = 0.5 - np.linspace(0, 1, steps)
    log = 0.3 - 0.4 * np.sign(x) * np.log(1 - 2 * np.abs(x) + 1e-5)
    laplace = np.clip(np.exp(log), low, high)
    np.testing.assert_allclose(levels(SD, steps, "laplace:0.3,0.4"), laplace, rtol=1e-9)
    t = np.linspace(1, 1e-3, steps)
    vp = np.sqrt(np.expm1(19.9 * t**2 / 2 + 0.1 * t))
    np.testing.assert_allclose(levels(EDM(vp[-1], vp[0]), steps, "vp"), vp, rtol=1e-9)


@pytest.mark.parametrize("steps", COUNTS)
@pytest.mark.parametrize(
    ("spacing", "schedule"), [("ays-sd", SD), ("ays-sdxl", SD), ("ays-svd", EDM(0.002, 700.0))]
)
def test_align_your_steps(spacing: str, schedule: Schedule, steps: int) -> None:
    published = noise_levels.AYS[spacing]
    logs = np.interp(np.linspace(0, 10, steps + 1), np.arange(11), np.log(published))
    np.testing.assert_allclose(levels(schedule, steps, spacing), np.exp(logs[:-1]), rtol=1e-9)
    with pytest.raises(ValueError, match="belong to a network"):
        make_grid(FLOW, steps, spacing)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Karras", "karras"),
        ("SGM Uniform", "sgm-uniform"),
        ("sgm_uniform", "sgm-uniform"),
        ("KL Optimal", "kl-optimal"),
        ("DDIM", "ddim-uniform"),
        ("Align Your Steps", "ays-sd"),
        ("Beta:0.5,0.7", "beta:0.5,0.7"),
    ],
)
def test_names_of_other_programs(written: str, name: str) -> None:
    assert spacing_name(written) == name


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("kl-optmal", "did you mean 'kl-optimal'?"),
        ("uniform:3", "the parameters of 'uniform' are none"),
        ("karras:7,7", "the parameters of 'karras' are rho"),
        ("karras:0", "a number between 0 and inf"),
        ("beta:0.5,", "The parameter b"),
        ("linear-quadratic:0.9", "between 0 and 0.5"),
    ],
)
def test_wrong_spacings_are_refused(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make_grid(SD, 5, written)
