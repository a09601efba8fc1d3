r"""The residual of the score's Fokker-Planck equation, and its estimators.

For a denoiser D(z, ln rho) of z = x / alpha at rho = sigma / alpha the score is
:math:`(D - z) / \rho^2`, and it solves the Fokker-Planck equation of its diffusion if and only if

.. math:: R = \partial_{\ln \rho} D + 2 \, J_D \, (z - D) - \rho^2 \, \Delta D

is zero (the Laplacian for each component; :math:`R = \rho^3` times the residual of the score,
Lai et al. 2023, https://arxiv.org/abs/2210.04296, where D is a gradient). It has the unit of the
data at every noise level. The first two terms, the advective part, are one directional derivative
along ``(2 (z - D), 1)``; the third, the diffusive part, is the mean of second derivatives along
Rademacher probes v, ``E[v^T (d^2 D) v]`` (Hutchinson's estimator).

A network with kinks, such as those of ``relu``, has a Laplacian that is a distribution: its mean
over noisy samples exists, its mean square does not. Differences of D average it over their step,
the smoothing length h in units of rho. Their mean is then right to O(h^2), and their mean square
grows as 1 / h, so it has a meaning only beside h. Exact derivatives miss the kinks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.func import jvp

from adjoint.autograd.context import ExecutionContext
from adjoint.fokker_planck.coordinates import LevelDenoiser
from adjoint.fokker_planck.kinks import UNNAMED, LineFunction, find_kinks, has_hidden_kink
from samplers.prediction import per_sample

Estimator = Literal["exact", "forward", "stencil", "pullback"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)
_EXACT = ("exact", "forward")
"""Those that differentiate automatically, and miss kinks."""


class DifferenceSteps(NamedTuple):
    """Step sizes of finite differences.

    The defaults were measured on the bundled digits network: first derivatives err by less than
    0.3 % there, since its time embedding needs short steps, and second ones by less than 1 %.

    Attributes:
        first: of the first derivative, in units of ln rho.
        second: of the second derivative, in units of rho.
    """

    first: float
    second: float


_FINE = DifferenceSteps(1e-4, 1e-3)
_SINGLE: dict[str, DifferenceSteps] = {
    "stencil": DifferenceSteps(5e-4, 2e-2),
    "pullback": DifferenceSteps(5e-4, 5e-3),
}
"""In float32, where rounding is divided by the step, and by its square for the stencil."""
SMOOTHING = 2e-2
"""Step of the second derivative of a network with kinks, in both precisions: squares that belong to
different steps can't be compared."""


class ResidualMethod(NamedTuple):
    """How a residual is estimated.

    Attributes:
        estimator: the name of the estimator.
        steps: of its finite differences.
        kinks: the network's operations whose first derivative jumps, such as ``relu``.
    """

    estimator: Estimator
    steps: DifferenceSteps
    kinks: tuple[str, ...] = ()

    @property
    def smoothing(self) -> float | None:
        """The length over which kinks are averaged along each axis, in units of rho.

        None if there are none, or if exact derivatives ignore them.
        """
        return self.steps.second if self.kinks and self.estimator not in _EXACT else None


class Residual(NamedTuple):
    """Estimates of R at a batch of points.

    Attributes:
        advective: ``d_lnrho D + 2 J (z - D)`` [B, ...].
        diffusive: ``rho^2 v^T (d^2 D) v`` for each probe [K, B, ...]; their mean estimates the
            Laplacian.
        method: how they were estimated.
    """

    advective: Tensor
    diffusive: Tensor
    method: ResidualMethod

    @property
    def each(self) -> Tensor:
        """R by each probe, [K, B, ...]."""
        return self.advective - self.diffusive

    @property
    def mean(self) -> Tensor:
        """R, by the mean over the probes, [B, ...]."""
        return self.each.mean(dim=0)


