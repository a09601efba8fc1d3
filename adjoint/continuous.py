"""The continuous adjoint along the trajectory of the sampler, which is saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adjoint.adjoint_ode import (
    check_method,
    cost_of_ode,
    gradient_at_cleanest,
    gradient_of_noise,
    nodes_of,
    refusal_of_ode,
    rows_of_ends,
    slope_at,
    step_weights,
    weighted_sum,
)
from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.trajectory import SampledRun, SavedPoints, TrajectoryAdjoint
from adjoint.base import AdjointCost
from samplers.tableau import Tableau


@dataclass(frozen=True)
class ContinuousAdjoint(TrajectoryAdjoint):
    r"""Solve the adjoint ODE of :mod:`adjoint.adjoint_ode` along the saved trajectory.

    Along the reverse SDE of strength eta the drift is (1 + eta) eps, and its noise does not depend
    on x, so the gradient solves the ODE with this factor (Blasingame and Liu 2024, theorem 3.1,
    https://arxiv.org/abs/2405.15020).

    Attributes:
        order: of the method, 1 or 2.
        steps: of the adjoint, at most the sampler's, whose points it visits; the sampler's if None.
        eta: strength of the reverse SDE for stochastic samplers: 1, or the sampler's option
            ``eta``, of which ``ancestral`` has the square. Their noise may be independent or a
            Brownian path; the saved trajectory contains it.

    The gradient is approximate; :class:`adjoint.CheckpointAdjoint` is exact at the same cost.
    Raises ValueError for impossible settings, and for samplers whose noise belongs to no SDE.
    """

    order: int = 1
    steps: int | None = None
    eta: float = 0.0

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_method(self.order, self.steps)
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta is {self.eta}; it must be zero or positive.")

    def refusal(self, tableau: Tableau) -> str | None:
        if tableau.stochastic and self.eta == 0:
            return (
                "This sampler is stochastic and eta is 0; take the strength of its SDE, which is "
                "eta = 1 for the reverse SDE."
            )
        if not tableau.stochastic and self.eta != 0:
            return f"eta is {self.eta}, but this sampler is deterministic; leave eta at 0."
        return refusal_of_ode(tableau, self.steps)

    def cost(self, tableau: Tableau) -> AdjointCost:
        return cost_of_ode(tableau, self.steps, len(self.saved_rows(tableau)))

    def saved_rows(self, tableau: Tableau) -> set[int]:
        return {node.row for node in nodes_of(tableau, self.steps)} | rows_of_ends(tableau)

    def backward(
        self, run: SampledRun, saved: SavedPoints, gradient: Tensor, shared: SharedGradients
    ) -> Tensor:
        nodes = nodes_of(run.solver.tableau, self.steps)
        gradient = gradient_at_cleanest(run, saved, nodes[0], gradient, shared)
        a, weights = nodes[0].at.alpha.to(gradient) * gradient, step_weights(nodes, self.order)
        slopes: list[Tensor] = []
        for step, node in enumerate(nodes[:-1]):
            slope = slope_at(run, saved[node.row], node)
            slopes.append(slope.vjp(a, -(1 + self.eta) * weights[:, step].sum(), shared))
            a = a - (1 + self.eta) * weighted_sum(weights[step], slopes)
        return gradient_of_noise(run, saved, nodes[-1], a, shared)
