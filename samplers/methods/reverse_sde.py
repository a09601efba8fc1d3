r"""The reverse-time SDE, discretised step by step.

.. math:: dx = \Big[f x - \frac{1 + \eta}{2} g^2 s(x, t)\Big] dt + \sqrt{\eta} \, g \, d\bar w,
          \qquad s = -\varepsilon / \sigma

eta = 1 is Anderson's reverse SDE (Song et al. 2021, eq. 6, https://arxiv.org/abs/2011.13456),
eta = 0 the probability-flow ODE (eq. 13).
"""

from __future__ import annotations

import torch

from samplers.draft import Draft
from samplers.grid import Grid
from samplers.methods.dpm_solver import check_eta
from samplers.methods.interval import ddim as ddim_step
from samplers.methods.interval import finite_intervals
from samplers.tableau import Tableau


def euler_maruyama(grid: Grid, eta: float = 1.0) -> Tableau:
    r"""Euler-Maruyama in the schedule's own time.

    .. math:: x' = x + \Big[f x + \frac{1 + \eta}{2} \frac{g^2}{\sigma} \varepsilon\Big] \Delta t
              + g \sqrt{\eta |\Delta t|} \, z

    A step that touches infinite log-SNR is DDIM's.
    """
    check_eta(eta)
    draft = Draft(grid)
    for known, nxt in finite_intervals(draft):
        now = known.at
        dt = nxt.t - now.t
        drift = grid.schedule.drift(now.t) * dt
        spread = grid.schedule.diffusion_squared(now.t) * dt.abs()
        rate = (1 + eta) / 2 * spread / now.sigma
        x = (1 + drift) * known.x - rate * known.noise
        x = x + torch.sqrt(eta * spread) * draft.z if eta else x
        # Freezing the drift errs by the square of what it moves, seen from the smaller end.
        moved = float((nxt.lam - now.lam + drift.abs() + rate / now.sigma).detach())
        shrinks = float(((now.alpha + now.sigma) / (nxt.alpha + nxt.sigma)).detach())
        draft.append(x, nxt, local_error=moved * moved * max(1.0, shrinks))
    return draft.tableau()


def ancestral(grid: Grid, eta: float = 1.0) -> Tableau:
    r"""Ancestral sampling: the posterior q(x' | x, x_0) at x_0 = D.

    .. math:: x' = \alpha' D + \sqrt{\sigma'^2 - s^2} \, \varepsilon + s z, \qquad
              s = \eta \sigma' \sqrt{1 - (\sigma' \alpha / (\alpha' \sigma))^2}

    eta = 1 is DDPM with the posterior variance (Ho et al. 2020, eq. 6 and 7) and the ancestral
    Euler sampler of k-diffusion, eta = 0 is DDIM (Song et al. 2021, eq. 12 and 16). This is
    DDIM's eta: to first order its square scales the noise as eta does in the SDE samplers. It
    holds for every log-SNR, finite or not.
    """
    check_eta(eta)
    draft = Draft(grid)
    for now, nxt in draft.intervals():
        known = draft.evaluate()
        if nxt.clean:
            draft.append(ddim_step(known, nxt), nxt)
            continue
        kept = nxt.sigma * now.alpha / (nxt.alpha * now.sigma)
        s = eta * nxt.sigma * torch.sqrt(1 - kept.square())
        x = nxt.alpha * known.data + torch.sqrt(nxt.sigma.square() - s.square()) * known.noise
        draft.append(x + s * draft.z if eta else x, nxt)
    return draft.tableau()
