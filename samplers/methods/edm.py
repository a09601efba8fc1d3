r"""EDM's stochastic sampler: noise is added before each step of Heun's method (Karras et al. 2022,
algorithm 2, https://arxiv.org/abs/2206.00364)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from samplers.draft import Combination, Draft
from samplers.grid import Grid
from samplers.methods.interval import ddim
from samplers.schedule import Point
from samplers.tableau import Tableau


def churn(
    grid: Grid,
    s_churn: float = 40.0,
    s_tmin: float = 0.05,
    s_tmax: float = 50.0,
    s_noise: float = 1.0,
) -> Tableau:
    r"""EDM's stochastic Heun sampler; the network is evaluated at the noised point, as in the
    paper.

    .. math:: \hat\rho = (1 + \gamma) \rho, \qquad
        \hat y = y + S_{noise} \sqrt{\hat\rho^2 - \rho^2} \, z, \qquad
        \gamma = \min(S_{churn} / n, \sqrt 2 - 1) \text{ if } \rho \in [S_{tmin}, S_{tmax}]

    in the coordinates y = x / alpha, rho = sigma / alpha. The noise level never exceeds that of the
    schedule's noisiest point.
    """
    if not (s_churn >= 0 and 0 <= s_tmin <= s_tmax and s_noise > 0):
        raise ValueError(
            f"EDM's churn came as s_churn = {s_churn}, s_tmin = {s_tmin}, s_tmax = {s_tmax}, "
            f"s_noise = {s_noise}; need s_churn >= 0, 0 <= s_tmin <= s_tmax and s_noise > 0."
        )
    gamma = min(s_churn / grid.steps, math.sqrt(2) - 1)

    def noised(point: Point) -> tuple[Tensor, Tensor, Point]:
        """The factor on x, the added standard deviation, and the noised point."""
        if not point.finite or not s_tmin <= float(point.rho.detach()) <= s_tmax or gamma == 0:
            return torch.ones_like(point.alpha), torch.zeros_like(point.alpha), point
        lam = torch.maximum(point.lam - math.log1p(gamma), grid.schedule.noisiest.lam)
        raised = grid.at_lam(torch.minimum(lam, point.lam))
        added = (raised.rho.square() - point.rho.square()).clamp(min=0).sqrt()
        return raised.alpha / point.alpha, s_noise * raised.alpha * added, raised

    draft = Draft(grid)
    draft.begin(*noised(grid.start))

    def append(x: Combination, nxt: Point, last: bool) -> None:
        factor, added, raised = noised(nxt)
        if last or bool(added == 0):
            draft.append(x, nxt)
            return
        excess = abs(s_noise - 1) * float((added / raised.sigma).detach())
        draft.append(factor * x + added * draft.z, raised, local_error=excess * (1 + s_noise))

    for i, (_, nxt) in enumerate(draft.intervals()):
        last = i == grid.steps - 1
        first = draft.evaluate()
        euler = ddim(first, nxt)
        if not (first.at.finite and nxt.finite):
            append(euler, nxt, last)
            continue
        draft.append(euler, nxt)
        slope = (first.noise + draft.evaluate().noise) / 2
        y = first.x / first.at.alpha + (nxt.rho - first.at.rho) * slope
        append(nxt.alpha * y, nxt, last)
    return draft.tableau()