def estimate_residual(
    denoiser: LevelDenoiser,
    z: Tensor,
    log_rho: Tensor,
    probes: Tensor,
    estimator: Estimator | None = None,
    steps: DifferenceSteps | None = None,
) -> Residual:
    """Estimate the residual; gradients reach whatever the denoiser holds.

    Args:
        denoiser: D(z, ln rho).
        z: points [B, ...].
        log_rho: their noise levels [B], in the dtype of z.
        probes: Rademacher probes, random signs [K, B, ...]; ``exact`` ignores them.
        estimator: chosen by :func:`choose_method` if None.

            ============  ==================================================================
            ``exact``     forward-mode derivatives along every axis; for few dimensions
            ``forward``   forward-mode derivatives along the probes
            ``stencil``   central differences of D itself, for any function
            ``pullback``  central differences of vector-Jacobian products, more accurate in
                          float32; R of the gradient's form, which is R if D is the gradient
                          of a function
            ============  ==================================================================
        steps: step sizes of the differences.

    Raises ValueError for an unknown estimator. Warns if exact derivatives would miss a kink.
    """
    method = choose_method(denoiser, z, log_rho, estimator, steps)
    return estimate_by(method, denoiser, z, log_rho, probes)


def estimate_by(
    method: ResidualMethod, denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor, probes: Tensor
) -> Residual:
    """:func:`estimate_residual` by a method that was chosen before."""
    match method.estimator:
        case "exact":
            parts = _exact(denoiser, z, log_rho)
        case "forward":
            parts = _forward(denoiser, z, log_rho, probes)
        case "stencil":
            parts = _stencil(denoiser, z, log_rho, probes, method.steps)
        case "pullback":
            parts = _pullback(denoiser, z, log_rho, probes, method.steps)
    return Residual(*parts, method)


def choose_method(
    denoiser: LevelDenoiser,
    z: Tensor,
    log_rho: Tensor,
    estimator: Estimator | None = None,
    steps: DifferenceSteps | None = None,
) -> ResidualMethod:
    """The best estimator that all layers of the network support, and its steps.

    ``stencil`` if a layer has a kink; else ``forward`` if every layer has forward-mode derivatives;
    else ``stencil`` in float64 and ``pullback`` in float32, or ``stencil`` there as well if
    gradients are recorded and a layer has no second derivative. Attention on a CPU has neither.

    It evaluates the network on this batch, since conditions may belong to its samples, and discards
    the results: choose once, and pass the method on. An estimator or steps that are given are
    taken. Raises ValueError for an unknown estimator. Warns if exact derivatives would miss a kink.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise ValueError(
            f"The estimator is {estimator!r}; it must be one of {', '.join(ESTIMATORS)}."
        )
    kinks = find_kinks(denoiser, z, log_rho)
    chosen = estimator or ("stencil" if kinks else _supported(denoiser, z, log_rho))
    if chosen in _EXACT and not kinks and has_hidden_kink(_line(denoiser, z, log_rho), SMOOTHING):
        kinks, chosen = (UNNAMED,), estimator or "stencil"
    if kinks and chosen in _EXACT:
        warnings.warn(
            f"The network has kinks ({', '.join(kinks)}), which {chosen} derivatives do not see, "
            "so the diffusive part of the residual is wrong; take the estimator stencil.",
            stacklevel=2,
        )
    return ResidualMethod(chosen, steps or _default_steps(chosen, z.dtype, bool(kinks)), kinks)


def _default_steps(estimator: Estimator, dtype: torch.dtype, kinked: bool) -> DifferenceSteps:
    steps = _FINE if dtype == torch.float64 else _SINGLE.get(estimator, _FINE)
    return steps._replace(second=SMOOTHING) if kinked else steps


def _line(denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor) -> LineFunction:
    """Along a random probe, in units of rho, with the random numbers of one evaluation."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, z.shape, generator=generator).to(z) * 2 - 1
    probe, context = per_sample(log_rho.exp(), z) * signs, ExecutionContext.capture(z)

    def line(distance: float) -> tuple[Tensor, Tensor]:
        with context.restored():
            point = z.detach() + distance * probe
            value, slope, *_ = jvp(lambda at: denoiser(at, log_rho), (point,), (probe,))
        return value, slope

    return line


def _supported(denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor) -> Estimator:
    if _works(lambda: _forward(denoiser, z, log_rho, torch.ones_like(z[None]))):
        return "forward"
    if z.dtype == torch.float64:
        return "stencil"
    if torch.is_grad_enabled() and not _works(lambda: _second_derivative(denoiser, z, log_rho)):
        return "stencil"
    return "pullback"


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _second_derivative(denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor) -> Tensor:
    point = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(denoiser(point, log_rho).sum(), point, create_graph=True)
    return torch.autograd.grad(slope.sum(), point)[0]


