r"""AdjointDPM: the gradient of the ODE that a sampler solves, in place of the sampler's own.

With ``y = x / alpha`` and ``rho = sigma / alpha`` the probability-flow ODE is ``dy/drho = eps``,
and the gradient ``a = dL/dy`` follows it backwards,

.. math:: \frac{da}{d\rho} = -a^T \frac{\partial \varepsilon}{\partial y}, \qquad
    \frac{d g_\theta}{d\rho} = -a^T \frac{\partial \varepsilon}{\partial \theta}

from the data to the noise (Pan et al. 2023, https://arxiv.org/abs/2307.10711). Both are solved by
Adams-Bashforth in rho, of order 1 (Euler, which is the exponential step of DDIM) or 2. Along the
reverse SDE of strength eta the drift is (1 + eta) eps, and the noise does not depend on x, so the
gradient follows an ODE as well, with this factor (Blasingame and Liu 2024, theorem 3.1,
https://arxiv.org/abs/2405.15020). At both ends of infinite log-SNR the step is DDIM's, and its
gradient exact.

This is not the gradient of the sample that was drawn: it errs by the order of the method, and by
more where guidance makes the ODE steep. ``Checkpoint`` costs as much and does not err.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from adjoint.base import Cost
from adjoint.calls import Recorded as RecordedCall
from adjoint.shared import Shared
from adjoint.whole import Kept, Way, Whole
from samplers.prediction import door
from samplers.schedule import Point
from samplers.tableau import Tableau


@dataclass(frozen=True)
class Recorded(Whole):
    """Solve the gradient's ODE along the points that the sampler went through, which are kept.

    Attributes:
        order: of the method, 1 or 2.
        steps: of the way back, at most the sampler's, whose points they are; the sampler's if None.
        eta: for samplers of the reverse SDE, its strength: 1, or the sampler's option ``eta``, of
            which ``ancestral`` has the square. They draw along a Brownian path or independently,
            and are kept as they were drawn.

    Raises ValueError for impossible settings, and for samplers whose noise belongs to no SDE.
    """

    order: int = 1
    steps: int | None = None
    eta: float = 0.0

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.order, self.steps)
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta is {self.eta}; it must be zero or positive.")

    def refusal(self, tableau: Tableau) -> str | None:
        if tableau.stochastic and self.eta == 0:
            return (
                "This sampler draws noise; say by `eta` how strong an SDE it follows, 1 for the "
                "reverse SDE."
            )
        if not tableau.stochastic and self.eta != 0:
            return f"eta is {self.eta}, but this sampler draws no noise; leave it at 0."
        return _refusal(tableau, self.steps)

    def cost(self, tableau: Tableau) -> Cost:
        return _cost(tableau, self.steps, len(self.keeps(tableau)))

    def keeps(self, tableau: Tableau) -> set[int]:
        return {node.row for node in _nodes(tableau, self.steps)} | _kept_ends(tableau)

    def back(self, way: Way, kept: Kept, gradient: Tensor, shared: Shared) -> Tensor:
        nodes = _nodes(way.solver.tableau, self.steps)
        gradient = _from_clean(way, kept, nodes[0], gradient, shared)
        a, weights = nodes[0].at.alpha.to(gradient) * gradient, _weights(nodes, self.order)
        slopes: list[Tensor] = []
        for step, node in enumerate(nodes[:-1]):
            slope = _slope(way, kept[node.row], node.at)
            slopes.append(slope.pulled(a, -(1 + self.eta) * weights[:, step].sum(), shared))
            a = a - (1 + self.eta) * _combined(weights[step], slopes)
        return _to_pure_noise(way, kept, nodes[-1], a, shared)


@dataclass(frozen=True)
class Backsolve(Whole):
    """Keep the last point alone, and solve the ODE of the sample backwards with the gradient's.

    Attributes:
        order, steps: as of :class:`Recorded`.

    The points that are found are not those of the sampler. Where guidance is strong they leave
    them at an exponential rate, and the gradient with them. Raises ValueError for impossible
    settings, for samplers of an SDE, which contracts and so can't be solved backwards, and for
    runs from pure noise, to which no ODE leads back.
    """

    order: int = 1
    steps: int | None = None

    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.order, self.steps)

    def refusal(self, tableau: Tableau) -> str | None:
        if tableau.stochastic:
            return (
                "This sampler draws noise: the reverse SDE contracts, so solving it backwards "
                "amplifies every error; take Recorded(eta=1) or Checkpoint()."
            )
        if tableau.start.pure_noise:
            return "No ODE leads back to pure noise; take a smaller sigma_max, or Recorded()."
        return _refusal(tableau, self.steps)

    def cost(self, tableau: Tableau) -> Cost:
        return _cost(tableau, self.steps, samples=1)

    def keeps(self, tableau: Tableau) -> set[int]:
        return {_nodes(tableau, self.steps)[0].row}

    def back(self, way: Way, kept: Kept, gradient: Tensor, shared: Shared) -> Tensor:
        nodes = _nodes(way.solver.tableau, self.steps)
        gradient = _from_clean(way, kept, nodes[0], gradient, shared)
        alpha, weights = nodes[0].at.alpha.to(gradient), _weights(nodes, self.order)
        a, y = alpha * gradient, kept[nodes[0].row] / alpha
        slopes: list[Tensor] = []
        noises: list[Tensor] = []
        for step, node in enumerate(nodes[:-1]):
            slope = _slope(way, node.at.alpha.to(y) * y, node.at)
            slopes.append(slope.pulled(a, -weights[:, step].sum(), shared))
            noises.append(slope.noise.detach())
            a = a - _combined(weights[step], slopes)
            y = y + _combined(weights[step], noises)
        return a / nodes[-1].at.alpha.to(a)


def _check(order: int, steps: int | None) -> None:
    if order not in (1, 2):
        raise ValueError(f"The order of the way back is {order}; it must be 1 or 2.")
    if steps is not None and steps < 1:
        raise ValueError(f"The way back has {steps} steps; it needs one at least.")


def _refusal(tableau: Tableau, steps: int | None) -> str | None:
    last, available = tableau.rows[-1], len(_finite(tableau)) - 1
    if tableau.end.clean and bool((last.points[-1] != 0).any()):
        return (
            "The last step of this sampler is not the prediction of x_0, where the ODE's gradient "
            "begins; take Checkpoint()."
        )
    free = [row for row in tableau.rows if row.noisy and row.path is None]
    if free or bool(tableau.start_noise != 0):
        return (
            "This sampler draws noise that belongs to no reverse SDE (a Langevin corrector's, or "
            "EDM's churn), so there is no equation to follow back; take Checkpoint()."
        )
    if available < 1 or available < (steps or 1):
        return (
            f"The way back has {steps or 1} steps, but this run has {available} between points of "
            "finite log-SNR."
        )
    return None


def _cost(tableau: Tableau, steps: int | None, samples: int) -> Cost:
    ends = int(tableau.end.clean) + int(tableau.start.pure_noise)
    again = ends + len(_nodes(tableau, steps)) - 1
    return Cost(tableau.calls, again, again, samples, activations=1)


# -------------------------------------------------------------------------------------- nodes


class Node(NamedTuple):
    """A point between two steps of the sampler, and the row that evaluates it."""

    row: int
    at: Point


def _finite(tableau: Tableau) -> list[Node]:
    """The points between steps that have a finite log-SNR, noisiest first."""
    rows = tableau.rows
    begins = [k for k, row in enumerate(rows) if k == 0 or row.step != rows[k - 1].step]
    nodes = [*(Node(k, rows[k].at) for k in begins), Node(len(rows), tableau.end)]
    return [node for node in nodes if node.at.finite]


def _nodes(tableau: Tableau, steps: int | None) -> list[Node]:
    """Those that the way back takes, cleanest first and evenly spread."""
    finite = _finite(tableau)[::-1]
    if steps is None or steps >= len(finite):
        return finite
    return [finite[round(k * (len(finite) - 1) / steps)] for k in range(steps + 1)]


def _kept_ends(tableau: Tableau) -> set[int]:
    return {0} if tableau.start.pure_noise else set()


def _weights(nodes: Sequence[Node], order: int) -> Tensor:
    """What the slope at a node counts in a step: [steps, nodes], in units of rho.

    Of order 2 they are those of Adams-Bashforth for steps of any length.
    """
    h = torch.stack([node.at.rho for node in nodes]).diff()
    weights = torch.diag(h)
    if order == 2:
        ratio = h[1:] / h[:-1]
        weights += torch.diag(torch.cat([0 * h[:1], h[1:] * ratio / 2]))
        weights -= torch.diag(h[1:] * ratio / 2, -1)
    return weights


def _combined(weights: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    total = weights[len(slopes) - 1].to(slopes[-1]) * slopes[-1]
    if len(slopes) > 1:
        total = total + weights[len(slopes) - 2].to(total) * slopes[-2]
    return total


# -------------------------------------------------------------------------------- one call


@dataclass(frozen=True, eq=False)
class _Slope:
    """eps at a point, with the graph that leads to it from x and the network's output."""

    noise: Tensor
    x: Tensor
    output: Tensor
    at: Point
    recorded: RecordedCall

    def pulled(self, a: Tensor, weight: Tensor, shared: Shared) -> Tensor:
        """``a^T d eps / dy``; ``weight`` times the product for what is shared is added there."""
        of_x, of_output = torch.autograd.grad(self.noise, (self.x, self.output), a)
        product, of_shared = self.recorded.products((of_output,), shared)
        shared.add([None if g is None else weight.to(g) * g for g in of_shared])
        whole = of_x if product is None else of_x + product
        return self.at.alpha.to(whole) * whole


