r"""Layer 2. A draft: write a sampler as in its paper, get its tableau.

A method evaluates, combines and appends symbols; the draft records the coefficient of each symbol:

    draft = Draft(grid)
    for now, nxt in draft.intervals():
        D = draft.evaluate().data
        draft.append(nxt.sigma / now.sigma * draft.x + (nxt.alpha - ...) * D, nxt)
    return draft.tableau()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from samplers.grid import Grid
from samplers.schedule import Point
from samplers.tableau import Row, Scaling, Tableau

Number = Tensor | float


class Symbol(NamedTuple):
    """A point, a prediction or a noise sample, numbered from the beginning of the run."""

    kind: Literal["point", "prediction", "noise"]
    number: int


@dataclass(frozen=True, eq=False)
class Combination:
    """A linear combination of symbols with float64 coefficients."""

    terms: Mapping[Symbol, Tensor]

    @classmethod
    def of(cls, symbol: Symbol) -> Combination:
        return cls({symbol: torch.ones((), dtype=torch.float64)})

    def __add__(self, other: Combination) -> Combination:
        terms = dict(self.terms)
        for symbol, value in other.terms.items():
            terms[symbol] = terms[symbol] + value if symbol in terms else value
        return Combination(terms)

    def __mul__(self, factor: Number) -> Combination:
        return Combination({symbol: factor * value for symbol, value in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: Number) -> Combination:
        return self * (1 / divisor)

    def __sub__(self, other: Combination) -> Combination:
        return self + other * -1.0

    def __neg__(self) -> Combination:
        return self * -1.0


class Evaluation(NamedTuple):
    """A network evaluation: the point x and the prediction of x_0 there."""

    x: Combination
    data: Combination
    at: Point

    @property
    def noise(self) -> Combination:
        """The prediction of eps, (x - alpha x_0) / sigma."""
        return (self.x - self.at.alpha * self.data) / self.at.sigma


@dataclass
class _DraftRow:
    """A row whose symbols are not yet addressed by lag; ``newest`` is the point it evaluates."""

    at: Point
    newest: int
    step: int
    base: int
    appended: list[tuple[Combination, Point]] = field(default_factory=list)
    local_errors: list[float] = field(default_factory=list)
    path: list[Tensor] = field(default_factory=list)
    scaling: Scaling = "none"


class Draft:
    """Records the straight-line program of a sampler on a grid."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._at = grid.start
        self._start_scale, self._start_noise = torch.tensor([1.0, 0.0], dtype=torch.float64)
        self._rows: list[_DraftRow] = []
        self._newest = self._base = self._step = 0

    @property
    def x(self) -> Combination:
        """The newest point."""
        return Combination.of(Symbol("point", self._newest))

    @property
    def z(self) -> Combination:
        """The standard normal noise of the current row."""
        return Combination.of(Symbol("noise", len(self._rows) - 1))

    def z_along(self, start: Tensor, end: Tensor) -> Combination:
        """The same noise, as the normalised increment of a Brownian path from ``start`` to ``end``.

        Both are values of the method's time variable, in which the variance of its noise is the
        difference, up to the factor by which a step multiplies the noise of earlier steps.
        """
        self._rows[-1].path.extend([start, end])
        return self.z

    def begin(self, scale: Tensor, noise: Tensor, at: Point) -> None:
        """Set the first point to ``scale * x_T + noise * z``, at ``at``, instead of x_T."""
        self._start_scale, self._start_noise, self._at = scale, noise, at

    @property
    def steps_left(self) -> int:
        """The number of steps to the end of the grid, including the current one."""
        return self.grid.steps - self._step

    def intervals(self) -> Iterator[tuple[Point, Point]]:
        """The pairs of neighbouring grid points, noisiest first."""
        for self._step in range(self.grid.steps):
            self._base = self._newest
            yield self.grid[self._step], self.grid[self._step + 1]

    def evaluate(self, base: Combination | None = None) -> Evaluation:
        """Evaluate the network at the newest point, which begins a row.

        base: the point from which the current interval is crossed, if that is not the newest point
            at the beginning of the interval.
        """
        start = self._base if base is None else next(iter(base.terms)).number
        self._rows.append(_DraftRow(self._at, self._newest, self._step, start))
        prediction = Combination.of(Symbol("prediction", len(self._rows) - 1))
        return Evaluation(self.x, prediction, self._at)

    def append(
        self, x: Combination, at: Point, local_error: float = 0.0, scaling: Scaling = "none"
    ) -> Combination:
        """Add a point and return its symbol.

        Args:
            local_error: how far the point may be from exact on data concentrated at one point,
                relative to alpha + sigma.
            scaling: how the step size of the row is scaled, see :mod:`samplers.tableau`.
        """
        self._rows[-1].appended.append((x, at))
        self._rows[-1].scaling = scaling
        self._rows[-1].local_errors.append(local_error)
        self._newest, self._at = self._newest + 1, at
        return self.x

    def tableau(self) -> Tableau:
        """The tableau. Rows that append equally many points have the same columns."""
        found = [(len(row.appended), _Lags.of(k, row)) for k, row in enumerate(self._rows)]
        lags = {
            count: _Lags.union([lags for size, lags in found if size == count])
            for count in {size for size, _ in found}
        }
        rows = (_finish(k, row, lags[len(row.appended)]) for k, row in enumerate(self._rows))
        return Tableau(self.grid.start, self._start_scale, self._start_noise, tuple(rows))


class _Lags(NamedTuple):
    points: frozenset[int]
    predictions: frozenset[int]

    @classmethod
    def of(cls, number: int, row: _DraftRow) -> _Lags:
        symbols = {symbol for x, _ in row.appended for symbol in x.terms}
        return cls(
            frozenset(row.newest - s.number for s in symbols if s.kind == "point"),
            frozenset(number - s.number for s in symbols if s.kind == "prediction"),
        )

    @classmethod
    def union(cls, lags: list[_Lags]) -> _Lags:
        points, predictions = zip(*lags, strict=True)
        return cls(frozenset().union(*points), frozenset().union(*predictions))


def _finish(number: int, row: _DraftRow, lags: _Lags) -> Row:
    point_lags, prediction_lags = tuple(sorted(lags.points)), tuple(sorted(lags.predictions))
    points = [Symbol("point", row.newest - lag) for lag in point_lags]
    predictions = [Symbol("prediction", number - lag) for lag in prediction_lags]
    combinations = [x for x, _ in row.appended]
    reached = (torch.stack(column) for column in zip(*(at for _, at in row.appended), strict=True))
    return Row(
        at=row.at,
        reached=Point(*reached),
        point_lags=point_lags,
        prediction_lags=prediction_lags,
        points=_table(combinations, points),
        predictions=_table(combinations, predictions),
        noise=_table(combinations, [Symbol("noise", number)])[:, 0],
        step=row.step,
        base=row.newest - row.base,
        local_error=max(row.local_errors),
        path=torch.stack(row.path) if row.path else None,
        scaling=row.scaling,
    )


def _table(combinations: list[Combination], symbols: list[Symbol]) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    numbers = [x.terms.get(symbol, zero) for x in combinations for symbol in symbols]
    if not numbers:
        return torch.zeros(len(combinations), 0, dtype=torch.float64)
    return torch.stack(numbers).reshape(len(combinations), len(symbols))
