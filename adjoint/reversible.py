r"""The exact gradient of samplers that can be solved for their oldest point.

On the way back every row is solved for the point before it (:mod:`samplers.inversion`). The network
call that this takes is made again for the gradient anyway, so nothing is kept but two points. What
the solving rounds, the gradient inherits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adjoint.base import Cost
from adjoint.shared import Shared
from adjoint.whole import Kept, Way, Whole
from samplers import inversion
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Reversible(Whole):
    """Keep the last two points only, and find the others on the way back.

    For O-BELM and BDIA, from below pure noise; ValueError for other samplers.
    """

    exact: ClassVar[bool] = True

    def refusal(self, tableau: Tableau) -> str | None:
        return inversion.refusal(tableau)

    def cost(self, tableau: Tableau) -> Cost:
        calls = tableau.calls
        return Cost(calls, calls, calls, samples=2, activations=1)

    def keeps(self, tableau: Tableau) -> set[int]:
        return {tableau.calls - 1, tableau.calls}

    def back(self, way: Way, kept: Kept, gradient: Tensor, shared: Shared) -> Tensor:
        row = way.solver.tableau.calls
        state = State(row, (kept[row], kept[row - 1]), ())
        gradients = (gradient, torch.zeros_like(gradient))
        while state.row > 0:
            state, gradients = _back(way, shared, state, gradients)
        return gradients[0]


Pair = tuple[Tensor, Tensor]


def _back(way: Way, shared: Shared, state: State, gradients: Pair) -> tuple[State, Pair]:
    """The state before, and the gradients of its two points from those of the given one."""
    x = inversion.came_from(state)
    recorded = way.record(x, way.solver.tableau.rows[state.row - 1].at)
    output = recorded.outputs[0].detach()
    before = inversion.retreat(way.solver, state, output)
    of_x, of_older, of_output = _transposed(way.solver, before, output, gradients)
    product = recorded.product((of_output,), shared)
    return before, (of_x if product is None else of_x + product, of_older)


def _transposed(
    solver: Solver, state: State, output: Tensor, gradients: Pair
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a row's two points and of the network's output."""
    leaves = [t.detach().requires_grad_() for t in (*state.points, output)]
    with torch.enable_grad():
        after = solver.advance(State(state.row, tuple(leaves[:2]), ()), leaves[2])
    found = torch.autograd.grad(after.points, leaves, gradients, allow_unused=True)
    x, older, of_output = (
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    )
    return x, older, of_output
