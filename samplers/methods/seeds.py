r"""Singlestep methods for the reverse SDE, with noise in their stages, in data prediction
(Gonzalez et al. 2023, *SEEDS*, https://arxiv.org/abs/2305.14267).

With the exact solution of :mod:`samplers.methods.interval`, a point x_t in a step from x_s is

.. math:: x_t = \bar x_t + \text{noise} \, z_{st}, \qquad
    z_{st} = \frac{W_t - W_s}{\sqrt{c_t - c_s}}

with the deterministic part of DPM-Solver++ and the increment of one Brownian path W in a time
variable c. The noise of a stage at r is therefore part of that of the step,

.. math:: z_{st} = \sqrt{\frac{c_r - c_s}{c_t - c_s}} \, z_{sr}
    + \sqrt{\frac{c_t - c_r}{c_t - c_s}} \, z_{rt},

and each row adds the increment since the row before.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.dpm_solver import (
    SecondOrder,
    check_eta,
    check_stages,
    constant,
    linear,
    midpoint,
    part_of,
)
from samplers.methods.interval import Interval, finite_intervals
from samplers.schedule import Point
from samplers.tableau import Tableau

Clock = Literal["snr", "rho"]


def seeds_2(
    grid: Grid,
    r: float = 0.5,
    eta: float = 1.0,
    second_order: SecondOrder = "midpoint",
    clock: Clock = "snr",
) -> Tableau:
    r"""Second-order singlestep method for the reverse SDE, one stage at ``lam + r h``.

    .. math:: x_r = \text{decay} \, x + \text{gain}_1 D + \text{noise} \, z_r, \qquad
        x_t = \text{decay} \, x + \text{gain}_1 \Big[D + \frac{D_r - D}{2 r}\Big]
        + \text{noise} \, z

    or, with ``second_order="exact"``, with gain_1 D + gain_2 (D_r - D) / r, which for r = 1 is the
    exponential Heun method. z_r and z are increments of one Brownian path. In the time variable
    ``snr``, :math:`e^{2 \eta \lambda}`, its noise is that of the SDE: this is SEEDS-2. In ``rho``,
    sigma / alpha, it is DPM++ SDE of k-diffusion, where z_r and z are more alike.
    """
    check_eta(eta)
    check_stages(r)
    draft = Draft(grid)
    for first, nxt in finite_intervals(draft):
        path = _Path(draft, Interval(first.at, nxt, "data", eta), clock)
        x, f, part = first.x, first.data, part_of(grid, path.step, r)
        f_r = path.stage(constant(part, x, f), part).data
        second = linear if second_order == "exact" else midpoint
        path.append(second(path.step, x, f, f_r, r), path.step)
    return draft.tableau()


def seeds_3(grid: Grid, r1: float = 1 / 3, r2: float = 2 / 3, eta: float = 1.0) -> Tableau:
    r"""SEEDS-3: third-order singlestep method, stages at ``lam + r1 h`` and ``lam + r2 h``.

    .. math:: x_{r2} = \text{decay} \, x + \text{gain}_1 D
       + \frac{r_2}{r_1} \text{gain}_2 (D_{r1} - D) + \text{noise} \, z_{r2}, \qquad
       x_t = \text{decay} \, x + \text{gain}_1 D + \frac{1}{r_2} \text{gain}_2 (D_{r2} - D)
       + \text{noise} \, z

    with the noise of one solution of the SDE. Without noise it is DPM-Solver++(3S).
    """
    check_eta(eta)
    check_stages(r1, r2)
    draft = Draft(grid)
    for first, nxt in finite_intervals(draft):
        path = _Path(draft, Interval(first.at, nxt, "data", eta), "snr")
        x, f, step = first.x, first.data, path.step
        part_1, part_2 = part_of(grid, step, r1), part_of(grid, step, r2)
        f_1 = path.stage(constant(part_1, x, f), part_1).data
        f_2 = path.stage(linear(part_2, x, f, f_1, r1 / r2), part_2).data
        path.append(linear(step, x, f, f_2, r2), step)
    return draft.tableau()


class _Path:
    """The Brownian path of one step, of which every appended point has the noise until there."""

    def __init__(self, draft: Draft, step: Interval, clock: Clock) -> None:
        self.step = step
        self._draft, self._clock = draft, clock
        self._time, self._noise = self._at(step.now), Combination({})

    def _at(self, point: Point) -> Tensor:
        return point.rho if self._clock == "rho" else self.step.clock(point)

    def stage(self, mean: Combination, part: Interval) -> Evaluation:
        """Append the stage at the end of ``part`` and evaluate there."""
        self.append(mean, part)
        known = self._draft.evaluate()
        if self.step.eta:
            # The normalised noise so far is what the stage has besides its deterministic part.
            self._noise = (known.x - mean) / part.noise
        return known

    def append(self, mean: Combination, part: Interval) -> None:
        """Append the point at the end of ``part``: its deterministic part and the noise."""
        if not self.step.eta:
            self._draft.append(mean, part.nxt)
            return
        start, before, now = self._at(self.step.now), self._time, self._at(part.nxt)
        noise = torch.sqrt((before - start) / (now - start)) * self._noise
        if bool(now != before):
            share = torch.sqrt((now - before) / (now - start))
            noise = noise + share * self._draft.z_along(before, now)
        self._time = now
        self._draft.append(mean + part.noise * noise, part.nxt)
