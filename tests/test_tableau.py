r"""Tableaux: every sampler's table keeps the law of trivial data, survives JSON bit for bit, is
refused if any number of it is wrong, and reads as a list of formulas.

If the data is a single point, every D is that point; then each appended point must have the
schedule's mean and, whatever is drawn on the way, its variance.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from samplers.draft import Draft
from samplers.grid import Grid, Spacing, make_grid
from samplers.methods import reversible
from samplers.methods.interval import ddim
from samplers.registry import Sampler, registry
from samplers.schedule import EDM, FlowMatching, Point, Schedule, VPDiscrete, VPLinear
from samplers.tableau import Row, Tableau

SAMPLERS = list(registry().values())
EACH = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "flow": FlowMatching()}
# A table whose row may miss trivial data by more than this is asked of fewer, larger steps.
EXACT = 1e-9


def table(sampler: Sampler, steps: int = 6, schedule: Schedule | None = None) -> Tableau:
    return sampler.tableau(make_grid(schedule or VPLinear(), steps, "log-snr"))


def equal(a: object, b: object) -> bool:
    """Bitwise equality of whatever a tableau is made of."""
    match a, b:
        case Tensor(), Tensor():
            return a.dtype == b.dtype and torch.equal(a, b)
        case tuple(), tuple():
            return len(a) == len(b) and all(map(equal, a, b))
        case _:
            return a == b


def trivial(tableau: Tableau, x0: float, eps: Tensor) -> Tensor:
    """The last point if every D is x0; ``eps`` [2 + n] holds the starting noise and the z's."""
    x = tableau.start.alpha * x0 + tableau.start.sigma * eps[0]
    points = [tableau.start_scale * x + tableau.start_noise * eps[1]]
    for number, row in enumerate(tableau.rows):
        known = [points[-1 - lag] if lag < len(points) else x * 0 for lag in row.point_lags]
        new = row.predictions.sum(1) * x0 + row.noise * eps[2 + number]
        for column, point in enumerate(known):
            new = new + row.points[:, column] * point
        points.extend(new)
    return points[-1]


@pytest.mark.parametrize("schedule", SCHEDULES)
@EACH
def test_trivial_data_is_preserved(sampler: Sampler, schedule: str) -> None:
    """A second derivation of the law that the table checks when it is built."""
    grid = make_grid(SCHEDULES[schedule], 7, sigma_max=5.0, sigma_min=0.2, final="sigma_min")
    tableau = sampler.tableau(grid)
    slack = max(EXACT, (1 + max(r.local_error for r in tableau.rows)) ** tableau.calls - 1)
    silent = torch.zeros(2 + tableau.calls, dtype=torch.float64)
    mean = float(trivial(tableau, 1.0, silent))
    spread = 0.0
    for j in range(len(silent)):
        one = silent.clone()
        one[j] = 1.0
        spread += float(trivial(tableau, 0.0, one)) ** 2
    size = float(tableau.end.alpha + tableau.end.sigma)
    assert abs(mean - float(tableau.end.alpha)) <= slack * size
    assert abs(math.sqrt(spread) - float(tableau.end.sigma)) <= slack * size
    if not sampler.stochastic:
        assert slack == EXACT


# Without its history the last step of the reversible ones could not be undone.
WITH_HISTORY = (reversible.o_belm, reversible.bdia)


@EACH
def test_the_last_step_to_the_data_returns_the_prediction(sampler: Sampler) -> None:
    if sampler.method in WITH_HISTORY:
        pytest.skip("a DDIM step to sigma = 0 can't be inverted")
    if sampler.name.startswith("abm"):
        pytest.skip("its velocity is finite at sigma = 0, which it crosses at full order")
    row = table(sampler).rows[-1]
    assert bool(row.reached.sigma[-1] == 0)
    assert not bool(row.points[-1].any())
    newest = row.predictions[-1, row.prediction_lags.index(0)]
    assert float(newest) == 1.0
    assert float(row.noise[-1]) == 0.0


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "log-snr"])
@EACH
def test_rounding_refuses_no_grid(sampler: Sampler, spacing: Spacing) -> None:
    """From sigma / alpha = 20,000 (UnCLIP's betas) a first long step has coefficients of 6,000."""
    sampler.tableau(make_grid(VPDiscrete.cosine(), 4, spacing))


@EACH
def test_calls_are_what_the_registry_says(sampler: Sampler) -> None:
    open_end = sampler.tableau(
        make_grid(EDM(), 5, sigma_min=0.1, sigma_max=10.0, final="sigma_min")
    )
    assert open_end.calls == 5 * sampler.calls
    assert table(sampler, 5).calls == 4 * sampler.calls + 1


@EACH
def test_json_gives_the_table_back_bit_for_bit(sampler: Sampler) -> None:
    tableau = table(sampler)
    again = Tableau.from_json(tableau.to_json())
    names = [field.name for field in dataclasses.fields(Tableau)]
    assert all(equal(getattr(tableau, name), getattr(again, name)) for name in names)
    assert again.to_json() == tableau.to_json()


@EACH
def test_rows_are_well_formed(sampler: Sampler) -> None:
    tableau = table(sampler)
    steps = [row.step for row in tableau.rows]
    assert steps == sorted(steps)
    assert tableau.points_kept <= 12
    for row in tableau.rows:
        assert row.points.dtype == row.predictions.dtype == row.noise.dtype == torch.float64
        assert row.points.shape == (len(row.noise), len(row.point_lags))
        assert row.predictions.shape == (len(row.noise), len(row.prediction_lags))
        assert list(row.point_lags) == sorted(set(row.point_lags))
        assert 0 <= row.base < tableau.points_kept
    assert tableau.stochastic == sampler.stochastic


