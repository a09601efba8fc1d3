r"""Layer 5. Exact inversion of algebraically reversible samplers.

A row ``x' = A_0 x + A_1 x_1 + B D(x)`` with A_1 not 0 gives x_1 from x', x and the network's output
at x. So the initial noise of a finished sample is found with as many evaluations as the sample
took, exactly up to rounding. This takes the finished sample *and* the point before it, which the
last state of a run contains.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from samplers.prediction import to_data
from samplers.solve import Model, Solver, State
from samplers.tableau import Row, Tableau


def refusal(tableau: Tableau) -> str | None:
    """Why a sampler cannot be inverted exactly, as a sentence; None if it can."""
    if tableau.stochastic:
        return "This sampler is stochastic, so it can't be inverted; take o-belm or bdia."
    for number, row in enumerate(tableau.rows):
        if len(row.noise) != 1 or _uses(row, 2) or _older_predictions(row):
            return "This sampler can't be solved for the previous point; take o-belm or bdia."
        if number and not _uses(row, 1):
            return (
                f"Row {number} does not use the previous point, so it can't be inverted; take "
                "o-belm or bdia, from a sigma_max below pure noise."
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
    """The state before ``state``, from the network's output at ``came_from(state)``.

    The inverse of :meth:`samplers.solve.Solver.advance`. Earlier predictions are not known and set
    to zero.
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
    """The point at which the network was evaluated last."""
    return state.points[1]


def _coefficient(row: Row, lag: int) -> Tensor:
    return row.points[0, row.point_lags.index(lag)]


def run_back(solver: Solver, model: Model, state: State) -> Iterator[State]:
    """The states before ``state``, newest first, down to that of the initial noise.

    Raises ValueError, with the reason, for a sampler that cannot be inverted exactly.
    """
    reason = refusal(solver.tableau)
    if reason is not None:
        raise ValueError(reason)
    while state.row > 0:
        x = came_from(state)
        t = solver.tableau.rows[state.row - 1].at.t.to(x).expand(len(x))
        # The first row needs no evaluation: its previous point is the initial noise.
        output = model(x, t) if state.row > 1 else torch.zeros_like(x)
        state = retreat(solver, state, output)
        yield state
