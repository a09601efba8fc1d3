"""Samples that escape, and bounds that say nothing."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adjoint.cli import main
from adjoint.fokker_planck import (
    BoundTerms,
    Box,
    Escape,
    GapBound,
    bound_terms,
    bulk_of,
    empirical,
    energy_distance,
    escaped,
    exact_wasserstein,
    gap_bound,
    ode_sde_gap,
    range_of,
    regular_grid,
    sliced_wasserstein,
)
from samplers.schedule import VPLinear

COUNT = 200


def normal(count: int = COUNT, d: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, dtype=torch.float64, generator=generator)


def with_one_at(value: float, x: Tensor) -> Tensor:
    return torch.cat([torch.full_like(x[:1], value), x[1:]])


# ---------------------------------------------------------------------------- what has escaped


def test_the_share_outside_and_the_furthest_sample_are_counted() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [-7.0, 3.0], [1.0, 1.0]])
    assert escaped(x, Box(-1.0, 2.0)) == Escape(0.25, 7.0)
    assert escaped(x, Box(-1.0, 1.0)) == Escape(0.5, 7.0)
    assert escaped(x.reshape(4, 1, 2), Box(-8.0, 8.0)) == Escape(0.0, 7.0)
    x[0, 0] = math.nan
    assert escaped(x, Box(-8.0, 8.0)) == Escape(0.25, math.inf)


def test_the_box_is_the_range_of_the_data_or_the_bulk_of_the_samples() -> None:
    data = torch.tensor([[-1.0, 0.0], [0.5, 3.0]])
    assert range_of(data) == pytest.approx((-1.4, 3.4))
    numbers = torch.arange(2001.0)[:, None] - 1000  # 1 % of them beyond 990
    low, high = -990.0, 990.0
    assert bulk_of(numbers) == pytest.approx((3 * low, 3 * high))
    assert bulk_of(with_one_at(1e9, numbers)) == pytest.approx((3 * low, 3 * high), rel=2e-3)
    assert bulk_of(with_one_at(math.nan, numbers)) == pytest.approx((3 * low, 3 * high), rel=2e-3)
    assert bulk_of(torch.full((4, 1), math.nan)) == (-math.inf, math.inf)


# -------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize("with_data", [False, True])
def test_one_escaped_sample_is_the_gap_and_without_it_there_is_none(with_data: bool) -> None:
    """Of two equal sets on a line, the largest sample of one moved from a to b: (b - a)^2 / N."""
    sde = normal().sort(dim=0).values.flip(0)
    ode = with_one_at(1000.0, sde)
    moved = (1000.0 - float(sde[0, 0])) ** 2 / COUNT
    data = normal(seed=0) if with_data else None
    for distance in (sliced_wasserstein, exact_wasserstein):
        with pytest.warns(UserWarning, match=r"0\.50% of the ODE's .* and 0\.00% of the SDE's lie"):
            (found,) = ode_sde_gap(lambda n: ode, lambda n: sde, (8,), distance, data)
        assert found.ode_sde == pytest.approx(moved)
        assert found.ode == pytest.approx((1 / COUNT, 1000.0))
        assert found.sde == Escape(0.0, float(sde.abs().max()))
        # Within the box: the others, without the last of the SDE's, which is its smallest.
        expected = distance(ode[1:], sde[:-1])
        assert found.inside == pytest.approx(expected)
        assert found.escapes_dominate
        assert "make up most of their distance, which is " + f"{moved:.4g}" in found.warning

        (trimmed,) = ode_sde_gap(lambda n: ode, lambda n: sde, (8,), distance, data, trim=True)
        assert trimmed.ode_sde == trimmed.inside == pytest.approx(expected)
        assert trimmed.ode == found.ode
        assert not trimmed.escapes_dominate
        if data is not None:
            assert trimmed.sde_data == pytest.approx(0.0, abs=1e-12)
            assert trimmed.ode_data < 1 < found.ode_data


def test_samples_outside_that_do_not_matter_are_reported_without_a_warning() -> None:
    """Sets far apart, and one sample of each outside of a narrow box."""
    ode, sde = with_one_at(3.0, normal() / 10), with_one_at(6.0, normal(seed=1) / 10 + 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = ode_sde_gap(lambda n: ode, lambda n: sde, (8,), box=Box(-2.0, 5.0))
    assert found.box == (-2.0, 5.0)
    assert found.sde.share == pytest.approx(1 / COUNT)
    assert found.inside == pytest.approx(9.0, rel=0.1)
    assert not found.escapes_dominate


def test_sets_without_escapes_are_compared_as_before() -> None:
    ode, sde = normal(), normal(seed=1)
    for distance in (sliced_wasserstein, energy_distance):
        for trim in (False, True):
            (found,) = ode_sde_gap(lambda n: ode, lambda n: sde, (8,), distance, trim=trim)
            assert found.ode_sde == found.inside == distance(ode, sde)
            assert found.ode.share == found.sde.share == 0
            assert not found.escapes_dominate


def test_a_set_that_has_escaped_altogether_dominates() -> None:
    ode, sde = 1e6 + normal(), normal(seed=1)
    with pytest.warns(UserWarning, match=r"100\.00% of the ODE's samples"):
        (found,) = ode_sde_gap(lambda n: ode, lambda n: sde, (8,))
    assert math.isnan(found.inside)


def test_the_command_counts_escaped_images_trims_them_and_warns(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = (
        "--num-images",
        "6",
        "--steps",
        "2,4",
        "--output",
        str(tmp_path / "gap.png"),
        "--overwrite",
    )

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return main(("gap", str(places["digits"]), *few, *words)), *capsys.readouterr()

    code, out, err = command("--radius", "1e6")
    assert code == 0, err
    assert out.count("0.00%, to") == 4
    assert "make up most" not in out
    code, trimmed, err = command("--radius", "1e6", "--trim")
    assert code == 0, err
    assert trimmed.splitlines()[2] == out.splitlines()[2]
    assert "without the escaped samples" in trimmed
    code, out, err = command("--radius", "1e-6")
    assert code == 0, err
    assert out.count("100.00%, to") == 4
    assert out.count("make up most of their distance") == 2
    code, _, err = command("--radius", "1e-6", "--trim")
    assert code == 2
    assert "--trim leaves 0 images of 6" in err


# ------------------------------------------------------------------------------------- bounds


def terms(rate: float) -> list[BoundTerms]:
    """Of a score error of 0.5 by the noise's KL alone; two samples are at 18 in the mean square."""
    spreads = (18.0, 5.0, 4.0)
    return [
        BoundTerms(t, 1.0, 0.0, 0.0, rate, spread)
        for t, spread in zip((0.0, 0.5, 1.0), spreads, strict=True)
    ]


