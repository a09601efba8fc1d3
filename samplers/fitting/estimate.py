r"""The error of a sampler on any grid, estimated without a network evaluation.

Close to a converged trajectory the network is linear,

.. math:: D(z, \tau) = D(z^*, \tau) + j \, (z - z^*) + q

with j and q, for each sample, from where a real run evaluated it; so the estimate is exact on the
grid of that run. A row of the tableau that starts from exact points and predictions leaves its own
error, which the linear rows after it carry to the end:

.. math:: x_0 - x_0^* = \sum_k c_k, \qquad
    e^2 = \sum_{kl} \gamma^{|k - l|} \, \frac{c_k \cdot c_l}{|x_0^*|^2}

is the estimate. With gamma = 1 it would be the error of these very samples; a smaller one does not
trust errors of distant steps to cancel, which they don't on other samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.fitting.pilots import Coordinate, PilotRun, Trajectories, evaluated_at
from samplers.schedule import Point
from samplers.tableau import Row, Tableau

TRUST = 0.7
"""gamma."""

_STEEPEST = 3.0
"""The largest slope j that is believed."""

_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Estimate:
    """The linear model around converged trajectories.

    Attributes:
        tau: where the real run evaluated the network, from the noisiest on [k].
        slopes: j there [N, k]; offsets: q there [N, k, r].
    """

    coordinate: Coordinate
    exact: Trajectories
    tau: Tensor
    slopes: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, coordinate: Coordinate, pilots: PilotRun, known: PilotRun) -> Estimate:
        """From converged runs, and a run of the sampler on the same samples."""
        (start, data, end), (z, known_data) = _compressed(coordinate, pilots, known)
        exact = Trajectories.of(
            coordinate.tau(evaluated_at(pilots.tableau)), start[:, 0], data, end[:, 0]
        )
        tau = coordinate.tau(evaluated_at(known.tableau))
        away, moved = z - exact.z_at(tau), known_data - exact.data_at(tau)
        size = away.square().sum(dim=2)
        slopes = ((away * moved).sum(dim=2) / size.clamp(min=_TINY)).clamp(0.0, _STEEPEST)
        slopes[:, 0] = slopes[:, min(1, len(tau) - 1)]  # nothing is away at the start
        return cls(coordinate, exact, tau, slopes, moved - slopes[..., None] * away)

    def parts(self, tableau: Tableau) -> Tensor:
        """c_k of each sample, relative to its norm [N, levels, r], summed over equal levels."""
        c, at = self.coordinate, evaluated_at(tableau)
        reached = Point(*map(torch.cat, zip(*(row.reached for row in tableau.rows), strict=True)))
        tau = c.tau(at)
        slopes = _interpolated(self.slopes, self.tau, tau) * c.c / c.size(at)
        own, carried = _linearised(
            tableau,
            self._exact_at(tableau.start.alpha, tableau.start.sigma),
            self._exact_points(reached),
            self.exact.data_at(tau),
            slopes,
        )
        own = torch.cat([own, _interpolated(self.offsets, self.tau, tau)], dim=1)
        levels = torch.cat([reached.lam, at.lam]).round(decimals=9)
        index = torch.unique(levels, return_inverse=True)[1]
        parts = own.new_zeros(len(own), int(index.max()) + 1, own.shape[2])
        parts.index_add_(1, index, own * carried[..., None])
        sizes: Tensor = self.exact.end.norm(dim=1)
        return parts / sizes.clamp(min=_TINY)[:, None, None]

    def _exact_at(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The first point, in units of c."""
        return self.exact.z[:, 0] * (sigma / self.coordinate.c + alpha)

    def _exact_points(self, reached: Point) -> Tensor:
        """x / c on the exact trajectories [N, k, r]; the last may be clean."""
        noisy = reached.sigma > 0
        at = Point(*(values[noisy] for values in reached))
        c = self.coordinate
        points = self.exact.z_at(c.tau(at)) * (c.size(at) / c.c)[:, None]
        clean = self.exact.end[:, None].expand(-1, int((~noisy).sum()), -1)
        return torch.cat([points, clean], dim=1)

    def errors(self, tableau: Tableau, trust: float = TRUST) -> Tensor:
        """The estimate e of each sample [N]."""
        parts = self.parts(tableau)
        return torch.einsum("nkr,kl,nlr->n", parts, decay(parts.shape[1], trust), parts).sqrt()


