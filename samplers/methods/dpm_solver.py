r"""DPM-Solver (noise prediction) and DPM-Solver++ (data prediction), single- and multistep, with
their SDE versions (Lu et al. 2022, https://arxiv.org/abs/2206.00927 and
https://arxiv.org/abs/2211.01095).

Every step is a Taylor expansion of the exact solution in :mod:`samplers.methods.interval`;
``f`` is the prediction, D or eps, and ``gain(k)`` the exact weight of its (k-1)-th derivative. A
step from or to infinite log-SNR is a DDIM step, and such a point is not used by later steps.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal, Protocol, Self, TypeVar

from torch import Tensor

from samplers.draft import Combination, Draft, Evaluation, Number
from samplers.grid import Grid
from samplers.methods.interval import Interval, Predicting, finite_intervals
from samplers.tableau import Tableau

SecondOrder = Literal["midpoint", "exact"]
ThirdOrder = Literal["corrected", "reference"]


class Weights(Protocol):
    """The interface of the exact weights of one step, such as an :class:`Interval`."""

    @property
    def decay(self) -> Tensor: ...

    def gain(self, k: int) -> Tensor: ...


class Linear(Protocol):
    """The interface of what can be combined linearly: symbols of a draft, or states of a batch."""

    def __add__(self, other: Self) -> Self: ...
    def __sub__(self, other: Self) -> Self: ...
    def __rmul__(self, factor: Number) -> Self: ...
    def __truediv__(self, divisor: Number) -> Self: ...


L = TypeVar("L", bound=Linear)


def constant(step: Weights, x: L, f: L) -> L:
    r"""The step for constant f: ``decay x + gain_1 f``, which is DDIM."""
    return step.decay * x + step.gain(1) * f


def midpoint(step: Weights, x: L, f: L, f_r: L, r: float) -> L:
    r"""``decay x + gain_1 [f + (f_r - f) / 2 r]``, f_r predicted at a fraction r of the step."""
    return step.decay * x + step.gain(1) * (f + (f_r - f) / (2 * r))


def linear(step: Weights, x: L, f: L, f_r: L, r: float) -> L:
    r"""``decay x + gain_1 f + gain_2 (f_r - f) / r``: exact if f is linear in lam."""
    return step.decay * x + step.gain(1) * f + step.gain(2) * (f_r - f) / r


def singlestep_2(
    grid: Grid,
    predicting: Predicting = "data",
    r: float = 0.5,
    second_order: SecondOrder = "midpoint",
) -> Tableau:
    r"""Second-order singlestep solver, one stage at ``lam + r h``.

    .. math:: x_t = \text{decay} \, x + \text{gain}_1 \Big[f + \frac{f_r - f}{2 r}\Big]

    with f predicted at x and f_r at the stage: DPM-Solver-2 and DPM-Solver++(2S), algorithm 1 of
    each paper. With ``second_order="exact"``, the exact integral of the line through both,

    .. math:: x_t = \text{decay} \, x + \text{gain}_1 f + \frac{1}{r} \text{gain}_2 (f_r - f),

    it fulfils the conditions of order for stiff equations, too: singlestep RES (Zhang et al. 2023,
    https://arxiv.org/abs/2308.02157) with c_2 = r, which is the exponential Heun method if r is 1.
    """
    check_stages(r)
    combine = linear if second_order == "exact" else midpoint
    draft = Draft(grid)
    for first, nxt in finite_intervals(draft):
        step = Interval(first.at, nxt, predicting)
        x, f = first.x, step.f(first)
        part = part_of(grid, step, r)
        f_r = _evaluate(draft, part, constant(part, x, f))
        draft.append(combine(step, x, f, f_r, r), nxt)
    return draft.tableau()


def singlestep_3(
    grid: Grid, predicting: Predicting = "data", r1: float = 1 / 3, r2: float = 2 / 3
) -> Tableau:
    r"""Third-order singlestep solver, stages at ``lam + r1 h`` and ``lam + r2 h``.

    .. math:: x_{r2} = \text{decay} \, x + \text{gain}_1 f
       + \frac{r_2}{r_1} \text{gain}_2 (f_{r1} - f), \qquad
       x_t = \text{decay} \, x + \text{gain}_1 f + \frac{1}{r_2} \text{gain}_2 (f_{r2} - f)

    DPM-Solver-3 (algorithm 2) and its DPM-Solver++ counterpart (3S).
    """
    check_stages(r1, r2)
    draft = Draft(grid)
    for first, nxt in finite_intervals(draft):
        step = Interval(first.at, nxt, predicting)
        x, f = first.x, step.f(first)
        part_1, part_2 = part_of(grid, step, r1), part_of(grid, step, r2)
        f_1 = _evaluate(draft, part_1, constant(part_1, x, f))
        f_2 = _evaluate(draft, part_2, linear(part_2, x, f, f_1, r1 / r2))
        draft.append(linear(step, x, f, f_2, r2), nxt)
    return draft.tableau()


def part_of(grid: Grid, step: Interval, r: float) -> Interval:
    """The interval of the first fraction r of a step."""
    nxt = step.nxt if r == 1 else grid.at_lam(step.now.lam + r * step.h)
    return replace(step, nxt=nxt)


def _evaluate(draft: Draft, part: Interval, x: Combination) -> Combination:
    """Append the stage x at the end of ``part``, and evaluate f there."""
    draft.append(x, part.nxt)
    return part.f(draft.evaluate())


def multistep(
    grid: Grid,
    order: int,
    predicting: Predicting = "data",
    eta: float = 0.0,
    second_order: SecondOrder = "midpoint",
    third_order: ThirdOrder = "corrected",
    lower_order_final: bool = False,
) -> Tableau:
    r"""Multistep DPM-Solver(++) of order 1, 2 or 3 (2M, 3M); ``eta`` = 1 is the SDE version.

    With the predictions f_0 at x = x_s, f_1 at the point before it (D in data prediction, eps in
    noise prediction), and the steps h = lam_t - lam_s and h' before it, second order is

    .. math:: x_t = \text{decay} \, x
       + \text{gain}_1 \Big[f_0 + \frac{h}{2 h'} (f_0 - f_1)\Big] + \text{noise} \, z,

    in data prediction without noise, which is DPM-Solver++(2M) (Lu et al. 2022, algorithm 2),

    .. math:: x_t = \frac{\sigma_t}{\sigma_s} x - \alpha_t (e^{-h} - 1)
       \Big[D_0 + \frac{h}{2 h'} (D_0 - D_1)\Big],

    or, with ``second_order="exact"``, the exact integral of the line through both predictions, as
    in multistep RES (Zhang et al. 2023, https://arxiv.org/abs/2308.02157) and in MR Sampler (Li et
    al. 2025, https://arxiv.org/abs/2502.07856):

    .. math:: x_t = \text{decay} \, x
       + \text{gain}_1 f_0 + \text{gain}_2 \frac{h}{h'} (f_0 - f_1) + \text{noise} \, z

    Third order, with the derivatives f', f'' of the parabola through three predictions:

    .. math:: x_t = \text{decay} \, x + \text{gain}_1 f_0 + \text{gain}_2 h f'
       + \text{gain}_3 h^2 f'' + \text{noise} \, z

    The published codes put half of h^2 f'' there, which makes them second order:
    ``third_order="reference"`` does the same, for parity. The first steps have lower order, and
    with ``lower_order_final`` so have the last: step i of n has at most order n - i.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"A multistep DPM-Solver has order 1, 2 or 3, not {order}.")
    check_eta(eta)
    draft = Draft(grid)
    history: list[Evaluation] = []
    for known, nxt in finite_intervals(draft):
        step = Interval(known.at, nxt, predicting, eta)
        history = [known, *history[: order - 1]]
        usable = min(len(history), draft.steps_left if lower_order_final else order)
        x = step.decay * known.x + _taylor(step, history[:usable], second_order, third_order)
        if eta:
            x = x + step.noise * draft.z_along(step.clock(known.at), step.clock(nxt))
        draft.append(x, nxt, usable * step.local_error)
    return draft.tableau()


def _taylor(
    step: Interval,
    history: list[Evaluation],
    second_order: SecondOrder,
    third_order: ThirdOrder,
) -> Combination:
    """The step's integral of f, from the newest predictions."""
    f = [step.f(known) for known in history]
    h = _backward_steps(history)
    match f:
        case [f0]:
            return step.gain(1) * f0
        case [f0, f1] if second_order == "exact":
            return step.gain(1) * f0 + step.gain(2) * (f0 - f1) * (step.h / h[0])
        case [f0, f1]:
            return step.gain(1) * (f0 + (f0 - f1) * (step.h / (2 * h[0])))
        case _:
            slope0, slope1 = (f[0] - f[1]) / h[0], (f[1] - f[2]) / h[1]
            second = 2 * (slope0 - slope1) / (h[0] + h[1])
            slope = slope0 + second * (h[0] / 2)
            half = 0.5 if third_order == "reference" else 1.0
            return (
                step.gain(1) * f[0]
                + step.gain(2) * step.h * slope
                + half * step.gain(3) * step.h.square() * second
            )


def _backward_steps(history: list[Evaluation]) -> list[Tensor]:
    lams = [known.at.lam for known in history]
    return [newer - older for newer, older in pairwise(lams)]


def check_eta(eta: float) -> None:
    """Raise ValueError unless ``eta`` is a share of the reverse SDE's noise."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; it must lie between 0 (the ODE) and 1 (the reverse SDE).")


def check_stages(*fractions: float) -> None:
    """Raise ValueError unless the fractions of a step rise and lie in it."""
    if not all(a < b for a, b in pairwise((0, *fractions))) or fractions[-1] > 1:
        raise ValueError(
            f"The stages lie at {', '.join(map(str, fractions))} of a step; "
            "they must rise and stay between 0 and 1."
        )
