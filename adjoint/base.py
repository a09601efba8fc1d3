"""What every way of passing a gradient back says of itself."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from samplers.sampling import checked
from samplers.solve import Model, Solver, State
from samplers.tableau import Tableau

Network = Callable[..., Tensor]
"""``network(x, t, *conditions)`` -> its output, shaped like x [B, ...]."""


class Cost(NamedTuple):
    """What a run with its gradient takes, in network calls and in tensors that are held for it.

    Attributes:
        forward: calls of the run itself.
        again: calls that are made once more on the way back.
        products: vector-Jacobian products, each about as dear as a call, or as two if weights are
            trained.
        samples: how many tensors of the size of the sample are kept.
        activations: how many calls' activations are held at once, at most.
    """

    forward: int
    again: int
    products: int
    samples: int
    activations: float


class Adjoint(abc.ABC):
    """How a gradient passes back through a run."""

    exact: ClassVar[bool]
    """Whether it is the gradient of the very sample that was drawn, up to rounding."""

    @abc.abstractmethod
    def cost(self, tableau: Tableau) -> Cost:
        """What a run of this table takes."""

    def refusal(self, tableau: Tableau) -> str | None:
        """Why it can't serve this sampler, as a sentence; None if it can. Most serve all."""
        return None

    def check(self, tableau: Tableau) -> None:
        """Raise ValueError, with the reason, if it can't serve this sampler."""
        reason = self.refusal(tableau)
        if reason is not None:
            raise ValueError(reason)

    @abc.abstractmethod
    def run(
        self, solver: Solver, model: Network, state: State, conditions: Sequence[Tensor]
    ) -> Iterator[State]:
        """The states after each network call; gradients reach the last."""


def given(model: Network, conditions: Sequence[Tensor], solver: Solver) -> Model:
    """The model with its conditions, and an error where it returns NaN, infinity, another shape."""
    return checked(lambda x, t: model(x, t, *conditions), solver)


def without_graph(states: Iterator[State]) -> Iterator[State]:
    """The states of a run that no gradient passes back through."""
    while True:
        with torch.no_grad():
            state = next(states, None)
        if state is None:
            return
        yield state
