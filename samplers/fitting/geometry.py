r"""The choice of levels by the geometry of trajectories (GITS).

A pilot bends away from the straight line between its ends. An Euler step from knot i to knot j, in
y = x / alpha as a function of rho = sigma / alpha, ends too far from that line; by how much is the
cost of the step, and dynamic programming finds the n steps of least total cost

.. math:: V_n(i) = \min_j \; \mathrm{cost}(i, j) + \gamma V_{n-1}(j)

(Chen et al. 2024, *On the Trajectory Regularity of ODE-based Diffusion Sampling*,
https://arxiv.org/abs/2405.11326, section 5). It knows no sampler but Euler's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samplers.fitting.pilots import PilotRun, evaluated_at

COEFFICIENTS = (1.15, 1.0, 1.3)
"""gamma: that of the authors first."""


def step_costs(pilots: PilotRun) -> Tensor:
    """The cost of a step from each knot to each later one [m, m + 1], the last being clean data;
    infinite for steps that do not lead on."""
    at = evaluated_at(pilots.tableau)
    x, data, end = (values.double().cpu() for values in (pilots.x, pilots.data, pilots.end))
    count = len(at.t)
    # The direction of the line, x_T - alpha_T x_0, is that of y_T - y_0, and finite at pure noise.
    along = torch.nn.functional.normalize(x[:, 0] - at.alpha[0] * end, dim=1)

    def away(y: Tensor) -> Tensor:
        """The distances of points y [N, k, d] from the lines [N, k]."""
        rest = y - end[:, None]
        across = rest - (rest * along[:, None]).sum(dim=2, keepdim=True) * along[:, None]
        distance: Tensor = across.norm(dim=2)
        return distance

    own = away(x[:, 1:] / at.alpha[1:, None])
    own = torch.cat([own, torch.zeros_like(own[:, :1])], dim=1)
    rho = torch.cat([at.rho[1:], torch.zeros(1, dtype=torch.float64)])
    costs = torch.full((count, count + 1), torch.inf, dtype=torch.float64)
    for i in range(count):
        ratio = rho[i:, None] / at.sigma[i]
        reached = ratio * x[:, i, None] + (1 - ratio * at.alpha[i]) * data[:, i, None]
        costs[i, i + 1 :] = (away(reached) - own[:, i:]).mean(dim=0)
    return costs


def cheapest(costs: Tensor, steps: int, coefficient: float) -> list[int]:
    """The knots at which the steps of least cost begin [steps], the first knot first.

    Raises ValueError for more steps than there are knots.
    """
    count = len(costs)
    if not 1 <= steps <= count:
        raise ValueError(f"{steps} steps can't be chosen from {count} knots.")
    value, choices = costs[:, -1], []
    for _ in range(steps - 1):
        total = costs[:, :-1] + coefficient * value
        value, choice = total.min(dim=1)
        choices.append(choice)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path
