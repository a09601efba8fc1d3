"""Plain backpropagation through the run, as autograd records it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adjoint.base import AbstractAdjoint, AdjointCost, conditioned
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class DirectAdjoint(AbstractAdjoint):
    """Save the activations of all network evaluations; the reference for all other adjoints.

    It is what happens without an adjoint, and the only one with second derivatives.
    """

    exact: ClassVar[bool] = True

    def cost(self, tableau: Tableau) -> AdjointCost:
        count = tableau.calls
        return AdjointCost(count, 0, count, samples=count, activations=count)

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        return solver.run(conditioned(model, conditions, solver), state)
