"""Grids: for every spacing, schedule and n the right number of points, in the trained range, with
strictly falling noise, from the noisiest point on; trained steps are distinct whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from samplers import grid as grids
from samplers.grid import (
    SPACINGS,
    Final,
    Grid,
    Spacing,
    grid_from_sigmas,
    grid_from_times,
    make_grid,
)
from samplers.schedule import EDM, VE, FlowMatching, Schedule, SubVP, VPDiscrete, VPLinear
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
)
TRAINED: tuple[Spacing, ...] = ("leading", "trailing", "linspace")


def test_all_spacings_are_tested() -> None:
    assert set(ALL) == set(SPACINGS)


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
    steps = (rho / (rho + grids._SHIFT)).log().diff()
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
        if spacing in ("log-snr", "karras", "exponential"):
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
        (lambda: make_grid(EDM(), 5, "even"), "must be one of"),  # type: ignore[arg-type]
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
