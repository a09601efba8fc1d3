r"""Algebraically reversible two-step methods: exact inversion, one evaluation per step.

A step from x_i, with x_{i+1} the point before it, is

.. math:: x_{i-1} = a \, x_{i+1} + b \, x_i + c \, D(x_i), \qquad a \neq 0

so x_{i+1} follows from the two newer points and the network's output at the newer of them
(:mod:`samplers.inversion`). The first step has no point before it, and is DDIM's. So is a step from
pure noise, which cannot be inverted.
"""

from __future__ import annotations

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.interval import ddim
from samplers.tableau import Tableau


def o_belm(grid: Grid) -> Tableau:
    r"""O-BELM: the leapfrog of ``y = x / alpha``, ``rho = sigma / alpha``, for steps of any length.

    .. math:: y_{i-1} = r^2 \, y_{i+1} + (1 - r^2) \, y_i + h (1 + r) \, \varepsilon(x_i),
        \qquad h = \rho_{i-1} - \rho_i, \quad r = h / h'

    with h' the step before. Among two-step methods with a single slope it alone is exact for
    quadratic y (Wang et al. 2024, BELM, https://arxiv.org/abs/2410.07273).
    """
    draft, older = Draft(grid), None
    for now, nxt in draft.intervals():
        known = draft.evaluate()
        x = ddim(known, nxt)
        if older is not None:
            h = nxt.rho - now.rho
            r = h / (now.rho - older.at.rho)
            y = r.square() * older.x / older.at.alpha + (1 - r.square()) * known.x / now.alpha
            x = nxt.alpha * (y + h * (1 + r) * known.noise)
        draft.append(x, nxt)
        older = None if now.pure_noise else known
    return draft.tableau()


def bdia(grid: Grid, gamma: float = 1.0) -> Tableau:
    r"""BDIA-DDIM: a DDIM step, plus the error of the DDIM step back to the previous point.

    .. math:: x_{i-1} = \mathrm{ddim}(x_i \to t_{i-1})
        + \gamma \, \big[x_{i+1} - \mathrm{ddim}(x_i \to t_{i+1})\big]

    (Zhang et al. 2023, https://arxiv.org/abs/2307.10829). gamma: from 0, DDIM, to 1.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}; BDIA needs one above 0 and at most 1.")
    draft: Draft = Draft(grid)
    older: Evaluation | None = None
    for now, nxt in draft.intervals():
        known = draft.evaluate()
        x: Combination = ddim(known, nxt)
        if older is not None:
            x = x + gamma * (older.x - ddim(known, older.at))
        draft.append(x, nxt)
        older = None if now.pure_noise else known
    return draft.tableau()
