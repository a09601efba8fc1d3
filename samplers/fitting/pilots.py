r"""Runs on a few samples, and their converged trajectories as functions of the noise level.

With c a few times the scale of the data, the coordinates

.. math:: z = \frac{x}{\sigma + c \alpha}, \qquad \tau = \log \frac{\sigma}{\sigma + c \alpha} \le 0

are finite at pure noise (tau = 0), and turn the probability-flow ODE of every schedule into

.. math:: \frac{dz}{d\tau} = z - D / c

so that D alone, a cubic spline through evenly spaced tau, determines a trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samplers.denoiser import Denoiser, select_rows
from samplers.grid import Grid
from samplers.methods.adams import adams_bashforth_moulton
from samplers.sampling import checked, count_evaluations
from samplers.schedule import Point, Schedule
from samplers.solve import Solver
from samplers.tableau import Tableau
from samplers.tuning.parameters import bounds_of

_PIVOT = 6.0
"""c, in units of the data's scale."""

_LAST = 0.015
"""The last positive noise level of a pilot, in units of the data's scale."""

_NODES = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)], dtype=torch.float64)
_WEIGHTS = torch.tensor([5 / 9, 8 / 9, 5 / 9], dtype=torch.float64)


class Coordinate(NamedTuple):
    """The coordinate tau on a schedule of data of a known scale."""

    schedule: Schedule

    @property
    def c(self) -> float:
        return _PIVOT * self.schedule.data_scale

    def size(self, at: Point) -> Tensor:
        """sigma + c alpha, by which x is divided."""
        return at.sigma + self.c * at.alpha

    def tau(self, at: Point) -> Tensor:
        return (at.sigma / self.size(at)).log()

    @property
    def first(self) -> float:
        return float(self.tau(self.schedule.noisiest))

    @property
    def last(self) -> float:
        """Where pilots begin their step to clean data."""
        rho = max(math.exp(-bounds_of(self.schedule).cleanest), _LAST * self.schedule.data_scale)
        return math.log(rho / (rho + self.c))

    def grid(self, tau: Tensor) -> Grid:
        """The grid from the noisiest level through others at tau [n - 1] to clean data."""
        lam = torch.log(-torch.expm1(tau)) - tau - math.log(self.c)
        ends = self.schedule.noisiest, self.schedule.clean()
        rows = zip(ends[0], self.schedule.at_lam(lam), ends[1], strict=True)
        points = Point(*(torch.cat([a.reshape(1), row, b.reshape(1)]) for a, row, b in rows))
        return Grid(self.schedule, points)


# ------------------------------------------------------------------------------------------ runs


class PilotRun(NamedTuple):
    """A run of a sampler on all samples.

    Attributes:
        tableau: the sampler on its grid.
        x, data: where the network was evaluated, and what it predicted [N, rows, d].
        end: the samples [N, d].
        nfe: network evaluations of each sample.
    """

    tableau: Tableau
    x: Tensor
    data: Tensor
    end: Tensor
    nfe: int


@torch.no_grad()
def run(
    model: Denoiser,
    x_T: Tensor,
    conditions: Mapping[str, Any],
    tableau: Tableau,
    batch_size: int,
) -> PilotRun:
    """Sample along a tableau in batches, and keep every point and prediction."""
    batches = [rows.to(x_T.device) for rows in torch.arange(len(x_T)).split(batch_size)]
    parts = [_run(model, x_T[rows], select_rows(conditions, rows), tableau) for rows in batches]
    x, data, end = (torch.cat(values) for values in zip(*parts, strict=True))
    return PilotRun(tableau, x, data, end, count_evaluations(model, tableau))


def _run(
    model: Denoiser, x_T: Tensor, conditions: Mapping[str, Any], tableau: Tableau
) -> tuple[Tensor, Tensor, Tensor]:
    solver = Solver(tableau, model.prediction, None, model.correction)
    states = [solver.init(x_T)]
    states += solver.run(checked(lambda x, t: model(x, t, **conditions), solver), states[0])
    x = torch.stack([state.x.flatten(1) for state in states[:-1]], dim=1)
    data = torch.stack([state.predictions[0].flatten(1) for state in states[1:]], dim=1)
    return x, data, states[-1].x.flatten(1)


