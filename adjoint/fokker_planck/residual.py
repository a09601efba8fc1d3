r"""The residual of the score's Fokker-Planck equation, and its estimators.

For a denoiser D(z, ln rho) of z = x / alpha at rho = sigma / alpha the score is
:math:`(D - z) / \rho^2`, and it solves the Fokker-Planck equation of its diffusion if and only if

.. math:: R = \partial_{\ln \rho} D + 2 \, J_D \, (z - D) - \rho^2 \, \Delta D

is zero (the Laplacian for each component; :math:`R = \rho^3` times the residual of the score,
Lai et al. 2023, https://arxiv.org/abs/2210.04296, where D is a gradient). It has the unit of the
data at every noise level. The first two terms are one derivative along ``(2 (z - D), 1)``, the
advective part; the third is the mean of second derivatives along random signs v, the diffusive
part, ``E[v^T (d^2 D) v]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.func import jvp

from adjoint.fokker_planck.denoiser import Denoiser

Estimator = Literal["exact", "forward", "stencil", "pullback"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)

_STEP = {torch.float64: 3e-3, torch.float32: 2e-2}
"""Of differences, in units of rho and of ln rho: where rounding and truncation are balanced."""


class Residual(NamedTuple):
    """Estimates of R at a batch of points.

    advective: ``d_lnrho D + 2 J (z - D)`` [B, ...].
    diffusive: ``rho^2 v^T (d^2 D) v`` for each probe [K, B, ...]; their mean is the Laplacian's.
    """

    advective: Tensor
    diffusive: Tensor

    @property
    def each(self) -> Tensor:
        """R by each probe, [K, B, ...]."""
        return self.advective - self.diffusive

    @property
    def mean(self) -> Tensor:
        """R, by the mean over the probes, [B, ...]."""
        return self.each.mean(dim=0)


def residual(
    denoiser: Denoiser,
    z: Tensor,
    log_rho: Tensor,
    probes: Tensor,
    estimator: Estimator | None = None,
    step: float | None = None,
) -> Residual:
    """Estimate the residual; gradients pass through it to whatever the denoiser holds.

    z: [B, ...]; log_rho: [B], of the dtype of z.
    probes: random signs [K, B, ...]; ``exact`` does not read them.
    estimator: :func:`choose_estimator` if None.

        ``exact``     forward derivatives along every axis; for few dimensions
        ``forward``   forward derivatives along the probes
        ``stencil``   central differences of D itself, for any function
        ``pullback``  central differences of products with the transposed Jacobian, more exact in
                      float32; R of the gradient's form, which is R if D is the gradient of a
                      function
    step: of the differences, in units of rho and of ln rho.

    Raises ValueError for an unknown estimator.
    """
    chosen = choose_estimator(denoiser, z, log_rho) if estimator is None else estimator
    if chosen not in ESTIMATORS:
        raise ValueError(f"The estimator is {chosen!r}; it must be one of {', '.join(ESTIMATORS)}.")
    h = _STEP.get(z.dtype, 2e-2) if step is None else step
    match chosen:
        case "exact":
            return _exact(denoiser, z, log_rho)
        case "forward":
            return _forward(denoiser, z, log_rho, probes)
        case "stencil":
            return _stencil(denoiser, z, log_rho, probes, h)
        case "pullback":
            return _pullback(denoiser, z, log_rho, probes, h)


def choose_estimator(denoiser: Denoiser, z: Tensor, log_rho: Tensor) -> Estimator:
    """``forward`` if every layer has forward derivatives (attention on a CPU has none); else
    ``stencil`` in float64 and ``pullback`` in float32."""
    try:
        _forward(denoiser, z[:1], log_rho[:1], torch.ones_like(z[None, :1]))
    except (RuntimeError, NotImplementedError):
        return "stencil" if z.dtype == torch.float64 else "pullback"
    return "forward"


def squared_norms(found: Residual) -> Tensor:
    r"""``|R|^2 / d`` of each sample, [B], without a bias.

    With K >= 2 probes it is the mean of :math:`\langle R_i, R_j \rangle` over pairs of different
    probes; the square of one estimate is too large by the variance of the probe. Raises ValueError
    for one probe.
    """
    each = found.each.flatten(2)
    count = len(each)
    if count < 2:
        raise ValueError("One probe gives a squared norm that is too large; take two or more.")
    pairs = each.sum(dim=0).square() - each.square().sum(dim=0)
    return pairs.mean(dim=1) / (count * (count - 1))


def squared_norm(found: Residual) -> tuple[Tensor, Tensor]:
    """The mean of :func:`squared_norms` over the batch, and its standard error."""
    values = squared_norms(found)
    if len(values) == 1:
        return values.mean(), values.new_tensor(math.nan)
    return values.mean(), values.std() / math.sqrt(len(values))


# --------------------------------------------------------------------------------- estimators


def _exact(denoiser: Denoiser, z: Tensor, log_rho: Tensor) -> Residual:
    axes = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device)
    probes = axes.reshape(-1, 1, *z.shape[1:]).expand(-1, *z.shape)
    found = _forward(denoiser, z, log_rho, probes)
    return Residual(found.advective, found.diffusive.sum(dim=0, keepdim=True))


def _forward(denoiser: Denoiser, z: Tensor, log_rho: Tensor, probes: Tensor) -> Residual:
    def along(direction: Tensor) -> Callable[[Tensor], Tensor]:
        def slope(point: Tensor) -> Tensor:
            found: Tensor = jvp(lambda at: denoiser(at, log_rho), (point,), (direction,))[1]
            return found

        return slope

    d = denoiser(z, log_rho)
    advective: Tensor = jvp(denoiser, (z, log_rho), (2 * (z - d), torch.ones_like(log_rho)))[1]
    second = [jvp(along(v), (z,), (v,))[1] for v in probes]
    return Residual(advective, _variance(z, log_rho) * torch.stack(second))


def _stencil(
    denoiser: Denoiser, z: Tensor, log_rho: Tensor, probes: Tensor, step: float
) -> Residual:
    d = denoiser(z, log_rho)
    way, h = 2 * (z - d), step * _per_sample(log_rho.exp(), z)
    # The way is of the size of rho, so these are steps of its fraction, too.
    ahead, behind = (denoiser(z + sign * step * way, log_rho + sign * step) for sign in (1.0, -1.0))
    advective = (ahead - behind) / (2 * step)
    second = [
        (denoiser(z + h * v, log_rho) - 2 * d + denoiser(z - h * v, log_rho)) / step**2
        for v in probes
    ]
    return Residual(advective, torch.stack(second))


def _pullback(
    denoiser: Denoiser, z: Tensor, log_rho: Tensor, probes: Tensor, step: float
) -> Residual:
    wanted = torch.is_grad_enabled()

    def pulled(point: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """D, and its transposed Jacobian times v."""
        point = point if point.requires_grad else point.detach().requires_grad_()
        with torch.enable_grad():
            d = denoiser(point, log_rho)
            (product,) = torch.autograd.grad(d, point, v, create_graph=wanted)
        return (d, product) if wanted else (d.detach(), product)

    d, _ = pulled(z, torch.zeros_like(z))
    _, along = pulled(z, 2 * (z - d))
    slope = (denoiser(z, log_rho + step) - denoiser(z, log_rho - step)) / (2 * step)
    rho = _per_sample(log_rho.exp(), z)
    h = step * rho
    second = [(pulled(z + h * v, v)[1] - pulled(z - h * v, v)[1]) / (2 * step) for v in probes]
    return Residual(slope + along, rho * torch.stack(second))


def _variance(z: Tensor, log_rho: Tensor) -> Tensor:
    return _per_sample((2 * log_rho).exp(), z)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))
