"""The gradient of the last steps alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from adjoint.base import AbstractAdjoint, AdjointCost, conditioned, without_graph
from adjoint.checkpoint import CheckpointAdjoint
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class TruncatedAdjoint(AbstractAdjoint):
    """Backpropagate through the last steps only (DRaFT-K, Clark et al. 2024,
    https://arxiv.org/abs/2309.17400).

    Attributes:
        last: number of steps of the grid; or a range (low, high), both included, from which each
            run samples a number, as AlignProp does (Prabhudesai et al. 2023,
            https://arxiv.org/abs/2310.03739).
        seed: of that random number. Runs with one seed have the same, so change it every training
            step.
        inner: the adjoint of these last steps.

    The gradient is biased, and the initial noise gets none unless all steps are included. Raises
    ValueError for an impossible range, and for a sampler with fewer steps than ``last``.
    """

    last: int | tuple[int, int]
    seed: int = 0
    inner: CheckpointAdjoint = field(default_factory=CheckpointAdjoint)

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        low, high = self._range
        if not 1 <= low <= high:
            raise ValueError(
                f"last is {self.last}; it must be a number of steps from 1 up, or a range of them."
            )

    @property
    def _range(self) -> tuple[int, int]:
        return self.last if isinstance(self.last, tuple) else (self.last, self.last)

    def refusal(self, tableau: Tableau) -> str | None:
        steps, (_, high) = tableau.rows[-1].step + 1, self._range
        if high <= steps:
            return None
        return f"last is {self.last}, but this run has {steps} steps; take {steps} or fewer."

    def cost(self, tableau: Tableau) -> AdjointCost:
        differentiated = tableau.calls - _first_row(tableau, self._range[1])
        whole = self.inner.cost(tableau)
        recomputed = max(0, differentiated - min(self.inner.keep, differentiated))
        return AdjointCost(
            tableau.calls,
            recomputed,
            differentiated,
            samples=differentiated,
            activations=whole.activations,
        )

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        self.check(solver.tableau)
        begin = _first_row(solver.tableau, self._random_length())
        early = solver.run(conditioned(model, conditions, solver), state)
        for state in islice(without_graph(early), begin - state.row):
            yield state
        yield from self.inner.run(solver, model, state, conditions)

    def _random_length(self) -> int:
        """The number of steps that this run differentiates."""
        low, high = self._range
        generator = torch.Generator().manual_seed(self.seed)
        return int(torch.randint(low, high + 1, (), generator=generator))


def _first_row(tableau: Tableau, last: int) -> int:
    """The row at which the last so many steps begin."""
    first = tableau.rows[-1].step + 1 - last
    return next(number for number, row in enumerate(tableau.rows) if row.step >= first)