def evaluated_at(tableau: Tableau) -> Point:
    """The points of a tableau's evaluations [rows]."""
    return Point(*map(torch.stack, zip(*(row.at for row in tableau.rows), strict=True)))


def pilot_tableau(coordinate: Coordinate, steps: int) -> Tableau:
    """A sampler of order 4 on levels that are evenly spaced in tau."""
    share = torch.arange(1, steps, dtype=torch.float64) / (steps - 1)
    tau = coordinate.first + share * (coordinate.last - coordinate.first)
    return adams_bashforth_moulton(coordinate.grid(tau), order=4)


# ---------------------------------------------------------------------------------- trajectories


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Converged solutions z as functions of tau, in units in which c is 1.

    Attributes:
        first, h: the first knot and the (negative) distance between two.
        data, bend: D and its second derivative at the knots [N, m, r].
        z: the solutions there [N, m, r].
        end: x_0 [N, r].
    """

    first: float
    h: float
    data: Tensor
    bend: Tensor
    z: Tensor
    end: Tensor

    @classmethod
    def of(cls, tau: Tensor, start: Tensor, data: Tensor, end: Tensor) -> Trajectories:
        """From z [N, r] at the first of the evenly spaced knots tau [m], and D [N, m, r]."""
        h = float(tau[1] - tau[0])
        bend = torch.einsum("km,nmr->nkr", _second_derivatives(len(tau), h), data)
        theta = (_NODES + 1) / 2
        decay = (h / 2 * _WEIGHTS * torch.exp(h * (1 - theta)))[:, None]
        z = [start]
        for i in range(len(tau) - 1):
            at = torch.full(theta.shape, i)
            z.append(math.exp(h) * z[-1] - (decay * _cubic(data, bend, at, theta, h)).sum(dim=1))
        return cls(float(tau[0]), h, data, bend, torch.stack(z, dim=1), end)

    def data_at(self, tau: Tensor) -> Tensor:
        """D [N, k, r] at tau [k]."""
        return _cubic(self.data, self.bend, *self._place(tau), self.h)

    def z_at(self, tau: Tensor) -> Tensor:
        """z [N, k, r] at tau [k]: the cubic with the values and the slopes at both knots."""
        i, theta = self._place(tau)
        t = theta[:, None]
        left, right = self.z[:, i], self.z[:, i + 1]
        rise, fall = self.h * (left - self.data[:, i]), self.h * (right - self.data[:, i + 1])
        blend = t * t * (3 - 2 * t)
        return left + blend * (right - left) + t * (1 - t) * ((1 - t) * rise - t * fall)

    def _place(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """The knot before each tau, and how far it lies behind it, in distances of knots."""
        place = (tau - self.first) / self.h
        i = place.floor().long().clamp(0, self.data.shape[1] - 2)
        return i, place - i


def _cubic(values: Tensor, bend: Tensor, i: Tensor, theta: Tensor, h: float) -> Tensor:
    """The spline [N, k, r] at fractions theta [k] behind the knots i [k]."""
    b = theta[:, None]
    a = 1 - b
    bent = (a**3 - a) * bend[:, i] + (b**3 - b) * bend[:, i + 1]
    return a * values[:, i] + b * values[:, i + 1] + h * h / 6 * bent


def _second_derivatives(count: int, h: float) -> Tensor:
    """From values at evenly spaced knots to the second derivatives of their cubic spline [m, m].

    The third derivative is continuous at the second and at the last knot but one.
    """
    bends, values = torch.zeros(2, count, count, dtype=torch.float64)
    difference = torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    for i in range(1, count - 1):
        bends[i, i - 1 : i + 2] = difference + torch.tensor([0.0, 6.0, 0.0])
        values[i, i - 1 : i + 2] = 6 / h**2 * difference
    bends[0, :3] = bends[-1, -3:] = difference
    matrix: Tensor = torch.linalg.solve(bends, values)
    return matrix
