r"""The exact gradient at the memory of one network evaluation.

Row k of a tableau forms its points from saved points and predictions,
``x' = sum A x + sum B D + s z`` with ``D = a x + b f(x, t)``. Its backward pass applies the
transposed coefficients, and one vector-Jacobian product of the network,

.. math:: g_x = \sum A^T g_{x'} + a \, g_D + J^T (b \, g_D), \qquad g_D = \sum B^T g_{x'}

(the transposed tableau; for Euler's method it is what Pan et al. 2023, AdjointDPM,
https://arxiv.org/abs/2307.10711, approximate by an ODE). Rows are a few multiply-adds with constant
coefficients, so autograd transposes them and saves nothing; rows scaled by norms, and corrections
such as clipping, are differentiated as they are. The network's evaluations are recomputed, see
:mod:`adjoint.autograd.recompute`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from adjoint.autograd.evaluation import EvaluatedNetwork
from adjoint.autograd.recompute import Offload, Recomputed
from adjoint.autograd.torch_internals import tree_flatten
from adjoint.base import AbstractAdjoint, AdjointCost, conditioned
from samplers.denoiser import is_batched
from samplers.solve import Solver, State
from samplers.tableau import Tableau


@dataclass(frozen=True)
class CheckpointAdjoint(AbstractAdjoint):
    """Save the sample before each network evaluation, and recompute the evaluations in backward.

    Gradient checkpointing with one checkpoint an evaluation. It serves every fixed-grid sampler.

    Attributes:
        keep: the last so many evaluations save their activations and are not recomputed.
        offload: ``cpu`` saves the samples in main memory.
        split: parts of the batch that are evaluated one after the other, in which case only one
            part's activations are held at once; 2 separates the halves of classifier-free guidance.

    Raises ValueError for impossible settings, and at the first evaluation if the network uses a
    tensor that was computed with gradients and is not among its conditions.
    """

    keep: int = 0
    offload: Offload = "none"
    split: int = 1

    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise ValueError(f"keep is {self.keep}; it must be a number of evaluations, 0 or more.")
        if self.split < 1:
            raise ValueError(f"split is {self.split}; it must be at least 1.")
        if self.keep and self.split > 1:
            raise ValueError(
                f"keep is {self.keep} and split is {self.split}, but an evaluation that keeps its "
                "activations keeps those of all its parts; take keep or split, not both."
            )
        if self.offload not in ("none", "cpu"):
            raise ValueError(f"offload is {self.offload!r}; it must be 'none' or 'cpu'.")

    def cost(self, tableau: Tableau) -> AdjointCost:
        count, kept = tableau.calls, min(self.keep, tableau.calls)
        activations = max(kept, 1) / self.split
        # The parts of the first evaluation are compared with the whole batch.
        forward = count + (self.split > 1)
        return AdjointCost(forward, count - kept, count, samples=count, activations=activations)

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        recomputed = Recomputed(
            EvaluatedNetwork.of(model, self.split, _shared(conditions)), self.offload
        )
        row, first_kept = state.row, solver.tableau.calls - self.keep

        def evaluate(x: Tensor, t: Tensor, *rest: Tensor) -> Tensor:
            nonlocal row
            row += 1
            output: Tensor = recomputed.call((x, t, *rest), {}, keep=row > first_kept)
            return output

        return solver.run(conditioned(evaluate, conditions, solver), state)


def _shared(conditions: Sequence[Any]) -> list[Tensor]:
    """The tensors in conditions that belong to no sample."""
    flat, _ = tree_flatten([value for value in conditions if not is_batched(value)])
    return [value for value in flat if isinstance(value, Tensor)]