def _slope(way: Way, x: Tensor, at: Point) -> _Slope:
    recorded = way.record(x, at)
    x, output = (t.detach().requires_grad_() for t in (x, recorded.outputs[0]))
    with torch.enable_grad():
        data = _data(way, x, output, at)
        noise = (x - at.alpha.to(data) * data) / at.sigma.to(data)
    return _Slope(noise, x, output, at, recorded)


def _data(way: Way, x: Tensor, output: Tensor, at: Point) -> Tensor:
    """The prediction of x_0."""
    of_x, of_output = (number.to(x) for number in door(way.solver.prediction, at))
    data = of_x * x + of_output * output.to(x.dtype)
    return data if way.solver.correct is None else way.solver.correct(data)


def _from_clean(way: Way, kept: Kept, cleanest: Node, gradient: Tensor, shared: Shared) -> Tensor:
    """The gradient at the cleanest node, from that of the finished sample."""
    end = way.solver.tableau.end
    return _through_ddim(way, kept, cleanest, end, gradient, shared) if end.clean else gradient


def _to_pure_noise(way: Way, kept: Kept, noisiest: Node, a: Tensor, shared: Shared) -> Tensor:
    """The gradient of the starting noise, from a at the noisiest node."""
    start, gradient = way.solver.tableau.start, a / noisiest.at.alpha.to(a)
    if not start.pure_noise:
        return gradient
    return _through_ddim(way, kept, Node(0, start), noisiest.at, gradient, shared)


def _through_ddim(
    way: Way, kept: Kept, node: Node, reached: Point, gradient: Tensor, shared: Shared
) -> Tensor:
    """The gradient at a node, from that of the point which DDIM reaches from it; exact."""
    at, recorded = node.at, way.record(kept[node.row], node.at)
    x, output = (t.detach().requires_grad_() for t in (kept[node.row], recorded.outputs[0]))
    with torch.enable_grad():
        data = _data(way, x, output, at)
        ratio = reached.sigma / at.sigma
        made = ratio.to(data) * x + (reached.alpha - ratio * at.alpha).to(data) * data
    of_x, of_output = torch.autograd.grad(made, (x, output), gradient)
    product = recorded.product((of_output,), shared)
    return of_x if product is None else of_x + product
