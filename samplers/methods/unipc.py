r"""UniPC: a predictor and a corrector that share every network evaluation (Zhao et al. 2023,
https://arxiv.org/abs/2302.04867), in data or noise prediction.

The evaluation at the predicted point corrects it before the next prediction starts from it: a row
appends the corrected point, which is never evaluated, and the next predicted one.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from samplers.draft import Combination, Draft, Evaluation
from samplers.grid import Grid
from samplers.methods.deis import integral
from samplers.methods.interval import Interval, Predicting, ddim
from samplers.tableau import Tableau

Variant = Literal["b1", "b2"]


def unipc(
    grid: Grid,
    order: int,
    variant: Variant = "b2",
    predicting: Predicting = "data",
    lower_order_final: bool = True,
) -> Tableau:
    r"""UniPC-p, of order p + 1.

    .. math:: x_t = \text{decay} \, x^c + \int_0^h w(\tau) \, P(\tau) \, d\tau, \qquad
              x^c_t = \text{decay} \, x^c + \int_0^h w(\tau) \, C(\tau) \, d\tau

    with decay and w those of the exact solution (:mod:`samplers.methods.interval`). The predictor
    UniP-p integrates P, the polynomial through the last p predictions f, from the corrected point
    x^c. The corrector UniC-p integrates C, the one through those and the prediction at x_t. Where a
    single difference is left (UniP-2 and UniC-1) the paper sets its weight itself, so that the
    integral is

    .. math:: \text{gain}_1 f_0 + \frac{b}{2} \, \frac{f_1 - f_0}{r}

    with f_1 predicted at the fraction r of the step, and b from ``B(h) = e^h - 1``, which is
    gain_1 (``b2``), or from ``B(h) = h``, which is alpha_t h in data prediction and -sigma_t h in
    noise prediction (``b1``).
    """
    if order not in (1, 2, 3):
        raise ValueError(f"UniPC has order 1, 2 or 3, not {order}.")
    if variant not in ("b1", "b2"):
        raise ValueError(f"UniPC's B(h) is 'b1' or 'b2', not {variant!r}.")
    draft = Draft(grid)
    history: list[Evaluation] = []
    before: tuple[Interval, Combination] | None = None
    for i, (now, nxt) in enumerate(draft.intervals()):
        known = draft.evaluate(base=None if before is None else before[1])
        x = corrected = known.x
        if before is not None:
            crossed, base = before
            x = crossed.decay * base + _correction(crossed, known, history, variant)
            corrected = draft.append(x, now)
        if not (now.finite and nxt.finite):
            draft.append(ddim(known._replace(x=x), nxt), nxt)
            history, before = [], None
            continue
        step = Interval(now, nxt, predicting)
        kept = [known, *history[: order - 1]]
        history = kept[: grid.steps - i] if lower_order_final else kept
        draft.append(step.decay * x + _prediction(step, history, variant), nxt)
        before = (step, corrected)
    return draft.tableau()


def _prediction(step: Interval, history: list[Evaluation], variant: Variant) -> Combination:
    """UniP: from the newest predictions."""
    if len(history) != 2:
        return integral(step, history)
    newest, older = history
    r = (older.at.lam - newest.at.lam) / step.h
    slope = (step.f(older) - step.f(newest)) / r
    return step.gain(1) * step.f(newest) + _half_b(step, variant) * slope


def _correction(
    step: Interval, new: Evaluation, history: list[Evaluation], variant: Variant
) -> Combination:
    """UniC: as many predictions as the predictor had, and the new one."""
    if len(history) != 1:
        return integral(step, [new, *history])
    start = history[0]
    slope = step.f(new) - step.f(start)
    return step.gain(1) * step.f(start) + _half_b(step, variant) * slope


def _half_b(step: Interval, variant: Variant) -> Tensor:
    """Half of the step's scale times B(h)."""
    if variant == "b2":
        return step.gain(1) / 2
    scale = step.nxt.alpha if step.predicting == "data" else -step.nxt.sigma
    return scale * step.h / 2
