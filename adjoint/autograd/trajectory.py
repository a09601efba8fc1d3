"""Adjoints that make a whole run one node of autograd's graph.

The run is made without a graph and attached as a single node. Such an adjoint saves the points at
some rows of the tableau, and finds all else from them in the backward pass.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.evaluation import NetworkEvaluation, RecordedEvaluation, record, record_first
from adjoint.autograd.recompute import refuse_second_derivative
from adjoint.base import AbstractAdjoint, without_graph
from samplers.sampling import checked
from samplers.schedule import Point
from samplers.solve import Solver, State
from samplers.tableau import Tableau

SavedPoints = Mapping[int, Tensor]
"""Points by the row that evaluates them; the finished sample by the number of rows."""


class SampledRun(NamedTuple):
    """What determines the points of a run, but for its initial noise."""

    solver: Solver
    network: Callable[..., Tensor]
    conditions: tuple[Tensor, ...]

    def evaluation(self, x: Tensor, at: Point) -> NetworkEvaluation:
        """The network evaluation at a point."""
        t = at.t.to(x).expand(len(x))
        return NetworkEvaluation.of(self.network, (x, t, *self.conditions), {}, split=1)[0]

    def record(self, x: Tensor, at: Point) -> RecordedEvaluation:
        """The evaluation with its graph."""
        return record(self.evaluation(x, at), x, requires_grad=True)


class TrajectoryAdjoint(AbstractAdjoint):
    """An adjoint with one backward function for the whole run."""

    @abc.abstractmethod
    def saved_rows(self, tableau: Tableau) -> set[int]:
        """The rows whose points are saved for the backward pass."""

    @abc.abstractmethod
    def backward(
        self, run: SampledRun, saved: SavedPoints, gradient: Tensor, shared: SharedGradients
    ) -> Tensor:
        """The gradient of the initial noise from that of the finished sample.

        Products for what the evaluations share are added to ``shared``.
        """

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        self.check(solver.tableau)
        if state.row != 0:
            raise ValueError(
                f"The run begins at row {state.row}, but {self} backpropagates to row 0; begin "
                "there, or take CheckpointAdjoint()."
            )
        network = checked(model, solver)
        if not torch.is_grad_enabled():
            yield from solver.run(lambda x, t: network(x, t, *conditions), state)
            return
        run, start = SampledRun(solver, model, tuple(conditions)), state.x
        first = run._replace(network=network).evaluation(start, solver.tableau.rows[0].at)
        recorded, shared = record_first(first, start, keep=False)
        rows = self.saved_rows(solver.tableau)
        saved = {0: start} if 0 in rows else {}
        with torch.no_grad():
            state = solver.advance(state, recorded.outputs[0])
        states = solver.run(lambda x, t: network(x, t, *conditions), state)
        for following in without_graph(states):
            saved |= {state.row: state.x} if state.row in rows else {}
            yield state
            state = following
        saved |= {state.row: state.x} if state.row in rows else {}
        end = _attach(self, run, shared, saved, state.x, start)
        yield state._replace(points=(end, *state.points[1:]))


class _RunNode(torch.autograd.Function):
    """From the initial noise to the finished sample, which was computed already."""

    @staticmethod
    def forward(
        ctx: Any,
        adjoint: TrajectoryAdjoint,
        run: SampledRun,
        shared: SharedGradients,
        saved: SavedPoints,
        end: Tensor,
        start: Tensor,
        token: Tensor,
    ) -> Tensor:
        ctx.adjoint, ctx.run, ctx.shared, ctx.rows = adjoint, run, shared, tuple(saved)
        ctx.save_for_backward(*saved.values())
        return end.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        saved = dict(zip(ctx.rows, ctx.saved_tensors, strict=True))
        of_start = ctx.adjoint.backward(ctx.run, saved, gradient, ctx.shared)
        return (*(None,) * 5, of_start, None)


def _attach(
    adjoint: TrajectoryAdjoint,
    run: SampledRun,
    shared: SharedGradients,
    saved: SavedPoints,
    end: Tensor,
    start: Tensor,
) -> Tensor:
    attached: Tensor = _RunNode.apply(  # type: ignore[no-untyped-call]
        adjoint, run, shared, saved, end, start, shared.token
    )
    return attached