@EACH
def test_a_printed_table_reads_as_formulas(sampler: Sampler) -> None:
    tableau = table(sampler, 3)
    text = str(tableau)
    assert text.startswith(f"{tableau.calls} network evaluations from t = 1 ")
    assert text.count("evaluate at") == tableau.calls
    assert text.splitlines()[-1].endswith("at t = 0.001 (sigma/alpha = 0)")
    assert ("z" in text.split()) == sampler.stochastic
    assert "nan" not in text


def test_one_printed_line_in_full() -> None:
    schedule = FlowMatching()
    at = schedule.point(torch.tensor([0.8, 0.4], dtype=torch.float64))
    tableau = registry()["ddim"].tableau(Grid(schedule, at))
    assert str(tableau).splitlines() == [
        "1 network evaluations from t = 0.8 (sigma/alpha = 4) to t = 0.4 (sigma/alpha = 0.6667)",
        "row 0   step 0   evaluate at t = 0.8 (sigma/alpha = 4)",
        "        x = 0.5 x[0] + 0.5 D[0]   at t = 0.4 (sigma/alpha = 0.6667)",
    ]


Tamper = Callable[[Row], Row]
TAMPERED: list[tuple[str, Tamper, str]] = [
    ("points", lambda r: r._replace(points=r.points * 1.001), "data concentrated at one point"),
    (
        "predictions",
        lambda r: r._replace(predictions=r.predictions + 1e-6),
        "data concentrated at one point",
    ),
    ("level", lambda r: r._replace(reached=_moved(r.reached)), "data concentrated at one point"),
    ("nan", lambda r: r._replace(points=r.points * math.nan), "not finite"),
    ("inf", lambda r: r._replace(predictions=r.predictions / 0), "not finite"),
    ("future", lambda r: r._replace(point_lags=(-1,) * len(r.point_lags)), "point lag -1"),
    ("point", lambda r: r._replace(point_lags=(90,) * len(r.point_lags)), "point lag 90"),
    ("prediction", lambda r: r._replace(prediction_lags=(90, 91)), "prediction lag 90"),
]


def _moved(reached: Point) -> Point:
    return reached._replace(sigma=reached.sigma * 1.01)


@pytest.mark.parametrize(
    ("tamper", "said"), [t[1:] for t in TAMPERED], ids=[t[0] for t in TAMPERED]
)
def test_tampered_tables_are_refused(tamper: Tamper, said: str) -> None:
    tableau = table(registry()["dpmpp-2m"])
    rows = list(tableau.rows)
    rows[3] = tamper(rows[3])
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(tableau, rows=tuple(rows))


def test_a_wrong_variance_is_refused() -> None:
    tableau = table(registry()["sde-dpmpp-2m"])
    rows = list(tableau.rows)
    rows[2] = rows[2]._replace(noise=rows[2].noise * 1.01)
    with pytest.raises(ValueError, match=r"Row 2 .* data concentrated at one point"):
        dataclasses.replace(tableau, rows=tuple(rows))


def test_a_tampered_file_is_refused() -> None:
    data = json.loads(table(registry()["heun"]).to_json())
    data["rows"][1]["predictions"][0][0] += 0.5
    with pytest.raises(ValueError, match="data concentrated at one point"):
        Tableau.from_json(json.dumps(data))


def test_lags_may_reach_beyond_the_beginning_with_zeros_only() -> None:
    """The ramp of a multistep method has the columns of its later rows."""
    first = table(registry()["dpmpp-3m-corrected"]).rows[0]
    assert first.prediction_lags == (0, 1, 2)
    assert first.predictions[0, 1:].abs().max() == 0


def test_a_draft_is_the_program_it_records() -> None:
    grid = make_grid(VPLinear(), 4, final="sigma_min")
    draft = Draft(grid)
    for _, nxt in draft.intervals():
        known = draft.evaluate()
        x = ddim(known, nxt)
        draft.append((x * 2 + -known.x) / 2 + known.x / 2 - 0.0 * known.noise, nxt)
    written, plain = draft.tableau(), registry()["ddim"].tableau(grid)
    for one, other in zip(written.rows, plain.rows, strict=True):
        torch.testing.assert_close(one.points, other.points, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(one.predictions, other.predictions, rtol=1e-13, atol=1e-15)


@EACH
def test_coefficients_are_differentiable_in_the_grid(sampler: Sampler) -> None:
    """Learned grids: the sum of all coefficients has the gradient that differences give."""
    schedule = VPLinear()
    times = torch.tensor([0.9, 0.6, 0.4, 0.25, 0.1], dtype=torch.float64)

    def total(times: Tensor) -> Tensor:
        tableau = sampler.tableau(Grid(schedule, schedule.point(times)))
        parts = [torch.cat([r.points.flatten(), r.predictions.flatten()]) for r in tableau.rows]
        return torch.cat(parts).square().sum()

    (gradient,) = torch.autograd.grad(total(times.requires_grad_()), times)
    with torch.no_grad():
        for i in range(len(times)):
            shift = torch.zeros_like(times)
            shift[i] = 1e-6
            found = (total(times + shift) - total(times - shift)) / 2e-6
            assert float(gradient[i]) == pytest.approx(float(found), rel=1e-5, abs=1e-6)
