"""What all adjoints have in common: the cost they state, the samplers they serve, and a run."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from adjoint.autograd.context import uncached_casts
from samplers.sampling import checked
from samplers.solve import Model, Solver, State
from samplers.tableau import Tableau


class AdjointCost(NamedTuple):
    """What a run with its gradient takes, in network evaluations and in saved tensors.

    Attributes:
        forward: evaluations of the run itself.
        recomputed: evaluations that are repeated in the backward pass.
        vjps: vector-Jacobian products, each about as expensive as an evaluation, or as two if
            weights are trained.
        samples: tensors of the size of the sample that are saved for backward.
        activations: evaluations whose activations are held at once, at most.
    """

    forward: int
    recomputed: int
    vjps: int
    samples: int
    activations: float


class AbstractAdjoint(abc.ABC):
    """How the gradient of a finished sample is computed: the argument ``adjoint`` of sampling."""

    exact: ClassVar[bool]
    """Whether it is the gradient of the computed sample itself, up to rounding."""

    @abc.abstractmethod
    def cost(self, tableau: Tableau) -> AdjointCost:
        """The cost of a run of this tableau."""

    def refusal(self, tableau: Tableau) -> str | None:
        """Why it cannot differentiate this sampler, as a sentence; None if it can."""
        return None

    def check(self, tableau: Tableau) -> None:
        """Raise ValueError, with the reason, if it cannot differentiate this sampler."""
        reason = self.refusal(tableau)
        if reason is not None:
            raise ValueError(reason)

    @abc.abstractmethod
    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        """The states after each network evaluation; the last one carries the gradient."""


def conditioned(
    model: Callable[..., Tensor], conditions: Sequence[Tensor], solver: Solver
) -> Model:
    """The model with its conditions; NaN, infinity or another shape is an error."""
    return checked(lambda x, t: model(x, t, *conditions), solver)


def without_graph(states: Iterator[State]) -> Iterator[State]:
    """The states of a run for which no graph is recorded."""
    while True:
        with torch.no_grad(), uncached_casts():
            state = next(states, None)
        if state is None:
            return
        yield state
