"""The residual of a model: at given points, and its size at each noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.coordinates import level_denoiser
from adjoint.fokker_planck.estimators import (
    DifferenceSteps,
    Estimator,
    Residual,
    ResidualMethod,
    choose_method,
    estimate_by,
    estimate_residual,
    squared_norm,
)
from samplers.denoiser import Denoiser
from samplers.prediction import per_sample


def score_residual(
    model: Denoiser,
    x: Tensor,
    t: Tensor,
    probes: Tensor,
    *,
    conditions: Mapping[str, Any] | None = None,
    estimator: Estimator | None = None,
    steps: DifferenceSteps | None = None,
) -> Residual:
    r"""The Fokker-Planck residual of a model at noisy samples; gradients reach its weights.

    .. math:: R = \partial_{\ln \rho} D + 2 \, J_D \, (z - D) - \rho^2 \, \Delta D,
        \qquad z = x / \alpha, \; \rho = \sigma / \alpha

    It is zero if and only if the model is the score of a diffusion process; see
    :mod:`adjoint.fokker_planck.estimators`.

    Args:
        model: taken without its correction.
        x: noisy samples [B, ...].
        t: their times [B] in float64, of the model's schedule, with sigma > 0.
        probes: Rademacher probes, random signs [K, B, ...].
        conditions: given to the model by name.
        estimator: ``exact``, ``forward``, ``stencil`` or ``pullback``; chosen by the layers of the
            network if None.
        steps: step sizes of finite differences.

    Raises ValueError for an unknown estimator. Warns if the network has kinks, such as those of
    ``relu``, and the estimator would miss them. ``method`` of the result says over which length
    kinks were averaged.
    """
    at = model.schedule.point(t.double())
    z, log_rho = x / per_sample(at.alpha, x), -at.lam.to(x)
    denoiser = level_denoiser(model, conditions)
    return estimate_residual(denoiser, z, log_rho, probes, estimator, steps)


class ResidualLevel(NamedTuple):
    """The residual at one noise level, over samples and their components, in units of the data.

    Attributes:
        rho: sigma / alpha.
        squared, error: the mean of ``|R|^2 / d``, without bias, and its standard error.
        advective, diffusive: root mean squares of the two parts of R; that of the latter includes
            the scatter of a probe.
        denoised: root mean square of the denoiser's output, for comparison.
    """

    rho: float
    squared: float
    error: float
    advective: float
    diffusive: float
    denoised: float

    @property
    def rms(self) -> float:
        """Root mean square of the residual; 0 if the estimate of its square is negative."""
        return math.sqrt(max(self.squared, 0.0))


def residual_profile(
    model: Denoiser,
    x0: Tensor,
    rhos: Sequence[float],
    *,
    conditions: Mapping[str, Any] | None = None,
    probes: int = 4,
    seed: int = 0,
    estimator: Estimator | None = None,
    tick: Callable[[], object] = lambda: None,
) -> tuple[list[ResidualLevel], ResidualMethod]:
    """The size of the residual at each noise level, at noisy samples ``x0 + rho eps``.

    Args:
        model: taken without its correction.
        x0: samples of the data [B, ...], in units of the model.
        rhos: noise levels sigma / alpha.
        conditions: given to the model by name.
        probes: two or more.
        seed: of the noise and the probes.
        estimator: see :func:`score_residual`.
        tick: called after each level.

    Returns a level for each rho, and the method that was used. Raises ValueError for fewer than
    two probes. Warns as :func:`score_residual` does.
    """
    denoiser = level_denoiser(model, conditions)
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0)
    signs = torch.randint(2, (probes, *x0.shape), generator=generator).to(x0) * 2 - 1
    levels_in_turn = [rhos[i % len(rhos)] for i in range(len(x0))]
    some = torch.tensor(levels_in_turn, dtype=torch.float64).to(x0)
    method = choose_method(denoiser, x0 + per_sample(some, x0) * eps, some.log(), estimator)
    levels = []
    for rho in rhos:
        log_rho = torch.full((len(x0),), math.log(rho), dtype=x0.dtype, device=x0.device)
        z = x0 + rho * eps
        found = estimate_by(method, denoiser, z, log_rho, signs)
        squared, error = squared_norm(found)
        parts = (found.advective, found.diffusive, denoiser(z, log_rho))
        rms = [float(part.detach().square().mean().sqrt()) for part in parts]
        levels.append(ResidualLevel(rho, float(squared.detach()), float(error.detach()), *rms))
        tick()
    return levels, method
