"""The gradient of the last steps alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from adjoint.base import Adjoint, Cost, Network, given, without_graph
from adjoint.checkpoint import Checkpoint
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Truncated(Adjoint):
    """Pass back through the last steps only (DRaFT-K, Clark et al. 2024,
    https://arxiv.org/abs/2309.17400).

    Attributes:
        last: how many steps of the grid; or a range (low, high), both included, of which each run
            draws one number, as AlignProp does (Prabhudesai et al. 2023,
            https://arxiv.org/abs/2310.03739).
        seed: of the draw. Runs with the same seed draw the same number, so a training changes it
            with every step.
        inner: how the gradient passes back through these steps.

    The starting noise gets no gradient, unless all steps are passed through. Raises ValueError for
    an impossible range, and for a sampler with fewer steps than ``last``.
    """

    last: int | tuple[int, int]
    seed: int = 0
    inner: Checkpoint = field(default_factory=Checkpoint)

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
        return f"last is {self.last}, but this run has {steps} steps." if high > steps else None

    def cost(self, tableau: Tableau) -> Cost:
        kept = tableau.calls - _first_row(tableau, self._range[1])
        whole = self.inner.cost(tableau)
        again = max(0, kept - min(self.inner.keep, kept))
        return Cost(tableau.calls, again, kept, samples=kept, activations=whole.activations)

    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        self.check(solver.tableau)
        begin = _first_row(solver.tableau, self._drawn())
        early = solver.run(given(model, conditions, solver), state)
        for state in islice(without_graph(early), begin - state.row):
            yield state
        yield from self.inner.run(solver, model, state, conditions)

    def _drawn(self) -> int:
        """The number of steps of this run."""
        low, high = self._range
        generator = torch.Generator().manual_seed(self.seed)
        return int(torch.randint(low, high + 1, (), generator=generator))


def _first_row(tableau: Tableau, last: int) -> int:
    """The row at which the last so many steps begin."""
    first = tableau.rows[-1].step + 1 - last
    return next(number for number, row in enumerate(tableau.rows) if row.step >= first)
