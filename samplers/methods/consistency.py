r"""Samplers of distilled networks: a jump along the trajectory, then fresh noise.

A consistency function f(x, t) takes a noised sample to the clean end of its trajectory, where a
denoiser takes it to the mean of the data; a trajectory consistency function takes it to any earlier
point. One evaluation is a sample; further ones start from it with fresh noise. With a denoiser
instead they are biased, so they have no order as methods for the probability-flow ODE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.draft import Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.interval import ddim
from samplers.schedule import Point, Schedule, VPDiscrete
from samplers.tableau import Tableau

# sigma_data of the boundary condition, a constant in LCM's code.
_SIGMA_DATA = 0.5


def lcm(grid: Grid, *, timestep_scaling: float | None = None) -> Tableau:
    r"""Multistep consistency sampling: the jump to the data, noised to the next level.

    .. math:: x' = \alpha' f + \sigma' z, \qquad f = c_{skip} \, x + c_{out} D

    (Song et al. 2023, algorithm 1, with epsilon = 0; Luo et al. 2023, algorithm 2.)

    Args:
        timestep_scaling: a in the boundary condition, ``c_skip = s^2 / (a^2 t^2 + s^2)`` and
            ``c_out = a t / sqrt(a^2 t^2 + s^2)`` with s = 0.5, which makes f(x, 0) = x; t is as
            the schedule counts it. 10 in LCM's code; None for f = D.
    """
    if timestep_scaling is not None and not timestep_scaling > 0:
        raise ValueError(f"timestep_scaling is {timestep_scaling}; it must be positive.")
    draft = Draft(grid)
    for now, nxt in draft.intervals():
        known = draft.evaluate()
        skip, out = _boundary(now, timestep_scaling)
        jump = out * known.data if timestep_scaling is None else skip * known.x + out * known.data
        x = nxt.alpha * jump
        draft.append(x if nxt.clean else x + nxt.sigma * draft.z, nxt, _missed(now, nxt, skip, out))
    return draft.tableau()


def consistency(grid: Grid) -> Tableau:
    r"""Multistep consistency sampling: the jump to the cleanest trained level, noised to the next.

    .. math:: x' = \alpha' f + \sqrt{\sigma'^2 - (\alpha' \rho_{min})^2} \, z

    with rho = sigma / alpha (Song et al. 2023, algorithm 1; rho_min is its epsilon). The last jump
    is the sample.
    """
    draft = Draft(grid)
    floor = grid.schedule.cleanest.rho
    for _, nxt in draft.intervals():
        x = nxt.alpha * draft.evaluate().data
        noise = torch.sqrt((nxt.sigma.square() - (nxt.alpha * floor).square()).clamp(min=0))
        lacking = float(((nxt.sigma - noise) / (nxt.alpha + nxt.sigma)).detach())
        draft.append(x if nxt.clean else x + noise * draft.z, nxt, lacking)
    return draft.tableau()


def tcd(grid: Grid, *, gamma: float = 0.3) -> Tableau:
    r"""Strategic stochastic sampling: the jump to s, noised to the next level.

    .. math:: x_s = \alpha_s D + \sigma_s \varepsilon, \qquad
              x' = \frac{\alpha'}{\alpha_s} x_s
              + \sqrt{\sigma'^2 - (\alpha' \sigma_s / \alpha_s)^2} \, z

    with s at the fraction 1 - gamma of the next level's, in the trained range of times, rounded
    down to a trained step on a discrete schedule (Zheng et al. 2024, algorithm 4).

    Args:
        gamma: the share of noise, from 0 (DDIM) to 1 (all of it); ``eta`` in diffusers.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is {gamma}; it must be between 0 and 1.")
    draft = Draft(grid)
    for _, nxt in draft.intervals():
        _jump(draft, draft.evaluate(), nxt, gamma)
    return draft.tableau()


def _jump(draft: Draft, known: Evaluation, nxt: Point, gamma: float) -> None:
    if gamma == 0 or nxt.clean:
        draft.append(ddim(known, nxt), nxt)
        return
    s = _destination(draft.grid.schedule, nxt, gamma)
    scale = nxt.alpha / s.alpha
    noise = torch.sqrt((nxt.sigma.square() - (scale * s.sigma).square()).clamp(min=0))
    draft.append(scale * ddim(known, s) + noise * draft.z, nxt)


def _destination(schedule: Schedule, nxt: Point, gamma: float) -> Point:
    t = schedule.at_fraction((1 - gamma) * schedule.fraction(nxt.t).clamp(min=0))
    # 0.7 * 10 rounds to less than 7, which is trained step 7 all the same.
    return schedule.point((t + 1e-9).floor() if isinstance(schedule, VPDiscrete) else t)


def _boundary(now: Point, scaling: float | None) -> tuple[Tensor, Tensor]:
    if scaling is None:
        return torch.zeros_like(now.t), torch.ones_like(now.t)
    scaled = scaling * now.t
    norm = scaled.square() + _SIGMA_DATA**2
    return _SIGMA_DATA**2 / norm, scaled / norm.sqrt()


def _missed(now: Point, nxt: Point, skip: Tensor, out: Tensor) -> float:
    """How far f is from the data where D is exact, which is the price of f(x, 0) = x."""
    off = (out - 1 + skip * now.alpha).abs() + skip * now.sigma
    return float((nxt.alpha * off / (nxt.alpha + nxt.sigma)).detach())
