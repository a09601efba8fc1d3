"""The unconstrained numbers behind a table, in scales in which an optimiser can move them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.schedule import Schedule
from samplers.tuning.config import Part
from samplers.tuning.table import Table

_ALMOST_PURE_NOISE, _ALMOST_CLEAN = 0.999, 0.001
"""Where the range of levels ends if that of the schedule is infinite, as fractions of its times."""

_APART = 1e-3
"""The least distance of the first level from pure noise's stand-in."""


class Bounds(NamedTuple):
    """The range of half log-SNR that levels and times are held in, both ends finite."""

    noisiest: float
    cleanest: float


def bounds_of(schedule: Schedule) -> Bounds:
    """The range that the schedule was trained for, without infinite ends."""

    def level(fraction: float) -> float:
        return float(schedule.lam(schedule.at_fraction(torch.tensor(fraction).double())))

    noisiest, cleanest = float(schedule.noisiest.lam), float(schedule.cleanest.lam)
    return Bounds(
        noisiest if math.isfinite(noisiest) else level(_ALMOST_PURE_NOISE),
        cleanest if math.isfinite(cleanest) else level(_ALMOST_CLEAN),
    )


@dataclass(frozen=True, eq=False)
class Parameters:
    r"""What is learned of a table.

    .. math:: \lambda_k = \lambda_0 + \sum_{i \le k} e^{s_i}, \qquad
        \tau_k = \lambda_k + c_k, \qquad
        \sum_j w_{kj} D_{k-j} = D_k + \sum_{i \ge 1} g_{ki} \, \nabla^i D_k

    so that levels are monotone and weights sum to one whatever the numbers. In backward differences
    the weights are of one size, and moving one does not undo another; the weights of predictions
    that are nearly equal have neither property. Weights that are not learned are those of the
    untuned sampler on the levels as they move.

    Attributes:
        fixed: the table whose numbers are kept where they are not learned.
        bounds: the range of levels and times.
        grid: s, the logarithms of the steps between the finite levels.
        times: c [n], the offsets of the levels that the network is given; the first is zero.
        weights: g [n, m - 1].
        learned: the parts that are moved.
        method: the weights [n, m] of the untuned sampler on levels; None for fixed weights.
    """

    fixed: Table
    bounds: Bounds
    grid: Tensor
    times: Tensor
    weights: Tensor
    learned: frozenset[Part]
    method: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        table: Table,
        schedule: Schedule,
        learned: Collection[Part],
        method: Callable[[Tensor], Tensor] | None = None,
    ) -> Parameters:
        """The parameters of a table; :attr:`table` gives it back."""
        noisiest, cleanest = bounds_of(schedule)
        levels = table.levels[table.levels.isfinite()]
        if bool(table.levels[0].isinf()):
            noisiest = min(noisiest, float(levels[0]) - _APART)
            levels = torch.cat([levels.new_tensor([noisiest]), levels])
        bounds = Bounds(float(levels[0]), max(cleanest, float(levels[-1])))
        shifts = (table.times - table.levels[:-1]).nan_to_num(0.0)
        gains = (table.weights @ _differences(table.weights.shape[1]))[:, 1:]
        parts: dict[Part, Tensor] = {
            "grid": levels.diff().log(),
            "times": shifts,
            "weights": gains,
        }
        for name in learned:
            parts[name].requires_grad_()
        return cls(table, bounds, **parts, learned=frozenset(learned), method=method)

    @property
    def moving(self) -> dict[str, Tensor]:
        """The leaves that are moved, by their part."""
        return {name: getattr(self, name) for name in sorted(self.learned)}

    @property
    def table(self) -> Table:
        """The table; gradients pass through."""
        levels, times, weights = self._levels(), self.fixed.times, self.fixed.weights
        if self.learned & {"grid", "times"}:
            times = torch.cat([levels[:1], levels[1:-1] + self.times[1:]])
        if "weights" in self.learned:
            weights = self._weights()
        elif "grid" in self.learned and self.method is not None:
            weights = self.method(levels)
        return Table(levels, times, weights)

    def _levels(self) -> Tensor:
        levels = self.fixed.levels
        if "grid" not in self.learned:
            return levels
        inner = self.bounds.noisiest + self.grid.exp().cumsum(0)
        return torch.cat([levels[:1], inner[: len(levels) - 2], levels[-1:]])

    def _weights(self) -> Tensor:
        rows, columns = self.fixed.weights.shape
        existing = torch.ones(rows, columns, dtype=torch.float64).tril()[:, 1:]
        differences = _differences(columns)
        return differences[0] + (self.weights * existing) @ differences[1:]

    @torch.no_grad()
    def hold(self) -> None:
        """Move the numbers back into the bounds; levels by a common factor of all steps."""
        end = float(self.fixed.levels[-1])
        span = min(end, self.bounds.cleanest) - self.bounds.noisiest
        excess = (self.grid.exp().sum() / span).log()
        self.grid.sub_(excess if math.isfinite(end) else excess.clamp(min=0.0))
        levels = self._levels()[:-1]
        low, high = self.bounds.noisiest - levels, self.bounds.cleanest - levels
        self.times[1:].clamp_(low[1:].clamp(max=0.0), high[1:].clamp(min=0.0))


def _differences(count: int) -> Tensor:
    """Row i: the backward difference nabla^i as weights of the lags j [m, m]; its own inverse."""
    rows = [[(-1) ** j * math.comb(i, j) for j in range(count)] for i in range(count)]
    return torch.tensor(rows, dtype=torch.float64)