def decay(count: int, trust: float = TRUST) -> Tensor:
    """gamma^|k - l| [count, count]."""
    k = torch.arange(count, dtype=torch.float64)
    return trust ** (k[:, None] - k).abs()


def _linearised(
    tableau: Tableau, start: Tensor, points: Tensor, data: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The error of each appended point from exact ones [N, A, r], and by how much each, and a
    change of each prediction, moves the end [N, A + rows]."""
    samples, appended = points.shape[:2]
    count = appended + tableau.calls
    unit = torch.eye(count, dtype=torch.float64)
    exact, moved = [start], [torch.zeros(samples, count, dtype=torch.float64)]
    made: list[Tensor] = []
    own: list[Tensor] = []
    for k, row in enumerate(tableau.rows):
        made.append(slopes[:, k, None] * moved[-1] + unit[appended + k])
        known = [data[:, i] for i in range(k + 1)]
        new, carried = (_rows(row, x, d) for x, d in ((exact, known), (moved, made)))
        for x, by in zip(new, carried, strict=True):
            place = len(own)
            own.append(x - points[:, place])
            exact.append(points[:, place])
            moved.append(by + unit[place])
    return torch.stack(own, dim=1), moved[-1]


def _rows(row: Row, points: list[Tensor], predictions: list[Tensor]) -> list[Tensor]:
    """The points that a row appends, as combinations of those before."""
    terms = [
        *((row.points[:, i], points, lag) for i, lag in enumerate(row.point_lags)),
        *((row.predictions[:, i], predictions, lag) for i, lag in enumerate(row.prediction_lags)),
    ]
    used = [(numbers, known[-1 - lag]) for numbers, known, lag in terms if lag < len(known)]
    zero = torch.zeros_like(points[0])
    return [
        sum((numbers[a] * value for numbers, value in used), zero) for a in range(len(row.noise))
    ]


def _interpolated(values: Tensor, knots: Tensor, tau: Tensor) -> Tensor:
    """Linear interpolation of values [N, k, ...] at falling knots [k]; constant beyond."""
    if len(knots) == 1:
        return values.expand(-1, len(tau), *values.shape[2:])
    i = (torch.searchsorted(-knots, -tau) - 1).clamp(0, len(knots) - 2)
    span = (knots[i + 1] - knots[i]).clamp(max=-_TINY)  # two stages may be at one level
    share = ((tau - knots[i]) / span).clamp(0.0, 1.0).reshape(-1, *[1] * (values.ndim - 2))
    return (1 - share) * values[:, i] + share * values[:, i + 1]


def _compressed(
    coordinate: Coordinate, pilots: PilotRun, known: PilotRun
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """z at the start, D and x_0 of the pilots, and z and D of the other run, in units of c.

    In float64 and, for each sample, in an orthonormal basis of the space that they span, which has
    far fewer dimensions than an image.
    """
    c = coordinate
    first, at = pilots.tableau.start, evaluated_at(known.tableau)
    parts = (
        pilots.x[:, :1].double() / c.size(first),
        pilots.data.double() / c.c,
        pilots.end[:, None].double() / c.c,
        known.x.double() / c.size(at).to(known.x.device)[:, None],
        known.data.double() / c.c,
    )
    every = torch.cat(parts, dim=1)
    if every.shape[2] > every.shape[1]:
        every = torch.linalg.qr(every.transpose(1, 2), mode="r").R.transpose(1, 2)
    found = every.cpu().split([part.shape[1] for part in parts], dim=1)
    return found[:3], found[3:]
