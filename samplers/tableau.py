r"""Layer 2. The tableau: a sampler as a table of coefficients.

Row k of a tableau evaluates the network at the newest point, which gives a prediction D of x_0, and
appends one or more points. Each is a linear combination of recent points, recent predictions and
one standard normal noise z:

.. math:: x_a = \sum_p A_{ap} \, x_{[p]} + \sum_q B_{aq} \, D_{[q]} + s_a z

Points and predictions are addressed by lag: 0 is the newest. This is a general linear method in the
sense of Butcher. The coefficients depend on the schedule and the grid alone, never on the network,
the image, the batch, the dtype or the device.

One kind of row is not linear: the Langevin corrector whose step size depends on norms of the batch
(Song et al. 2021, algorithms 4 and 5, https://arxiv.org/abs/2011.13456). From the same coefficients

.. math:: x' = x + c \, (A x + B D - x) + \sqrt{c} \, s z, \qquad
    c = \big(\overline{\lVert z \rVert} / \overline{\lVert \varepsilon \rVert}\big)^2

with the mean norms over the batch of the row's noise and of eps = (x - alpha D) / sigma.

Nothing here depends on a particular sampler, or holds tensors of the size of an image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from samplers.files import parse_json
from samplers.notebook import html_table
from samplers.schedule import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXACT = 1e-9

Scaling = Literal["none", "batch-norm"]


class Row(NamedTuple):
    """A network evaluation and the points that follow from it; all numbers are float64.

    Attributes:
        at: where the network is evaluated.
        reached: where the A appended points lie, oldest first ([A] each).
        point_lags, prediction_lags: the lags that the columns of the two tables address.
        points, predictions: the coefficients, [A, P] and [A, Q].
        noise: the standard deviation of the fresh noise in each appended point, [A].
        step: the index of the grid's interval that this row belongs to.
        base: the lag of the point from which that interval is crossed.
        local_error: how far the row may be from exact on data concentrated at one point, relative
            to alpha + sigma.
        path: the interval [2] of the method's time variable over which the row's noise is the
            increment of a Brownian path, divided by the root of its variance; None for noise that
            is not a function of a path.
        scaling: ``batch-norm`` for the row that is not linear, see the module.
    """

    at: Point
    reached: Point
    point_lags: tuple[int, ...]
    prediction_lags: tuple[int, ...]
    points: Tensor
    predictions: Tensor
    noise: Tensor
    step: int
    base: int
    local_error: float
    path: Tensor | None = None
    scaling: Scaling = "none"

    @property
    def noisy(self) -> bool:
        return bool((self.noise != 0).any())


class Line(NamedTuple):
    """An appended point with its coefficients, for tables and plots.

    Attributes:
        row: the index of the row that appends the point; None for the first point.
        at, reached: where that row evaluates the network, and where the point lies.
        coefficients: of points x[lag], predictions D[lag] and noise z.
    """

    row: int | None
    at: Point
    reached: Point
    coefficients: dict[str, float]


@dataclass(frozen=True, eq=False, repr=False)
class Tableau:
    """A sampler on one grid as a table of coefficients.

    The first point is ``start_scale * x_T + start_noise * z``, at ``rows[0].at``; the coefficients
    are 1 and 0 unless a sampler adds noise before the first evaluation.

    Raises ValueError if a lag is out of range, a number is not finite, or a row is inconsistent: on
    data concentrated at one point a deterministic row must reach the exact trajectory, and a
    stochastic one the exact mean and variance (up to the row's local error).
    """

    start: Point
    start_scale: Tensor
    start_noise: Tensor
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        _check_scaled_rows(self)
        _check_lags(self)
        _check_numbers(self)
        _check_one_point_data(self)

    @property
    def end(self) -> Point:
        """The point at which the finished sample lies."""
        return Point(*(values[-1] for values in self.rows[-1].reached))

    @property
    def calls(self) -> int:
        """Network evaluations of the whole run (NFE)."""
        return len(self.rows)

    @cached_property
    def points_kept(self) -> int:
        """The number of points that the executor has to store."""
        lags = [lag for row in self.rows for lag in (*row.point_lags, row.base)]
        return 1 + max(lags, default=0)

    @cached_property
    def predictions_kept(self) -> int:
        """The number of predictions that the executor has to store between evaluations.

        It is at least 1, so that callbacks can read the newest.
        """
        return max([1, *(lag for row in self.rows for lag in row.prediction_lags)])

    @property
    def calls_per_step(self) -> int:
        """Network evaluations of a full step; the step to sigma = 0 may have fewer."""
        return max(Counter(row.step for row in self.rows).values())

    @property
    def lines(self) -> list[Line]:
        """A line for each appended point, preceded by the first point if noise is added to it."""
        first = {"x[0]": float(self.start_scale), "z": float(self.start_noise)}
        lines = [Line(None, self.start, self.start, first)] if first["z"] else []
        for number, row in enumerate(self.rows):
            for reached, coefficients in zip(_reached(row), _coefficients(row), strict=True):
                lines.append(Line(number, row.at, reached, coefficients))
        return lines

    @property
    def batch_invariant(self) -> bool:
        """Whether no sample depends on the others of its batch."""
        return all(row.scaling == "none" for row in self.rows)

    @cached_property
    def stochastic(self) -> bool:
        noise = torch.cat([self.start_noise.reshape(1), *(row.noise for row in self.rows)])
        return bool(noise.any())

    def to_json(self) -> str:
        """The tableau as JSON, which :meth:`from_json` reads back exactly."""
        rows = [{name: _plain(value) for name, value in row._asdict().items()} for row in self.rows]
        start = {
            "start": _plain(self.start),
            "start_scale": _plain(self.start_scale),
            "start_noise": _plain(self.start_noise),
        }
        return json.dumps({**start, "rows": rows}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Tableau:
        """Read a tableau that :meth:`to_json` wrote, and check it."""
        data = parse_json(text)
        rows = tuple(_row_from_plain(row) for row in data["rows"])
        head = (_tensor(data["start_scale"]), _tensor(data["start_noise"]))
        return cls(_point(data["start"]), *head, rows)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        kind = "stochastic" if self.stochastic else "deterministic"
        ends = f"sigma/alpha from {float(self.start.rho):.4g} to {float(self.end.rho):.4g}"
        return f"Tableau({kind}, NFE {self.calls}, {ends})"

    def _repr_html_(self) -> str:
        return _html(self)

    def plot(self) -> Figure:
        """A heat map of the coefficients, see :func:`samplers.plot_tableau`."""
        from samplers.images.plots import plot_tableau

        return plot_tableau(self)


def _plain(value: Any) -> Any:
    match value:
        case Point():
            return [column.tolist() for column in value]
        case Tensor():
            return value.tolist()
        case _:
            return value


def _tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _point(columns: list[Any]) -> Point:
    return Point(*(_tensor(column) for column in columns))


def _row_from_plain(row: dict[str, Any]) -> Row:
    points = {name: _point(row[name]) for name in ("at", "reached")}
    lags = {name: tuple(row[name]) for name in ("point_lags", "prediction_lags")}
    tables = {
        name: _tensor(row[name]).reshape(len(row["noise"]), len(row[f"{name[:-1]}_lags"]))
        for name in ("points", "predictions")
    }
    path = None if row["path"] is None else _tensor(row["path"])
    noise = _tensor(row["noise"])
    return Row(**{**row, **points, **lags, **tables, "noise": noise, "path": path})


def _check_lags(tableau: Tableau) -> None:
    points = 1
    for number, row in enumerate(tableau.rows):
        _check_live_lags(number, "point", row.point_lags, row.points, points)
        _check_live_lags(number, "prediction", row.prediction_lags, row.predictions, number + 1)
        points += len(row.noise)


def _check_live_lags(
    number: int, what: str, lags: tuple[int, ...], coefficients: Tensor, available: int
) -> None:
    """Coefficients before the first point must be zero (first steps of a multistep method)."""
    for column, lag in enumerate(lags):
        if lag < 0 or (lag >= available and bool((coefficients[:, column] != 0).any())):
            raise ValueError(
                f"Row {number} uses {what} lag {lag}, but only {available} exist by then."
            )


def _check_scaled_rows(tableau: Tableau) -> None:
    for number, row in enumerate(tableau.rows):
        if row.scaling == "batch-norm" and (len(row.noise) != 1 or not row.at.finite):
            raise ValueError(
                f"Row {number} is scaled by norms of the batch, so it must append one point, at a "
                f"finite log-SNR; it appends {len(row.noise)}, at {_where(row.at)}."
            )


def _check_numbers(tableau: Tableau) -> None:
    for number, row in enumerate(tableau.rows):
        tables = torch.cat([row.points.flatten(), row.predictions.flatten(), row.noise])
        if not bool(tables.isfinite().all()):
            raise ValueError(
                f"Row {number} (t = {float(row.at.t):.6g}) has a coefficient that is not finite; "
                "its points lie too close together or too far apart for this sampler."
            )


def _check_one_point_data(tableau: Tableau) -> None:
    """Check each row on data concentrated at one point, where mean and variance are known.

    A row starts from points that are exact, so that its error is its own: rows with large
    coefficients would amplify the rounding of those before.
    """
    data = _OnePointData(tableau)
    slack = _EXACT
    for number, row in enumerate(tableau.rows):
        slack = (1 + slack) * (1 + row.local_error) - 1
        signal, noise = data.reached_by(number, row)
        error = (signal - row.reached.alpha).abs() + (noise - row.reached.sigma).abs()
        error = error / (row.reached.alpha + row.reached.sigma)
        # Large coefficients of opposite signs cancel, which leaves rounding errors.
        size = 1 + float(torch.cat([row.points, row.predictions], dim=1).detach().abs().max())
        if bool((error > slack * size).any()):
            raise ValueError(
                f"Row {number} (t = {float(row.at.t):.6g}) is off by {float(error.max()):.3g} of "
                f"alpha + sigma on data concentrated at one point; at most {slack * size:.3g} "
                "is allowed."
            )


class _OnePointData:
    """Points as ``signal * x_0 + noise . (eps of x_T, z_0, z_1, ...)``, for D = x_0 everywhere."""

    def __init__(self, tableau: Tableau) -> None:
        self._signals = [tableau.start_scale * tableau.start.alpha]
        noise = torch.zeros(2 + tableau.calls, dtype=torch.float64)
        noise[0], noise[1] = tableau.start_scale * tableau.start.sigma, tableau.start_noise
        self._noises = [noise]

    def reached_by(self, number: int, row: Row) -> tuple[Tensor, Tensor]:
        """Signal and standard deviation of the points that row ``number`` appends.

        They are remembered as what they should be; of their noise, that is its norm.
        """
        signal = row.predictions.sum(dim=1)
        noise = torch.zeros(len(row.noise), len(self._noises[0]), dtype=torch.float64)
        noise[:, 2 + number] = row.noise
        for column, lag in enumerate(row.point_lags):
            if lag < len(self._signals):
                signal = signal + row.points[:, column] * self._signals[-1 - lag]
                noise = noise + row.points[:, column, None] * self._noises[-1 - lag]
        std = noise.norm(dim=1)
        scale = torch.where(std > 0, row.reached.sigma / std, 0.0)
        self._signals.extend(row.reached.alpha)
        self._noises.extend(scale[:, None] * noise)
        return signal, std


def _lines(tableau: Tableau) -> list[str]:
    lines = [
        f"{tableau.calls} network evaluations from {_where(tableau.start)} to {_where(tableau.end)}"
    ]
    if bool(tableau.start_noise != 0):
        scale, noise = float(tableau.start_scale), float(tableau.start_noise)
        lines.append(f"start  x = {_sum({'x_T': scale, 'z': noise})}")
    for number, row in enumerate(tableau.rows):
        lines.append(f"row {number:<3} step {row.step:<3} evaluate at {_where(row.at)}")
        lines.extend(_row_lines(row))
    return lines


def _row_lines(row: Row) -> list[str]:
    lines = []
    for reached, coefficients in zip(_reached(row), _coefficients(row), strict=True):
        scaled = "" if row.scaling == "none" else f"   scaled by {row.scaling}"
        lines.append(f"        x = {_sum(coefficients)}   at {_where(reached)}{scaled}")
    return lines


def _reached(row: Row) -> list[Point]:
    return [Point(*values) for values in zip(*row.reached, strict=True)]


def _coefficients(row: Row) -> list[dict[str, float]]:
    """Of each appended point, by name."""
    names = [f"x[{lag}]" for lag in row.point_lags]
    names += [*(f"D[{lag}]" for lag in row.prediction_lags), "z"]
    numbers = torch.cat([row.points, row.predictions, row.noise[:, None]], dim=1)
    return [dict(zip(names, line, strict=True)) for line in numbers.tolist()]


def columns_of(lines: Sequence[Line]) -> list[str]:
    """The names with a nonzero coefficient in any line: points, predictions, noise."""
    used = {name for line in lines for name, value in line.coefficients.items() if value}
    return sorted(used, key=lambda name: ("xDz".index(name[0]), len(name), name))


def _sum(coefficients: dict[str, float]) -> str:
    parts = [
        f"{'-' if value < 0 else '+'} {abs(value):.6g} {name}"
        for name, value in coefficients.items()
        if value
    ]
    text = " ".join(parts) or "0"
    return text.removeprefix("+ ")


def _html(tableau: Tableau) -> str:
    lines = tableau.lines
    names = columns_of(lines)
    head = ["evaluation", "t", "σ/α", "new point at σ/α", *names]
    rows = []
    for row, at, reached, coefficients in lines:
        where = ["start" if row is None else str(row), f"{float(at.t):.6g}", f"{float(at.rho):.4g}"]
        numbers = [_number(coefficients.get(name, 0.0)) for name in names]
        rows.append([*where, f"{float(reached.rho):.4g}", *numbers])
    return html_table(repr(tableau), head, rows)


def _number(value: float) -> str:
    return f"{value:.6g}" if value else ""


def _where(point: Point) -> str:
    return f"t = {float(point.t):.6g} (sigma/alpha = {float(point.rho):.4g})"
