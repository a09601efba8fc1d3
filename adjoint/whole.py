"""Ways back that are one step of autograd's graph: a run is made without a graph, and attached.

What such a way keeps are the points at some rows of the tableau. All else it finds from them.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.base import Adjoint, Network, without_graph
from adjoint.calls import Call, Recorded, first_record, record
from adjoint.replay import refuse_second_derivative
from adjoint.shared import Shared
from samplers.sampling import checked
from samplers.schedule import Point
from samplers.solve import Solver, State
from samplers.tableau import Tableau

Kept = Mapping[int, Tensor]
"""Points by the row that evaluates them; the finished sample by the number of rows."""


class Way(NamedTuple):
    """What the points of a run follow from."""

    solver: Solver
    model: Network
    conditions: tuple[Tensor, ...]

    def call(self, x: Tensor, at: Point) -> Call:
        """The network call at a point."""
        t = at.t.to(x).expand(len(x))
        return Call.of(self.model, (x, t, *self.conditions), {}, split=1)[0]

    def record(self, x: Tensor, at: Point) -> Recorded:
        """The call with its graph."""
        return record(self.call(x, at), x, wanted=True)


class Whole(Adjoint):
    """A way back through the whole run at once."""

    @abc.abstractmethod
    def keeps(self, tableau: Tableau) -> set[int]:
        """The rows whose points are kept."""

    @abc.abstractmethod
    def back(self, way: Way, kept: Kept, gradient: Tensor, shared: Shared) -> Tensor:
        """The gradient of the starting noise from that of the finished sample.

        Products for what the calls share are added to ``shared``.
        """

    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        self.check(solver.tableau)
        if state.row != 0:
            raise ValueError(f"{self} goes back to the start; begin the run at row 0.")
        network = checked(model, solver)
        if not torch.is_grad_enabled():
            yield from solver.run(lambda x, t: network(x, t, *conditions), state)
            return
        way, start = Way(solver, model, tuple(conditions)), state.x
        first = way._replace(model=network).call(start, solver.tableau.rows[0].at)
        recorded, shared = first_record(first, start, keep=False)
        chosen = self.keeps(solver.tableau)
        kept = {0: start} if 0 in chosen else {}
        with torch.no_grad():
            state = solver.advance(state, recorded.outputs[0])
        calls = solver.run(lambda x, t: network(x, t, *conditions), state)
        for following in without_graph(calls):
            kept |= {state.row: state.x} if state.row in chosen else {}
            yield state
            state = following
        kept |= {state.row: state.x} if state.row in chosen else {}
        end = _attached(self, way, shared, kept, state.x, start)
        yield state._replace(points=(end, *state.points[1:]))


class _Run(torch.autograd.Function):
    """From the starting noise to the finished sample, which was made already."""

    @staticmethod
    def forward(
        ctx: Any,
        whole: Whole,
        way: Way,
        shared: Shared,
        kept: Kept,
        end: Tensor,
        start: Tensor,
        token: Tensor,
    ) -> Tensor:
        ctx.whole, ctx.way, ctx.shared, ctx.rows = whole, way, shared, tuple(kept)
        ctx.save_for_backward(*kept.values())
        return end.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        kept = dict(zip(ctx.rows, ctx.saved_tensors, strict=True))
        of_start = ctx.whole.back(ctx.way, kept, gradient, ctx.shared)
        return (*(None,) * 5, of_start, None)


def _attached(
    whole: Whole, way: Way, shared: Shared, kept: Kept, end: Tensor, start: Tensor
) -> Tensor:
    attached: Tensor = _Run.apply(  # type: ignore[no-untyped-call]
        whole, way, shared, kept, end, start, shared.token
    )
    return attached
