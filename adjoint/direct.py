"""Autograd's own record of the whole run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adjoint.base import Adjoint, Cost, Network, given
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Direct(Adjoint):
    """Keep the activations of all network calls; what every other way is compared with."""

    exact: ClassVar[bool] = True

    def cost(self, tableau: Tableau) -> Cost:
        calls = tableau.calls
        return Cost(calls, 0, calls, samples=calls, activations=calls)

    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        return solver.run(given(model, conditions, solver), state)
