r"""DEIS: exponential Adams-Bashforth methods in the log-SNR (Zhang and Chen 2023,
https://arxiv.org/abs/2204.13902), in noise and in data prediction.

A step integrates the polynomial through the last k predictions exactly. Its weights come from
:func:`samplers.phi.lagrange_weights`, in float64 and without the cancellation of indefinite
integrals.
"""

from __future__ import annotations

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.interval import Interval, Predicting, finite_intervals
from samplers.tableau import Tableau


def deis(
    grid: Grid, order: int, predicting: Predicting = "noise", lower_order_final: bool = False
) -> Tableau:
    r"""DEIS: exponential Adams-Bashforth of order 1 to 4.

    .. math:: x_t = \text{decay} \, x + \sum_{j=0}^{k-1} w_j f_j

    With noise prediction this is DEIS (log-rho). Order 1 is DPM-Solver(++) 1, and full steps of
    order 3 are those of 3M; its steps of order 2 have the midpoint rule instead. The first steps
    have lower order, and with ``lower_order_final`` so have the last.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"DEIS has order 1, 2, 3 or 4, not {order}.")
    draft = Draft(grid)
    history: list[Evaluation] = []
    for known, nxt in finite_intervals(draft):
        history = [known, *history[: order - 1]]
        usable = min(len(history), draft.steps_left if lower_order_final else order)
        step = Interval(known.at, nxt, predicting)
        draft.append(step.decay * known.x + integral(step, history[:usable]), nxt)
    return draft.tableau()


def integral(step: Interval, known: list[Evaluation]) -> Combination:
    """The step's integral of the polynomial through ``known``."""
    weights = step.weights([evaluation.at.lam for evaluation in known])
    terms = [weight * step.f(evaluation) for weight, evaluation in zip(weights, known, strict=True)]
    return sum(terms[1:], start=terms[0])
