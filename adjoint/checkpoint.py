r"""The exact gradient at the memory of one network call.

Let row k of a tableau form its points from the points and predictions that are remembered,
``x' = sum A x + sum B D + s z`` with ``D = a x + b f(x, t)``. Back through it pass the transposed
coefficients, and one product with the network's Jacobian,

.. math:: g_x = \sum A^T g_{x'} + a \, g_D + J^T (b \, g_D), \qquad g_D = \sum B^T g_{x'}

(the transposed tableau; for Euler's method it is what Pan et al. 2023, AdjointDPM,
https://arxiv.org/abs/2307.10711, approximate by an ODE). Rows are a few multiply-adds whose numbers
need no gradient, so autograd transposes them without keeping a thing; rows scaled by norms and
corrections such as clipping are passed back through by their own derivatives. The network's calls
are replayed, see :mod:`adjoint.replay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adjoint.base import Adjoint, Cost, Network, given
from adjoint.replay import Offload, Replayed
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Checkpoint(Adjoint):
    """Keep the sample before each network call, and make the calls again on the way back.

    Attributes:
        keep: the last so many calls keep their activations instead, which saves making them again.
        offload: ``cpu`` keeps the samples there.
        split: the parts of the batch in which a call is made, one after the other; 2 takes the
            halves of classifier-free guidance apart. One part's activations are held at once.

    Raises ValueError for impossible settings, and at the first call if the network reaches a
    tensor that was computed with gradients and is not among its conditions.
    """

    keep: int = 0
    offload: Offload = "none"
    split: int = 1

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; it must be a number of calls from 0 up.")
        if self.split < 1:
            raise ValueError(f"split is {self.split}; a call has at least one part.")
        if self.keep and self.split > 1:
            raise ValueError(
                "A call that keeps its activations keeps those of all its parts; take keep or "
                "split, not both."
            )
        if self.offload not in ("none", "cpu"):
            raise ValueError(f"offload is {self.offload!r}; it must be 'none' or 'cpu'.")

    def cost(self, tableau: Tableau) -> Cost:
        calls, kept = tableau.calls, min(self.keep, tableau.calls)
        activations = max(kept, 1) / self.split
        return Cost(calls, calls - kept, calls, samples=calls, activations=activations)

    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        replayed = Replayed(model, self.offload, self.split)
        row, first_kept = state.row, solver.tableau.calls - self.keep

        def call(x: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
            nonlocal row
            row += 1
            output: Tensor = replayed.call((x, t, *rest), {}, keep=row > first_kept)
            return output

        return solver.run(given(call, conditions, solver), state)
