r"""Ancestral sampling by a solver of second order: down to a lower noise level, then up by noise.

A step of the probability-flow ODE leads from x to the level sigma_down, and fresh noise from there
to the next level of the grid,

.. math:: x' = x_{down} + s z, \qquad \sigma_{down}^2 = \sigma'^2 - s^2, \qquad
          s = \eta \sigma' \sqrt{1 - (\sigma' \alpha / (\alpha' \sigma))^2},

with s as in :func:`samplers.methods.reverse_sde.ancestral`, which steps down by DDIM. A step
from or to infinite log-SNR is a DDIM step.
"""

from __future__ import annotations

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.dpm_solver import check_eta, constant
from samplers.methods.interval import Interval, finite_intervals
from samplers.methods.reverse_sde import posterior_noise, snr
from samplers.schedule import Point
from samplers.tableau import Tableau


def multistep_2(grid: Grid, eta: float = 1.0) -> Tableau:
    r"""The line through the last two predictions, integrated exactly down to sigma_down.

    .. math:: x' = \text{decay} \, x + \text{gain}_1 D_0
              + \text{gain}_2 \frac{h}{h'} (D_0 - D_1) + s z

    with the steps h and h' in the log-SNR to this and to the previous sigma_down. Without noise it
    is the multistep RES of Zhang et al. 2023, https://arxiv.org/abs/2308.02157.
    """
    check_eta(eta)
    draft = Draft(grid)
    older: tuple[Interval, Evaluation] | None = None
    for known, nxt in finite_intervals(draft):
        step = _down(known.at, nxt, eta)
        x = constant(step, known.x, known.data)
        if older is not None:
            before, known_before = older
            x = x + step.gain(2) * (step.h / before.h) * (known.data - known_before.data)
        _append(draft, x, known.at, nxt, eta)
        older = (step, known)
    return draft.tableau()


def _down(now: Point, nxt: Point, eta: float) -> Interval:
    """The step to sigma_down, at the scale alpha of the next point."""
    s = posterior_noise(now, nxt, eta)
    return Interval(now, nxt._replace(sigma=(nxt.sigma.square() - s.square()).sqrt()), "data")


def _append(draft: Draft, x: Combination, now: Point, nxt: Point, eta: float) -> None:
    """Append the next point, from ``x`` at sigma_down."""
    if eta:
        x = x + posterior_noise(now, nxt, eta) * draft.z_along(snr(now), snr(nxt))
    draft.append(x, nxt)
