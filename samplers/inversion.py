r"""Layer 5. The way back of samplers that can be solved for their oldest point.

A row ``x' = A_0 x + A_1 x_1 + B D(x)`` with A_1 not 0 gives x_1 from x', x and the network's output
at x, so the starting noise of a finished sample is found with as many calls as the sample took, and
without an error but for rounding. What it takes is the finished sample *and* the point before it,
as the last state of a run holds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from samplers.prediction import to_data
from samplers.solve import Model, Solver, State
from samplers.tableau import Row, Tableau


def refusal(tableau: Tableau) -> str | None:
    """Why a sampler has no exact way back, as a sentence; None if it has."""
    if tableau.stochastic:
        return "This sampler draws noise, so it has no way back."
    for number, row in enumerate(tableau.rows):
        if len(row.noise) != 1 or _uses(row, 2) or _older_predictions(row):
            return "This sampler can't be solved for its oldest point; take o-belm or bdia."
        if number and not _uses(row, 1):
            return (
                f"Row {number} forgets the point before it, so there is no way back; take o-belm "
                "or bdia, from a sigma_max below pure noise."
            )
    return None


def _uses(row: Row, lag: int) -> bool:
    """Whether the row uses a point of this lag or an older one."""
    used = (row.points != 0).any(dim=0).tolist()
    return any(own >= lag and use for own, use in zip(row.point_lags, used, strict=True))


def _older_predictions(row: Row) -> bool:
    used = (row.predictions != 0).any(dim=0).tolist()
    return any(lag > 0 and use for lag, use in zip(row.prediction_lags, used, strict=True))


def retreat(solver: Solver, state: State, output: Tensor) -> State:
    """The state before ``state``, from the network's output at the point that it comes from.

    The inverse of :meth:`samplers.solve.Solver.advance`. That point is ``came_from(state)``; what
    was predicted earlier is not known, and is zero.
    """
    row = solver.tableau.rows[state.row - 1]
    newest, x = state.points[:2]
    older = torch.zeros_like(x)
    if state.row > 1:
        of_x, of_output = (number.to(x) for number in to_data(solver.prediction, row.at))
        data = of_x * x + of_output * output.to(x.dtype)
        data = data if solver.correct is None else solver.correct(data)
        known = _coefficient(row, 0).to(x) * x + row.predictions[0, 0].to(x) * data
        older = (newest - known) / _coefficient(row, 1).to(x)
    nothing = tuple(torch.zeros_like(x) for _ in state.predictions)
    return State(state.row - 1, (x, older), nothing)


def came_from(state: State) -> Tensor:
    """The point at which the network was asked last."""
    return state.points[1]


def _coefficient(row: Row, lag: int) -> Tensor:
    return row.points[0, row.point_lags.index(lag)]


def run_back(solver: Solver, model: Model, state: State) -> Iterator[State]:
    """Every state before ``state``, back to the one that holds the starting noise.

    Raises ValueError, with the reason, for a sampler that has no way back.
    """
    reason = refusal(solver.tableau)
    if reason is not None:
        raise ValueError(reason)
    while state.row > 0:
        x = came_from(state)
        t = solver.tableau.rows[state.row - 1].at.t.to(x).expand(len(x))
        # The first row needs no call: the point before its end is where it began.
        output = model(x, t) if state.row > 1 else torch.zeros_like(x)
        state = retreat(solver, state, output)
        yield state
