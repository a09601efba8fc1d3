r"""The table of a sampler with one network evaluation per row, as the numbers that can be learned.

With y = x / alpha and rho = sigma / alpha, every deterministic row that appends one point and is
exact on data concentrated at one point is

.. math:: y_{k+1} = r \, y_k + (1 - r) \sum_j w_{kj} D_{k-j}, \qquad
    r = \frac{\rho_{k+1}}{\rho_k}, \qquad \sum_j w_{kj} = 1,

because older points are combinations of the newest one and of older predictions. So a sampler is
the noise levels and the weights (Bespoke Non-Stationary solvers, https://arxiv.org/abs/2403.01329;
S4S, https://arxiv.org/abs/2502.17423). The network may be evaluated as if y_k had another noise
level, ``D_k = D(y_k; rho'_k)``: the times of LD3 (https://arxiv.org/abs/2405.15506), which are
decoupled from the levels. A point is then stored as ``x_k = alpha'_k y_k``, with alpha' of that
other level, so that the row is the same on every schedule and for every prediction type.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samplers.grid import Grid
from samplers.schedule import Point, Schedule
from samplers.tableau import Row, Tableau
from samplers.tuning.levels import points_at_levels

_NEGLIGIBLE = 1e-12
_ROUNDING = 1e-8


class Table(NamedTuple):
    """The numbers of a sampler with n rows, float64, independent of the schedule.

    Attributes:
        levels: the half log-SNR of the points [n + 1]; -inf for pure noise, +inf for clean data.
        times: the half log-SNR that the network is given as that of its input in each row [n]; that
            of the first row is the level of the first point.
        weights: of the newest prediction and of older ones in each row [n, m]; they sum to one,
            and are zero for predictions before the first.
    """

    levels: Tensor
    times: Tensor
    weights: Tensor

    @property
    def nfe(self) -> int:
        return len(self.times)

    def points(self, schedule: Schedule) -> tuple[Point, Point]:
        """The points [n + 1] in units of x, and where the network is evaluated [n]."""
        at = points_at_levels(schedule, torch.cat([self.times, self.levels[-1:]]))
        # At the first point rho may be infinite, and the network is given its true level.
        sigma = torch.cat([at.sigma[:1], at.alpha[1:] * torch.exp(-self.levels[1:])])
        return Point(at.t, at.alpha, sigma), Point(*(values[:-1] for values in at))

    def coefficients(self, points: Point) -> tuple[Tensor, Tensor]:
        """Of the newest point [n] and of the predictions [n, m], in units of x."""
        ratio = points.sigma[1:] / points.sigma[:-1]
        gain = points.alpha[1:] - ratio * points.alpha[:-1]
        return ratio, gain[:, None] * self.weights

    def tableau(self, schedule: Schedule) -> Tableau:
        """The tableau on a schedule; gradients pass through."""
        points, at = self.points(schedule)
        ratio, predictions = self.coefficients(points)
        rows = tuple(
            Row(
                at=Point(*(values[k] for values in at)),
                reached=Point(*(values[k + 1 : k + 2] for values in points)),
                point_lags=(0,),
                prediction_lags=tuple(range(self.weights.shape[1])),
                points=ratio[k].reshape(1, 1),
                predictions=predictions[k : k + 1],
                noise=torch.zeros(1, dtype=torch.float64),
                step=k,
                base=0,
                local_error=0.0,
            )
            for k in range(self.nfe)
        )
        scale, noise = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return Tableau(Point(*(values[0] for values in points)), scale, noise, rows)

    def grid(self, schedule: Schedule) -> Grid:
        """The grid of the levels."""
        return Grid(schedule, points_at_levels(schedule, self.levels))

    @property
    def detached(self) -> Table:
        return Table(*(values.detach().clone() for values in self))

    def remembering(self, memory: int | None) -> Table:
        """The same table with at most ``memory`` predictions in a row; the oldest of these takes
        the weight of those before it, so that the sum stays one."""
        columns = self.nfe if memory is None else min(memory, self.nfe)
        given = self.weights.shape[1]
        if given <= columns:
            more = self.weights.new_zeros(self.nfe, columns - given)
            return self._replace(weights=torch.cat([self.weights, more], dim=1))
        kept, rest = self.weights[:, :columns], self.weights[:, columns:].sum(dim=1, keepdim=True)
        return self._replace(weights=torch.cat([kept[:, :-1], kept[:, -1:] + rest], dim=1))

    @property
    def trimmed(self) -> Table:
        """The same table without columns of zeros."""
        used = int(self.weights.ne(0).any(dim=0).nonzero().max()) + 1
        return self._replace(weights=self.weights[:, :used])


def table_of(tableau: Tableau) -> Table:
    """The table of a tableau, whose network is given the times of its points.

    Gradients pass through. Raises ValueError for a sampler that has no such table: a stochastic
    one, or one that evaluates the network twice at one noise level, such as Heun's method.
    """
    if tableau.stochastic or not tableau.batch_invariant or bool(tableau.start_scale != 1):
        raise ValueError("A stochastic sampler can't be tuned; take a deterministic one.")
    levels = torch.stack([*(row.at.lam for row in tableau.rows), tableau.end.lam])
    if bool((levels.diff() <= 0).any()):
        raise ValueError(
            "Only a sampler whose noise falls with every network evaluation can be tuned, such as "
            "ddim, dpmpp-2m or unipc-2; this one evaluates twice at one noise level or rises."
        )
    # Every point as a combination [1 + n] of x_T and the predictions.
    count = tableau.calls
    points = [torch.eye(1 + count, dtype=torch.float64)[0]]
    made = torch.eye(1 + count, dtype=torch.float64)[1:]
    weights = torch.zeros(count, count, dtype=torch.float64)
    for k, row in enumerate(tableau.rows):
        start = points[-1]
        for a in range(len(row.noise)):
            used = zip(row.point_lags, row.points[a], strict=True)
            new = sum((c * points[-1 - a - lag] for lag, c in used if bool(c)), 0 * start)
            used = zip(row.prediction_lags, row.predictions[a], strict=True)
            points.append(new + sum((c * made[k - lag] for lag, c in used if bool(c)), 0 * start))
        reached = Point(*(values[-1] for values in row.reached))
        ratio = reached.sigma / row.at.sigma
        change = (points[-1] - ratio * start) / (reached.alpha - ratio * row.at.alpha)
        weights[k, : k + 1] = change[1 : k + 2].flip(0)
    return Table(levels, levels[:-1].clone(), _normalised(weights)).trimmed


def _normalised(weights: Tensor) -> Tensor:
    """Without rounding errors: the small ones are zero, the sums one."""
    known = weights.detach()
    error = float((known.sum(dim=1) - 1).abs().max() / known.abs().max())
    if error > _ROUNDING:
        raise ValueError(
            f"The weights of this sampler sum to one up to {error:.2g} only; it can't be tuned."
        )
    weights = torch.where(known.abs() > _NEGLIGIBLE, weights, 0.0)
    rest = 1 - weights[:, 1:].sum(dim=1, keepdim=True)
    return torch.cat([rest, weights[:, 1:]], dim=1)


def resampled(table: Table, nfe: int) -> Table:
    """The table with another number of rows, interpolated at equal fractions of the run.

    The last positive level stays. Raises ValueError below two rows.
    """
    if min(nfe, table.nfe) < 2:
        raise ValueError("A table can be interpolated between two rows or more only.")
    rows = torch.linspace(0, table.nfe - 1, nfe, dtype=torch.float64)
    finite = table.levels[:-1]
    top = finite[1] - (finite[2] - finite[1]) if table.nfe > 2 else finite[1] - 1
    shift = table.times - table.levels[:-1]
    bounded = torch.cat([top.reshape(1), finite[1:]]) if finite[0].isinf() else finite
    levels = _interpolated(bounded, rows)
    shift = _interpolated(shift.nan_to_num(0.0), rows) * table.nfe / nfe
    weights = _interpolated(table.weights, rows)[:, :nfe]
    for k in range(min(nfe, weights.shape[1])):
        weights[k, k + 1 :] = 0.0
    weights[:, 0] += 1 - weights.sum(dim=1)
    levels = torch.cat([levels, table.levels[-1:]])
    times = levels[:-1] + shift
    levels[0], times[0] = table.levels[0], table.times[0]
    return Table(levels, times, weights)


def _interpolated(values: Tensor, rows: Tensor) -> Tensor:
    """Linear interpolation of the values of rows [n] or [n, m] at fractional row numbers."""
    left = rows.floor().long().clamp(max=len(values) - 2)
    share = (rows - left).reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[left] + share * values[left + 1]
