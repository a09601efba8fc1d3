r"""Linear multistep methods on the probability-flow ODE: one evaluation a step, and the slopes of
the steps before.

With y = x / alpha, rho = sigma / alpha and ``dy / drho = eps`` (Karras et al. 2022, eq. 1,
https://arxiv.org/abs/2206.00364) a step is

.. math:: y_t = y + h \sum_j w_j \varepsilon_j, \qquad h = \rho_t - \rho

with eps_0 the newest slope. A method is its weights, a function of the nodes (rho_j - rho) / h; 0
is the beginning of the step, and 1 its end. A step that touches infinite log-SNR is DDIM's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from samplers.checks import check_at_most, check_whole
from samplers.draft import Draft, Evaluation, Number
from samplers.grid import Grid
from samplers.methods.interval import finite_intervals
from samplers.methods.pf_ode import advance
from samplers.phi import lagrange_weights
from samplers.tableau import Tableau

_Weights = Callable[[list[Tensor]], Sequence[Number]]

_EQUAL_STEPS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The weights of Adams-Bashforth, by order, for steps of equal length in rho."""


def adams_bashforth(grid: Grid, order: int) -> Tableau:
    r"""Adams-Bashforth in rho, order 2 to 4: the linear multistep method (LMS) of k-diffusion.

    .. math:: y_t = y + \int_\rho^{\rho_t} p(r) \, dr

    with p the polynomial through the last ``order`` slopes eps. A step that touches infinite
    log-SNR is DDIM's: k-diffusion and diffusers extrapolate p to sigma = 0, where the last
    interval is the longest in log-SNR by far, so that their error grows with the number of steps.
    """
    if order not in (2, 3, 4):
        raise ValueError(f"Adams-Bashforth in rho has order 2, 3 or 4, not {order}.")
    return _multistep(grid, order, _exact)


def ipndm(grid: Grid, max_order: int = 4) -> Tableau:
    r"""iPNDM: the weights of Adams-Bashforth for equal steps, whatever the steps.

    .. math:: y_t = y + \frac{h}{24} (55 \varepsilon_0 - 59 \varepsilon_1 + 37 \varepsilon_2
              - 9 \varepsilon_3)

    and those of lower order in the first steps; ``max_order`` from 1, DDIM, to 4. It has this order
    if the grid is even in rho = sigma / alpha, order 2 if its steps change gradually, as on
    ``log-snr``, and order 1 on any other grid.
    """
    check_whole("max_order", max_order)
    check_at_most("max_order", max_order, len(_EQUAL_STEPS))
    return _multistep(grid, max_order, lambda nodes: _EQUAL_STEPS[len(nodes) - 1])


def gradient_estimation(grid: Grid, gamma: float = 2.0) -> Tableau:
    r"""The gradient-estimation sampler: DDIM along an extrapolated eps.

    .. math:: y_t = y + h \big[\gamma \, \varepsilon_0 + (1 - \gamma) \, \varepsilon_1\big]

    (Permenter and Yuan 2024, https://arxiv.org/abs/2306.04848). It is DDIM if gamma is 1, and the
    Adams-Bashforth method for two equal steps if it is 3/2; all others are of first order.
    """
    if not 1 <= gamma < float("inf"):
        raise ValueError(f"gamma is {gamma}; gradient estimation needs a number of at least 1.")
    weights = ((1.0,), (gamma, 1 - gamma))
    return _multistep(grid, 2, lambda nodes: weights[len(nodes) - 1])


def _multistep(grid: Grid, count: int, weights: _Weights) -> Tableau:
    """The method with these ``weights`` of the last ``count`` slopes."""
    draft = Draft(grid)
    history: list[Evaluation] = []
    for known, nxt in finite_intervals(draft):
        history = [known, *history[: count - 1]]
        h = nxt.rho - known.at.rho
        nodes = [(past.at.rho - known.at.rho) / h for past in history]
        slopes = [past.noise for past in history]
        draft.append(advance(known, slopes, weights(nodes), nxt, nxt), nxt)
    return draft.tableau()


def _exact(nodes: list[Tensor]) -> list[Tensor]:
    """Of the integral of the polynomial through the slopes."""
    return lagrange_weights(nodes, torch.zeros_like(nodes[0]))
