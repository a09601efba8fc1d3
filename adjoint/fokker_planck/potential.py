r"""The residual of the log-density's Fokker-Planck equation, for networks that are a potential.

With ``log p_t = phi(x, t)`` up to a constant, of the forward SDE dx = f x dt + g dw in d
dimensions,

.. math:: R = \partial_t \phi + d f + f \, x \cdot \nabla\phi
    - \frac{g^2}{2} \big(\Delta\phi + |\nabla\phi|^2\big)

(Deveney et al. 2023, https://arxiv.org/abs/2311.15996). A function of t alone may be added to phi
without changing any score, so only differences of R at one time matter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from adjoint.fokker_planck.kinks import UNNAMED, LineFunction, find_kinks, has_hidden_kink
from samplers.schedule import Schedule

Potential = Callable[[Tensor, Tensor], Tensor]
"""``phi(x, t)``: x [B, d], t [B] -> [B]; each value depends on its own point alone."""


def potential_residual(phi: Potential, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """R at each point [B], by exact derivatives; gradients reach the weights of phi.

    Args:
        phi: the potential.
        schedule: of its diffusion, from which f and g follow.
        x: points [B, d].
        t: their times [B].

    Warns if phi has kinks, such as those of ``relu``, which exact derivatives do not see.
    """
    warn_of_kinks(phi, x, t)
    return exact_residual(phi, schedule, x, t)


def warn_of_kinks(phi: Potential, x: Tensor, t: Tensor) -> None:
    """Warn if second derivatives of phi at the points do not exist."""
    named = find_kinks(phi, x, t)
    if kinks := named or (UNNAMED,) * has_hidden_kink(_line(phi, x, t), _STEP):
        warnings.warn(
            f"The potential has kinks ({', '.join(kinks)}), which its second derivatives do not "
            "see, so its residual is wrong; take smooth activations, such as softplus or silu.",
            stacklevel=3,
        )


_STEP = 2e-2
"""Within which kinks are looked for, in units of the points' root mean square."""


def _line(phi: Potential, x: Tensor, t: Tensor) -> LineFunction:
    """Along a random probe."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1
    probe = x.detach().square().mean().sqrt() * signs

    def line(distance: float) -> tuple[Tensor, Tensor]:
        point = (x.detach() + distance * probe).requires_grad_()
        with torch.enable_grad():
            value = phi(point, t)
            (gradient,) = gradients(value, point)
        return value.detach(), (gradient * probe).sum(dim=1).detach()

    return line


def exact_residual(phi: Potential, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """:func:`potential_residual` of a potential that is known to be smooth."""
    x, t = x.detach().requires_grad_(), t.detach().requires_grad_()
    with torch.enable_grad():
        score, dphi_dt = gradients(phi(x, t), x, t)
        second = [gradients(each, x)[0][:, i] for i, each in enumerate(score.unbind(dim=1))]
    time = t.detach().double()
    drift, diffusion = schedule.drift(time).to(x), schedule.diffusion_squared(time).to(x)
    advection = drift * (x.shape[1] + (x * score).sum(dim=1))
    return dphi_dt + advection - diffusion / 2 * (sum(second) + score.square().sum(dim=1))


def gradients(values: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradient of each value, which depends on its own point alone."""
    total = values.sum()
    if not total.requires_grad:  # linear functions have no second derivative
        return tuple(torch.zeros_like(each) for each in inputs)
    return torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
