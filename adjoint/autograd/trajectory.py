"""Adjoints that make a whole run one node of autograd's graph.

The run is made without a graph and attached as a single node. Such an adjoint saves the points at
some rows of the tableau, and finds all else from them in the backward pass.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.evaluation import (
    EvaluatedNetwork,
    NetworkEvaluation,
    RecordedEvaluation,
    record_again,
    record_first,
)
from adjoint.autograd.recompute import refuse_second_derivative
from adjoint.base import AbstractAdjoint, conditioned, without_graph
from samplers.sampling import checked
from samplers.schedule import Point
from samplers.solve import Solver, State
from samplers.tableau import Tableau

SavedPoints = Mapping[int, Tensor]
"""Points by the row that evaluates them; the finished sample by the number of rows."""


class Node(NamedTuple):
    """A point of the run, and the row that evaluates it."""

    row: int
    at: Point


class SampledRun(NamedTuple):
    """What determines the points of a run, but for its initial noise.

    Attributes:
        evaluations: those of the run, by row.
    """

    solver: Solver
    network: EvaluatedNetwork
    conditions: tuple[Any, ...]
    evaluations: list[NetworkEvaluation]

    def evaluation(self, x: Tensor, t: Tensor) -> NetworkEvaluation:
        """The next network evaluation of the run."""
        found = NetworkEvaluation.of(self.network, (x, t, *self.conditions), {})[0]
        self.evaluations.append(found)
        return found

    def evaluate(self, x: Tensor, t: Tensor) -> Tensor:
        """Make the next evaluation without a graph."""
        return self.evaluation(x, t).run(x)[0]

    def record(self, x: Tensor, node: Node, moved: float = 0.0) -> RecordedEvaluation:
        """Repeat the evaluation of a row with its graph, that of the finished sample like the last.

        Args:
            moved: as of :meth:`NetworkEvaluation.run_again`.
        """
        finished = node.row == len(self.evaluations)
        evaluation = self.evaluations[-1 if finished else node.row]
        _, *conditions = evaluation.others
        t = node.at.t.to(x).expand(len(x))
        at_node = replace(evaluation, others=(t, *conditions))
        return record_again(at_node, x, requires_grad=True, moved=math.inf if finished else moved)


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
        if not torch.is_grad_enabled():
            yield from solver.run(conditioned(model, conditions, solver), state)
            return
        run, start = SampledRun(solver, EvaluatedNetwork.of(model), tuple(conditions), []), state.x
        first = run.evaluation(start, solver.time(state).to(start).expand(len(start)))
        recorded, shared = record_first(first, start, keep=False)
        self._check_function(first)
        made = [recorded.outputs[0].detach()]
        network = checked(lambda x, t: made.pop() if made else run.evaluate(x, t), solver)
        rows = self.saved_rows(solver.tableau)
        saved = {0: start} if 0 in rows else {}
        for state in without_graph(solver.run(network, state)):
            saved |= {state.row: state.x} if state.row in rows else {}
            if not solver.done(state):
                yield state
        end = _attach(self, run, shared, saved, state.x, start)
        yield state._replace(points=(end, *state.points[1:]))

    def _check_function(self, first: NetworkEvaluation) -> None:
        """Raise ValueError if the network is no function of x and t, but there is an ODE of it."""
        if not self.exact and first.past[0].context.random_since():
            raise ValueError(
                f"The network generates random numbers, as dropout does, so it has no ODE, which "
                f"{self} solves; call eval(), or take CheckpointAdjoint()."
            )


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
        with ctx.run.evaluations[0].state.placed():
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