def test_a_bound_above_the_spread_of_the_samples_is_vacuous_and_says_so() -> None:
    """W2^2 <= int 1/2 e^{2 L t} dt * 0.5: by the trapezoidal rule (1 + 2 e^L + e^{2 L}) / 16."""
    for rate, vacuous in ((0.0, False), (2.0, False), (4.0, True), (40.0, True), (1e4, True)):
        found = gap_bound(terms(rate), 0.5)
        assert found.spread == 18.0
        assert found.vacuous is vacuous
        assert ("which is vacuous" in str(found)) is vacuous
    exact = (1 + math.exp(2.0)) ** 2 / 16
    assert gap_bound(terms(2.0), 0.5).distance_squared == pytest.approx(exact)
    assert str(gap_bound(terms(0.0), 0.5)) == "W2^2 <= 0.25"
    assert str(gap_bound(terms(1e4), 0.5)) == (
        "W2^2 <= inf, which is vacuous: two independent samples of the SDE have the mean squared "
        "distance 18"
    )
    assert GapBound(0.0, 0.0, math.nan, 1.0).vacuous


def test_the_spread_is_that_of_two_independent_samples() -> None:
    """2 tr Cov, exactly the mean over all pairs."""
    x = normal(50, 2) * torch.tensor([1.0, 3.0]) + 5
    t = torch.tensor(0.5, dtype=torch.float64)
    found = bound_terms(
        lambda x, t: -x.square().sum(dim=1) / 2, VPLinear(), t, empirical(x), regular_grid(3.0, 8)
    )
    assert found.spread == pytest.approx(float(torch.cdist(x, x).square().mean()))
