r"""The exact gradient of samplers that can be solved for their oldest point.

On the way back every row is solved for the point before it (:mod:`samplers.inversion`). The network
call that this takes is made again for the gradient anyway, so nothing is kept but two points. What
the solving rounds, the gradient inherits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from adjoint.base import Adjoint, Cost, Network, without_graph
from adjoint.replay import Call, Shared, first_record, record, refuse_second_derivative
from samplers import inversion
from samplers.sample import checked
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Reversible(Adjoint):
    """Keep the last two points only, and find the others on the way back.

    For O-BELM and BDIA, from below pure noise; ValueError for other samplers.
    """

    exact: ClassVar[bool] = True

    def refusal(self, tableau: Tableau) -> str | None:
        return inversion.refusal(tableau)

    def cost(self, tableau: Tableau) -> Cost:
        calls = tableau.calls
        return Cost(calls, calls, calls, samples=2, activations=1)

    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        self.check(solver.tableau)
        if state.row != 0:
            raise ValueError("A reversible gradient goes back to the start; begin the run there.")
        network = checked(model, solver)
        if not torch.is_grad_enabled():
            yield from solver.run(lambda x, t: network(x, t, *conditions), state)
            return
        way, start = _Way(solver, model, tuple(conditions)), state.x
        recorded, shared = first_record(way.with_model(network).call(state), start, keep=False)
        with torch.no_grad():
            state = solver.advance(state, recorded.outputs[0])
        calls = solver.run(lambda x, t: network(x, t, *conditions), state)
        for following in without_graph(calls):
            yield state
            state = following
        end = _attach(way, shared, state, start)
        yield state._replace(points=(end, *state.points[1:]))


class _Way(NamedTuple):
    """What the points of a run follow from."""

    solver: Solver
    model: Network
    conditions: tuple[Tensor, ...]

    def with_model(self, model: Network) -> _Way:
        return self._replace(model=model)

    def call(self, state: State) -> Call:
        """The network call that comes next."""
        t = self.solver.time(state).to(state.x).expand(len(state.x))
        return Call.of(self.model, (state.x, t, *self.conditions), {}, split=1)[0]


class _Run(torch.autograd.Function):
    """From the starting noise to the finished sample, which was made already."""

    @staticmethod
    def forward(
        ctx: Any, way: _Way, shared: Shared, end: State, start: Tensor, token: Tensor
    ) -> Tensor:
        ctx.way, ctx.shared = way, shared
        ctx.end = end._replace(points=(), predictions=())
        ctx.save_for_backward(*end.points, *end.predictions)
        ctx.kept = len(end.points)
        return end.x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        saved = ctx.saved_tensors
        state = State(ctx.end.row, saved[: ctx.kept], saved[ctx.kept :])
        gradients = (gradient, torch.zeros_like(gradient))
        while state.row > 0:
            state, gradients = _back(ctx.way, ctx.shared, state, gradients)
        return (None, None, None, gradients[0], None)


def _attach(way: _Way, shared: Shared, end: State, start: Tensor) -> Tensor:
    attached: Tensor = _Run.apply(way, shared, end, start, shared.token)  # type: ignore[no-untyped-call]
    return attached


Pair = tuple[Tensor, Tensor]


def _back(way: _Way, shared: Shared, state: State, gradients: Pair) -> tuple[State, Pair]:
    """The state before, and the gradients of its two points from those of the given one."""
    x = inversion.came_from(state)
    asked = State(state.row - 1, (x, x), state.predictions)
    recorded = record(way.call(asked), x, wanted=True)
    output = recorded.outputs[0].detach()
    before = inversion.retreat(way.solver, state, output)
    of_x, of_older, of_output = _transposed(way.solver, before, output, gradients)
    product = recorded.product((of_output,), shared)
    return before, (of_x if product is None else of_x + product, of_older)


def _transposed(
    solver: Solver, state: State, output: Tensor, gradients: Pair
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a row's two points and of the network's output."""
    leaves = [t.detach().requires_grad_() for t in (*state.points[:2], output)]
    with torch.enable_grad():
        after = solver.advance(State(state.row, tuple(leaves[:2]), state.predictions), leaves[2])
    found = torch.autograd.grad(after.points[:2], leaves, gradients, allow_unused=True)
    x, older, of_output = (
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    )
    return x, older, of_output
