r"""The exact gradient of algebraically reversible samplers, at constant memory.

The backward pass solves every row for the point before it (:mod:`samplers.inversion`). The network
evaluation that this takes is recomputed for the gradient anyway, so only two points are saved. The
gradient inherits the rounding errors of the inversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.trajectory import Node, SampledRun, SavedPoints, TrajectoryAdjoint
from adjoint.base import AdjointCost
from samplers import inversion
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class ReversibleAdjoint(TrajectoryAdjoint):
    """Save the last two points only, and reconstruct the others in the backward pass.

    For O-BELM and BDIA with sigma_max below pure noise; ValueError for other samplers.
    """

    exact: ClassVar[bool] = True

    def refusal(self, tableau: Tableau) -> str | None:
        return inversion.refusal(tableau)

    def cost(self, tableau: Tableau) -> AdjointCost:
        count = tableau.calls
        return AdjointCost(count, count, count, samples=2, activations=1)

    def saved_rows(self, tableau: Tableau) -> set[int]:
        return {tableau.calls - 1, tableau.calls}

    def backward(
        self, run: SampledRun, saved: SavedPoints, gradient: Tensor, shared: SharedGradients
    ) -> Tensor:
        row = run.solver.tableau.calls
        state = State(row, (saved[row], saved[row - 1]), ())
        gradients = (gradient, torch.zeros_like(gradient))
        while state.row > 0:
            state, gradients = _backward_row(run, shared, state, gradients)
        return gradients[0]


_Gradients = tuple[Tensor, Tensor]
"""Of the two points of a state, the newest first."""


def _backward_row(
    run: SampledRun, shared: SharedGradients, state: State, gradients: _Gradients
) -> tuple[State, _Gradients]:
    """The state before ``state``, and the gradients of its two points."""
    x = inversion.came_from(state)
    node = Node(state.row - 1, run.solver.tableau.rows[state.row - 1].at)
    recorded = run.record(x, node, _reconstruction_error(run, x, node))
    output = recorded.outputs[0].detach()
    before = inversion.retreat(run.solver, state, output)
    of_x, of_older, of_output = _transposed(run.solver, before, output, gradients)
    product = recorded.accumulate_vjp((of_output,), shared)
    return before, (of_x if product is None else of_x + product, of_older)


def _reconstruction_error(run: SampledRun, x: Tensor, node: Node) -> float:
    """Of a point, relative; RuntimeError beyond the square root of its dtype's unit."""
    error = run.evaluations[node.row].past[0].moved(x)
    if error > torch.finfo(x.dtype).eps ** 0.5:
        raise RuntimeError(
            f"The sample reconstructed before row {node.row} deviates by {error:.1e} from that of "
            "the run, since rounding is amplified, and the gradient would deviate as much; take a "
            "smaller sigma_max, float64, or CheckpointAdjoint()."
        )
    return error


def _transposed(
    solver: Solver, state: State, output: Tensor, gradients: _Gradients
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