def squared_norms(found: Residual) -> Tensor:
    r"""``|R|^2 / d`` of each sample, [B], without bias.

    That of a network with kinks is of the residual averaged over ``found.method.smoothing``, and
    grows as one over this length.

    With K >= 2 probes it is the mean of :math:`\langle R_i, R_j \rangle` over pairs of different
    probes; the square of one estimate is too large by the variance of the probe. Raises ValueError
    for one probe.
    """
    each = found.each.flatten(2)
    count = len(each)
    if count < 2:
        raise ValueError("One probe gives a squared norm that is too large; pass two or more.")
    pairs = each.sum(dim=0).square() - each.square().sum(dim=0)
    return pairs.mean(dim=1) / (count * (count - 1))


def squared_norm(found: Residual) -> tuple[Tensor, Tensor]:
    """The mean of :func:`squared_norms` over the batch, and its standard error."""
    values = squared_norms(found)
    if len(values) == 1:
        return values.mean(), values.new_tensor(math.nan)
    return values.mean(), values.std() / math.sqrt(len(values))


# --------------------------------------------------------------------------------- estimators


_Parts = tuple[Tensor, Tensor]
"""The advective and the diffusive part."""


def _exact(denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor) -> _Parts:
    axes = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device)
    probes = axes.reshape(-1, 1, *z.shape[1:]).expand(-1, *z.shape)
    advective, diffusive = _forward(denoiser, z, log_rho, probes)
    return advective, diffusive.sum(dim=0, keepdim=True)


def _forward(denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor, probes: Tensor) -> _Parts:
    def along(direction: Tensor) -> Callable[[Tensor], Tensor]:
        def slope(point: Tensor) -> Tensor:
            found: Tensor = jvp(lambda at: denoiser(at, log_rho), (point,), (direction,))[1]
            return found

        return slope

    d = denoiser(z, log_rho)
    advective: Tensor = jvp(denoiser, (z, log_rho), (2 * (z - d), torch.ones_like(log_rho)))[1]
    second = [jvp(along(v), (z,), (v,))[1] for v in probes]
    return advective, _variance(z, log_rho) * torch.stack(second)


def _stencil(
    denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor, probes: Tensor, steps: DifferenceSteps
) -> _Parts:
    d = denoiser(z, log_rho)
    e, h = steps.first, steps.second * per_sample(log_rho.exp(), z)
    # The direction is of the size of rho, so these steps are relative to it, too.
    direction = 2 * (z - d)
    ahead, behind = (denoiser(z + sign * e * direction, log_rho + sign * e) for sign in (1.0, -1.0))
    second = [denoiser(z + h * v, log_rho) - 2 * d + denoiser(z - h * v, log_rho) for v in probes]
    return (ahead - behind) / (2 * e), torch.stack(second) / steps.second**2


def _pullback(
    denoiser: LevelDenoiser, z: Tensor, log_rho: Tensor, probes: Tensor, steps: DifferenceSteps
) -> _Parts:
    create_graph = torch.is_grad_enabled()

    def vjp(point: Tensor, v: Tensor) -> Tensor:
        """``v^T J_D``."""
        point = point if point.requires_grad else point.detach().requires_grad_()
        with torch.enable_grad():
            found = torch.autograd.grad(
                denoiser(point, log_rho), point, v, create_graph=create_graph
            )
        return found[0]

    d, e, rho = denoiser(z, log_rho), steps.first, per_sample(log_rho.exp(), z)
    h = steps.second * rho
    slope = (denoiser(z, log_rho + e) - denoiser(z, log_rho - e)) / (2 * e)
    second = [vjp(z + h * v, v) - vjp(z - h * v, v) for v in probes]
    diffusive = rho * torch.stack(second) / (2 * steps.second)
    return slope + vjp(z, 2 * (z - d)), diffusive


def _variance(z: Tensor, log_rho: Tensor) -> Tensor:
    return per_sample((2 * log_rho).exp(), z)
