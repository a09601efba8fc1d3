"""The continuous adjoint along a trajectory that is itself solved backwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from adjoint.adjoint_ode import (
    check_method,
    cost_of_ode,
    gradient_at_cleanest,
    nodes_of,
    refusal_of_ode,
    slope_at,
    step_weights,
    weighted_sum,
)
from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.trajectory import SampledRun, SavedPoints, TrajectoryAdjoint
from adjoint.base import AdjointCost
from samplers.tableau import Tableau


@dataclass(frozen=True)
class BacksolveAdjoint(TrajectoryAdjoint):
    """Save the last point alone, and solve the sample's ODE backwards with the adjoint ODE.

    (Chen et al. 2018, https://arxiv.org/abs/1806.07366, for the probability-flow ODE.)

    Attributes:
        order, steps: as of :class:`adjoint.ContinuousAdjoint`.

    The reconstructed points are not those of the sampler: under strong guidance they diverge from
    them exponentially, and the gradient with them. Raises ValueError for impossible settings, for
    stochastic samplers, and for runs from pure noise, which no ODE reaches.
    """

    order: int = 1
    steps: int | None = None

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_method(self.order, self.steps)

    def refusal(self, tableau: Tableau) -> str | None:
        if tableau.stochastic:
            return (
                "This sampler is stochastic: the reverse SDE contracts, so solving it backwards "
                "amplifies every error; take ContinuousAdjoint(eta=1) or CheckpointAdjoint()."
            )
        if tableau.start.pure_noise:
            return (
                "This run starts from pure noise, which no ODE solved backwards reaches; take a "
                "smaller sigma_max, or ContinuousAdjoint()."
            )
        return refusal_of_ode(tableau, self.steps)

    def cost(self, tableau: Tableau) -> AdjointCost:
        return cost_of_ode(tableau, self.steps, samples=1)

    def saved_rows(self, tableau: Tableau) -> set[int]:
        return {nodes_of(tableau, self.steps)[0].row}

    def backward(
        self, run: SampledRun, saved: SavedPoints, gradient: Tensor, shared: SharedGradients
    ) -> Tensor:
        nodes = nodes_of(run.solver.tableau, self.steps)
        gradient = gradient_at_cleanest(run, saved, nodes[0], gradient, shared)
        alpha, weights = nodes[0].at.alpha.to(gradient), step_weights(nodes, self.order)
        a, y = alpha * gradient, saved[nodes[0].row] / alpha
        slopes: list[Tensor] = []
        noises: list[Tensor] = []
        for step, node in enumerate(nodes[:-1]):
            slope = slope_at(run, node.at.alpha.to(y) * y, node, moved=math.inf)
            slopes.append(slope.vjp(a, -weights[:, step].sum(), shared))
            noises.append(slope.noise.detach())
            a = a - weighted_sum(weights[step], slopes)
            y = y + weighted_sum(weights[step], noises)
        return a / nodes[-1].at.alpha.to(a)
