r"""The reverse-time SDE, discretised step by step.

.. math:: dx = \Big[f x - \frac{1 + \eta}{2} g^2 s(x, t)\Big] dt + \sqrt{\eta} \, g \, d\bar w,
          \qquad s = -\varepsilon / \sigma

eta = 1 is Anderson's reverse SDE (Song et al. 2021, eq. 6, https://arxiv.org/abs/2011.13456),
eta = 0 the probability-flow ODE (eq. 13).

A :data:`Predictor` crosses one interval of the grid; :func:`reverse_sde` makes a sampler of it, and
:mod:`samplers.methods.predictor_corrector` adds Langevin steps in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from samplers.draft import Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.dpm_solver import check_eta
from samplers.methods.interval import ddim as ddim_step
from samplers.schedule import Point
from samplers.tableau import Tableau

Predictor = Callable[[Draft, Evaluation, Point, float], None]
"""``predictor(draft, known, nxt, eta)`` appends the point that leads from ``known`` to ``nxt``."""


def reverse_sde(grid: Grid, *, predictor: Predictor, eta: float = 1.0) -> Tableau:
    """The sampler that crosses every interval of the grid by a predictor."""
    check_eta(eta)
    draft = Draft(grid)
    for _, nxt in draft.intervals():
        predictor(draft, draft.evaluate(), nxt, eta)
    return draft.tableau()


Variance = Literal["small", "large"]


def ancestral_sampling(grid: Grid, *, eta: float = 1.0, variance: Variance = "small") -> Tableau:
    r"""Ancestral sampling: the posterior q(x' | x, x_0) at x_0 = D.

    .. math:: x' = \alpha' D + \sqrt{\sigma'^2 - s^2} \, \varepsilon + s' z, \qquad
              s = \eta \sigma' \sqrt{1 - (\sigma' \alpha / (\alpha' \sigma))^2}

    with s' = s for the variance ``small`` and s' = s sigma / sigma' for ``large``. The first is
    that of q(x' | x, x_0), right for data concentrated at one point, the second that of q(x | x'),
    right for data that are standard normal (Ho et al. 2020, section 3.2). They are ``fixed_small``
    and ``fixed_large`` of diffusers.
    """
    return reverse_sde(grid, predictor=partial(ancestral, variance=variance), eta=eta)


def euler_maruyama(draft: Draft, known: Evaluation, nxt: Point, eta: float) -> None:
    r"""Euler-Maruyama in the schedule's own time.

    .. math:: x' = x + \Big[f x + \frac{1 + \eta}{2} \frac{g^2}{\sigma} \varepsilon\Big] \Delta t
              + g \sqrt{\eta |\Delta t|} \, z

    A step that touches infinite log-SNR is DDIM's.
    """
    now, schedule = known.at, draft.grid.schedule
    if not (now.finite and nxt.finite):
        ddim(draft, known, nxt, eta)
        return
    dt = nxt.t - now.t
    drift = schedule.drift(now.t) * dt
    spread = schedule.diffusion_squared(now.t) * dt.abs()
    rate = (1 + eta) / 2 * spread / now.sigma
    x = (1 + drift) * known.x - rate * known.noise
    if eta:
        x = x + torch.sqrt(eta * spread) * draft.z_along(now.t, nxt.t)
    draft.append(x, nxt, _frozen_drift(now, nxt, drift, rate))


def reverse_diffusion(draft: Draft, known: Evaluation, nxt: Point, eta: float) -> None:
    r"""Reverse diffusion: the forward transition with its coefficients, in reverse.

    Forwards from ``nxt`` to ``now``, x = a x' + G z with a = alpha / alpha' and
    G^2 = sigma^2 - a^2 sigma'^2; backwards

    .. math:: x' = (2 - a) x + \frac{1 + \eta}{2} G^2 s + \sqrt{\eta} \, G z

    (Song et al. 2021, appendix E, eq. 46; algorithms 2 and 3 for VE and VP). A step that touches
    infinite log-SNR is DDIM's.
    """
    now = known.at
    if not (now.finite and nxt.finite):
        ddim(draft, known, nxt, eta)
        return
    a = now.alpha / nxt.alpha
    spread = now.sigma.square() - (a * nxt.sigma).square()
    rate = (1 + eta) / 2 * spread / now.sigma
    x = (2 - a) * known.x - rate * known.noise
    if eta:
        x = x + torch.sqrt(eta * spread) * draft.z_along(now.rho.square(), nxt.rho.square())
    draft.append(x, nxt, _frozen_drift(now, nxt, 1 - a, rate))


def ancestral(
    draft: Draft, known: Evaluation, nxt: Point, eta: float, variance: Variance = "small"
) -> None:
    r"""Ancestral sampling: the posterior q(x' | x, x_0) at x_0 = D.

    .. math:: x' = \alpha' D + \sqrt{\sigma'^2 - s^2} \, \varepsilon + s z, \qquad
              s = \eta \sigma' \sqrt{1 - (\sigma' \alpha / (\alpha' \sigma))^2}

    eta = 1 is DDPM with the posterior variance (Ho et al. 2020, eq. 6 and 7) and the ancestral
    Euler sampler of k-diffusion, eta = 0 is DDIM (Song et al. 2021, eq. 12 and 16). This is
    DDIM's eta: to first order its square scales the noise as eta does in the SDE samplers. It
    holds for every log-SNR, finite or not. With ``variance="large"`` the noise is sigma / sigma'
    times as large, where the log-SNR is finite.
    """
    now = known.at
    if nxt.clean:
        ddim(draft, known, nxt, eta)
        return
    s = posterior_noise(now, nxt, eta)
    x = nxt.alpha * known.data + torch.sqrt(nxt.sigma.square() - s.square()) * known.noise
    added = s * now.sigma / nxt.sigma if variance == "large" and now.finite else s
    if eta:
        x = x + added * draft.z_along(snr(now), snr(nxt))
    spread = torch.sqrt(nxt.sigma.square() + added.square() - s.square())
    excess = (spread - nxt.sigma) / (nxt.alpha + nxt.sigma)
    draft.append(x, nxt, float(excess.detach()) if variance == "large" else 0.0)


def ddim(draft: Draft, known: Evaluation, nxt: Point, eta: float) -> None:
    """DDIM as a predictor: the probability-flow ODE, whatever eta."""
    draft.append(ddim_step(known, nxt), nxt)


def none(draft: Draft, known: Evaluation, nxt: Point, eta: float) -> None:
    """No predictor: x is unchanged, and the corrector has to remove the excess noise.

    With a Langevin corrector this is annealed Langevin dynamics (Song and Ermon 2019, algorithm 1,
    https://arxiv.org/abs/1907.05600). A step that touches infinite log-SNR is DDIM's.
    """
    now = known.at
    if not (now.finite and nxt.finite):
        ddim(draft, known, nxt, eta)
        return
    excess = nxt.alpha * (now.rho - nxt.rho) / (nxt.alpha + nxt.sigma)
    draft.append(nxt.alpha / now.alpha * known.x, nxt, float(excess.detach()))


def posterior_noise(now: Point, nxt: Point, eta: float) -> Tensor:
    """The standard deviation s of the noise of an ancestral step; eta = 1: of q(x' | x, x_0)."""
    kept = nxt.sigma * now.alpha / (nxt.alpha * now.sigma)
    return eta * nxt.sigma * torch.sqrt(1 - kept.square())


def snr(point: Point) -> Tensor:
    """The signal-to-noise ratio, the time variable in which ancestral noise is a path."""
    return (point.alpha / point.sigma).square()


def _frozen_drift(now: Point, nxt: Point, drift: Tensor, rate: Tensor) -> float:
    """The local error of a constant drift: the square of its relative change over the step."""
    moved = float((nxt.lam - now.lam + drift.abs() + rate / now.sigma).detach())
    shrinks = float(((now.alpha + now.sigma) / (nxt.alpha + nxt.sigma)).detach())
    return moved * moved * max(1.0, shrinks)
