r"""The continuous adjoint: the ODE that the gradient of a probability-flow ODE's solution solves.

With ``y = x / alpha`` and ``rho = sigma / alpha`` the probability-flow ODE is ``dy/drho = eps``,
and the adjoint state ``a = dL/dy`` solves

.. math:: \frac{da}{d\rho} = -a^T \frac{\partial \varepsilon}{\partial y}, \qquad
    \frac{d g_\theta}{d\rho} = -a^T \frac{\partial \varepsilon}{\partial \theta}

from the data to the noise (AdjointDPM, Pan et al. 2023, https://arxiv.org/abs/2307.10711). It is
discretised by Adams-Bashforth in rho, of order 1 (Euler, which is the exponential step of DDIM) or
2. At both ends of infinite log-SNR the sampler's step is DDIM's, and its gradient exact.

This is optimise-then-discretise: not the gradient of the computed sample, from which it deviates by
the order of the method, and by more where guidance makes the ODE stiff.

Here lives what :class:`adjoint.ContinuousAdjoint` and :class:`adjoint.BacksolveAdjoint` share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjoint.autograd.accumulate import SharedGradients
from adjoint.autograd.evaluation import RecordedEvaluation
from adjoint.autograd.trajectory import Node, SampledRun, SavedPoints
from adjoint.base import AdjointCost
from samplers.prediction import to_data
from samplers.schedule import Point
from samplers.tableau import Tableau

# ------------------------------------------------------------------- what can be differentiated


def check_method(order: int, steps: int | None) -> None:
    """Raise ValueError for a method that does not exist."""
    if order not in (1, 2):
        raise ValueError(f"The order of the adjoint's method is {order}; it must be 1 or 2.")
    if steps is not None and steps < 1:
        raise ValueError(f"The adjoint has {steps} steps; it must have at least 1.")


def refusal_of_ode(tableau: Tableau, steps: int | None) -> str | None:
    """Why the adjoint ODE does not belong to this sampler, as a sentence; None if it does."""
    last, available = tableau.rows[-1], len(_finite_nodes(tableau)) - 1
    older = last.predictions[-1].cpu()[1:]
    if tableau.end.clean and bool((last.points[-1] != 0).any() or (older != 0).any()):
        return (
            "The last step of this sampler is not its prediction of x_0, where the adjoint ODE "
            "begins; take CheckpointAdjoint()."
        )
    free = [row for row in tableau.rows if row.noisy and row.path is None]
    if free or bool(tableau.start_noise != 0):
        return (
            "This sampler adds noise that belongs to no reverse SDE (a Langevin corrector's, or "
            "EDM's churn), so there is no adjoint equation; take CheckpointAdjoint()."
        )
    if available < 1 or available < (steps or 1):
        return (
            f"The adjoint has {steps or 1} steps, but this run has {available} between points of "
            "finite log-SNR; take fewer, or CheckpointAdjoint()."
        )
    return None


def cost_of_ode(tableau: Tableau, steps: int | None, samples: int) -> AdjointCost:
    """The cost of a run and its adjoint ODE, which saves this number of samples."""
    ends = int(tableau.end.clean) + int(tableau.start.pure_noise)
    recomputed = ends + len(nodes_of(tableau, steps)) - 1
    return AdjointCost(tableau.calls, recomputed, recomputed, samples, activations=1)


# ---------------------------------------------------------------------------------------- nodes


def _finite_nodes(tableau: Tableau) -> list[Node]:
    """The points between steps that have a finite log-SNR, noisiest first."""
    rows = tableau.rows
    begins = [k for k, row in enumerate(rows) if k == 0 or row.step != rows[k - 1].step]
    nodes = [*(Node(k, rows[k].at) for k in begins), Node(len(rows), tableau.end)]
    return [node for node in nodes if node.at.finite]


def nodes_of(tableau: Tableau, steps: int | None) -> list[Node]:
    """The nodes of the adjoint's steps, cleanest first and evenly spread; all if None."""
    finite = _finite_nodes(tableau)[::-1]
    if steps is None or steps >= len(finite):
        return finite
    return [finite[round(k * (len(finite) - 1) / steps)] for k in range(steps + 1)]


