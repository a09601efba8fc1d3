r"""Adams methods on the rectified flow, in which every schedule has the straight paths of flow
matching.

With s about the standard deviation of the data, the coordinates

.. math:: z = \frac{x}{\sigma + s \alpha}, \qquad u = \frac{\sigma}{\sigma + s \alpha} \in [0, 1]

turn the probability-flow ODE of any schedule into that of flow matching on data of unit scale
(Liu et al. 2022, https://arxiv.org/abs/2209.03003),

.. math:: \frac{dz}{du} = v = \varepsilon - D / s.

On data concentrated at one point v is constant, and it is finite at pure noise (u = 1) and at the
data (u = 0), so a multistep method crosses both ends of a grid at its full order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.phi import lagrange_weights
from samplers.schedule import Point
from samplers.tableau import Tableau

_SHARE = 0.5
"""Of the data's root mean square: the standard deviation of images in [-1, 1], as in EDM."""

_ENOUGH_STEPS = 12
"""From which order 4 errs less than order 3, see docs/benchmarks/defaults.md."""


def adams_bashforth_moulton(grid: Grid, order: int) -> Tableau:
    r"""Adams-Bashforth-Moulton of order 2 to 4 on the rectified flow, one evaluation a step.

    .. math:: z_t = z^c + \int_u^{u_t} P(w) \, dw, \qquad z^c_t = z^c + \int_u^{u_t} C(w) \, dw

    in the coordinates :math:`z = x / (\sigma + s \alpha)` and :math:`u = \sigma / (\sigma + s
    \alpha)`, with s half the ``data_scale`` of the schedule. P is the polynomial through the last
    ``order`` - 1 velocities :math:`v = \varepsilon - D / s`, and C the one through those and the
    velocity at z_t, which corrects the point before the next step starts from it.
    """
    if order not in (2, 3, 4):
        raise ValueError(f"Adams-Bashforth-Moulton has order 2, 3 or 4, not {order}.")
    s = _SHARE * grid.schedule.data_scale
    draft = Draft(grid)
    history: list[Evaluation] = []
    for now, nxt in draft.intervals():
        known = draft.evaluate(base=history[0].x if history else None)
        symbol = known.x
        if history:
            corrected = _integrated(history[0], [known, *history], now, s)
            known, symbol = known._replace(x=corrected), draft.append(corrected, now)
        usable = [known, *history[: order - 2]]
        draft.append(_integrated(known, usable, nxt, s), nxt)
        # Later rows address the corrected point itself.
        history = [known._replace(x=symbol), *usable[1:]]
    return draft.tableau()


def of_fitting_order(grid: Grid) -> Tableau:
    """:func:`adams_bashforth_moulton` of order 3 on grids of fewer than 12 steps, else of order
    4."""
    return adams_bashforth_moulton(grid, 3 if grid.steps < _ENOUGH_STEPS else 4)


def _integrated(start: Evaluation, known: list[Evaluation], end: Point, s: float) -> Combination:
    """x at ``end``, from ``start`` along the polynomial through the velocities of ``known``."""
    h = _u(end, s) - _u(start.at, s)
    nodes = [(_u(evaluation.at, s) - _u(start.at, s)) / h for evaluation in known]
    weights = lagrange_weights(nodes, torch.zeros_like(h))
    z = start.x / _size(start.at, s)
    for weight, evaluation in zip(weights, known, strict=True):
        z = z + weight * h * (evaluation.noise - evaluation.data / s)
    return _size(end, s) * z


def _size(at: Point, s: float) -> Tensor:
    return at.sigma + s * at.alpha


def _u(at: Point, s: float) -> Tensor:
    return at.sigma / _size(at, s)
