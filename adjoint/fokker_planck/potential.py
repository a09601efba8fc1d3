r"""The residual of the log-density's Fokker-Planck equation, for networks that are a potential.

With ``log p_t = phi(x, t)`` up to a constant, of the forward SDE dx = f x dt + g dw in d
dimensions,

.. math:: R = \partial_t \phi + d f + f \, x \cdot \nabla\phi
    - \frac{g^2}{2} \big(\Delta\phi + |\nabla\phi|^2\big)

(Deveney et al. 2023, https://arxiv.org/abs/2311.15996). A function of t alone may be added to phi
without changing any score, so of R only its differences within a time matter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp

from samplers.schedule import Schedule

Potential = Callable[[Tensor, Tensor], Tensor]
"""``phi(x, t)``: x [B, d], t [B] -> [B]; each value depends on its own point alone."""


def potential_residual(phi: Potential, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """R at each point [B], by exact derivatives; gradients pass through it to weights of phi."""

    def score(at: Tensor) -> Tensor:
        found: Tensor = grad(lambda point: phi(point, t).sum())(at)
        return found

    time = t.double()
    drift, spread = schedule.drift(time).to(x), schedule.diffusion_squared(time).to(x)
    slope = grad(lambda when: phi(x, when).sum())(t)
    s = score(x)
    axes = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    laplacian = torch.stack(
        [jvp(score, (x,), (axis.expand_as(x),))[1][:, i] for i, axis in enumerate(axes)]
    ).sum(dim=0)
    advection = drift * (x.shape[1] + (x * s).sum(dim=1))
    found: Tensor = slope + advection - spread / 2 * (laplacian + s.square().sum(dim=1))
    return found