def step_weights(nodes: Sequence[Node], order: int) -> Tensor:
    """The weight of each node's slope in each step: [steps, nodes], in units of rho.

    Of order 2 they are those of Adams-Bashforth for steps of variable length.
    """
    h = torch.stack([node.at.rho for node in nodes]).diff()
    weights = torch.diag(h)
    if order == 2:
        ratio = h[1:] / h[:-1]
        weights += torch.diag(torch.cat([0 * h[:1], h[1:] * ratio / 2]))
        weights -= torch.diag(h[1:] * ratio / 2, -1)
    return weights


def weighted_sum(weights: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """The sum of the last two slopes, of which each node has one, by a step's weights."""
    total = weights[len(slopes) - 1].to(slopes[-1]) * slopes[-1]
    if len(slopes) > 1:
        total = total + weights[len(slopes) - 2].to(total) * slopes[-2]
    return total


# ----------------------------------------------------------------------------------- one slope


@dataclass(frozen=True, eq=False)
class NoiseSlope:
    """eps at a node, with its graph from x and from the network's output."""

    noise: Tensor
    x: Tensor
    output: Tensor
    at: Point
    recorded: RecordedEvaluation

    def vjp(self, a: Tensor, weight: Tensor, shared: SharedGradients) -> Tensor:
        """``a^T d eps / dy``; ``weight`` times the products for what is shared is added there."""
        of_x, of_output = torch.autograd.grad(self.noise, (self.x, self.output), a)
        product, of_shared = self.recorded.vjp((of_output,), shared)
        shared.add([None if g is None else weight.to(g) * g for g in of_shared])
        total = of_x if product is None else of_x + product
        return self.at.alpha.to(total) * total


def slope_at(run: SampledRun, x: Tensor, node: Node, moved: float = 0.0) -> NoiseSlope:
    """Evaluate the ODE's right-hand side at x; moved is infinite if x is no point of the run."""
    at, recorded = node.at, run.record(x, node, moved)
    x, output = (t.detach().requires_grad_() for t in (x, recorded.outputs[0]))
    with torch.enable_grad():
        data = _data(run, x, output, at)
        noise = (x - at.alpha.to(data) * data) / at.sigma.to(data)
    return NoiseSlope(noise, x, output, at, recorded)


def _data(run: SampledRun, x: Tensor, output: Tensor, at: Point) -> Tensor:
    """The prediction of x_0."""
    of_x, of_output = (number.to(x) for number in to_data(run.solver.prediction, at))
    data = of_x * x + of_output * output.to(x.dtype)
    return data if run.solver.correct is None else run.solver.correct(data)


# ------------------------------------------------------------------------------------- the ends


def rows_of_ends(tableau: Tableau) -> set[int]:
    """The rows that :func:`gradient_of_noise` needs: the first, if it is pure noise."""
    return {0} if tableau.start.pure_noise else set()


def gradient_at_cleanest(
    run: SampledRun, saved: SavedPoints, cleanest: Node, gradient: Tensor, shared: SharedGradients
) -> Tensor:
    """The gradient at the cleanest node, from that of the finished sample."""
    end = run.solver.tableau.end
    return _through_ddim(run, saved, cleanest, end, gradient, shared) if end.clean else gradient


def gradient_of_noise(
    run: SampledRun, saved: SavedPoints, noisiest: Node, a: Tensor, shared: SharedGradients
) -> Tensor:
    """The gradient of the initial noise, from the adjoint state at the noisiest node."""
    start, gradient = run.solver.tableau.start, a / noisiest.at.alpha.to(a)
    if not start.pure_noise:
        return gradient
    return _through_ddim(run, saved, Node(0, start), noisiest.at, gradient, shared)


def _through_ddim(
    run: SampledRun,
    saved: SavedPoints,
    node: Node,
    reached: Point,
    gradient: Tensor,
    shared: SharedGradients,
) -> Tensor:
    """The exact gradient at a node, from that of the point which a DDIM step reaches from it."""
    at, recorded = node.at, run.record(saved[node.row], node)
    x, output = (t.detach().requires_grad_() for t in (saved[node.row], recorded.outputs[0]))
    with torch.enable_grad():
        data = _data(run, x, output, at)
        ratio = reached.sigma / at.sigma
        x_next = ratio.to(data) * x + (reached.alpha - ratio * at.alpha).to(data) * data
    of_x, of_output = torch.autograd.grad(x_next, (x, output), gradient)
    product = recorded.accumulate_vjp((of_output,), shared)
    return of_x if product is None else of_x + product
