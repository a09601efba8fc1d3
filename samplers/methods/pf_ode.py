r"""The probability-flow ODE in the coordinates of EDM, and Runge-Kutta methods on it.

With ``y = x / alpha`` and ``rho = sigma / alpha`` the ODE is ``dy / drho = eps``
(Karras et al. 2022, eq. 1 and appendix B, https://arxiv.org/abs/2206.00364). Euler's method
on it is DDIM (Song et al. 2021, eq. 12 and 13, https://arxiv.org/abs/2010.02502).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from samplers.draft import Combination, Draft, Evaluation, Number
from samplers.grid import Grid
from samplers.methods.interval import ddim as ddim_step
from samplers.methods.interval import finite_intervals
from samplers.schedule import Point
from samplers.tableau import Tableau


class Butcher(NamedTuple):
    """A Butcher tableau: stage i is at c_i and has the coefficients in row i of a."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


MIDPOINT = Butcher(c=(0, 1 / 2), a=((), (1 / 2,)), b=(0, 1))
HEUN = Butcher(c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
CLASSICAL = Butcher(
    c=(0, 1 / 2, 1 / 2, 1),
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)


def ddim(grid: Grid) -> Tableau:
    r"""DDIM, which is Euler's method in rho and first-order DPM-Solver(++).

    .. math:: x_t = \alpha_t D + \sigma_t \varepsilon
    """
    draft = Draft(grid)
    for _, nxt in draft.intervals():
        draft.append(ddim_step(draft.evaluate(), nxt), nxt)
    return draft.tableau()


def heun(grid: Grid) -> Tableau:
    r"""Heun's method in rho: EDM's deterministic sampler (Karras et al. 2022, algorithm 1).

    .. math:: y_t = y + \frac{h}{2} \big[\varepsilon(y, \rho)
              + \varepsilon(y + h \, \varepsilon(y, \rho), \rho + h)\big], \qquad h = \rho_t - \rho

    A step that touches infinite log-SNR is DDIM's.
    """
    return runge_kutta(grid, HEUN)


def midpoint(grid: Grid) -> Tableau:
    r"""The explicit midpoint method in rho.

    .. math:: y_t = y + h \, \varepsilon\Big(y + \frac{h}{2} \varepsilon(y, \rho),
              \rho + \frac{h}{2}\Big), \qquad h = \rho_t - \rho

    A step that touches infinite log-SNR is DDIM's.
    """
    return runge_kutta(grid, MIDPOINT)


def rk4(grid: Grid) -> Tableau:
    r"""The classical Runge-Kutta method of fourth order in rho.

    .. math:: y_t = y + \frac{h}{6} (\varepsilon_1 + 2 \varepsilon_2 + 2 \varepsilon_3
              + \varepsilon_4), \qquad h = \rho_t - \rho

    with the slopes at y, twice at half of the step, and at its end. A step that touches infinite
    log-SNR is DDIM's.
    """
    return runge_kutta(grid, CLASSICAL)


def runge_kutta(grid: Grid, butcher: Butcher) -> Tableau:
    r"""Any explicit Runge-Kutta method on dy/drho = eps.

    .. math:: y_i = y + \Delta\rho \sum_j a_{ij} \varepsilon_j, \qquad
              y_t = y + \Delta\rho \sum_i b_i \varepsilon_i

    A step that touches infinite log-SNR is DDIM's.
    """
    draft = Draft(grid)
    for first, nxt in finite_intervals(draft):
        slopes = [first.noise]
        for c, a in zip(butcher.c[1:], butcher.a[1:], strict=True):
            stage = _at_rho(grid, first.at, nxt, c)
            draft.append(advance(first, slopes, a, nxt, stage), stage)
            slopes.append(draft.evaluate().noise)
        draft.append(advance(first, slopes, butcher.b, nxt, nxt), nxt)
    return draft.tableau()


def _at_rho(grid: Grid, now: Point, nxt: Point, c: float) -> Point:
    if c == 1:
        return nxt
    return grid.at_lam(-(now.rho + c * (nxt.rho - now.rho)).log())


def advance(
    first: Evaluation,
    slopes: list[Combination],
    weights: Sequence[Number],
    nxt: Point,
    at: Point,
) -> Combination:
    """x at ``at``, from the base of the step by weighted slopes over its whole length."""
    y = first.x / first.at.alpha
    for weight, slope in zip(weights, slopes, strict=True):
        y = y + weight * (nxt.rho - first.at.rho) * slope if weight else y
    return at.alpha * y
