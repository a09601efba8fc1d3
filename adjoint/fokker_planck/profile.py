"""How large the residual of a denoiser is at each noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.denoiser import Denoiser
from adjoint.fokker_planck.residual import Estimator, choose_estimator, residual, squared_norm


class Level(NamedTuple):
    """Root mean squares over samples and their numbers, in the unit of the data.

    Attributes:
        rho: sigma / alpha.
        squared, error: the mean of |R|^2 / d, without a bias, and its standard error.
        advective, diffusive: of the two parts of R; of the latter the scatter of a probe is in it.
        denoised: of the denoiser's own answer, to compare with.
    """

    rho: float
    squared: float
    error: float
    advective: float
    diffusive: float
    denoised: float

    @property
    def rms(self) -> float:
        """Of the residual; 0 where the estimate of its square is negative."""
        return math.sqrt(max(self.squared, 0.0))


def residual_profile(
    denoiser: Denoiser,
    x0: Tensor,
    rhos: Sequence[float],
    *,
    probes: int = 4,
    seed: int = 0,
    estimator: Estimator | None = None,
    tick: Callable[[], object] = lambda: None,
) -> tuple[list[Level], Estimator]:
    """Measure the residual at noisy samples ``x0 + rho eps`` of data x0 [B, ...].

    Returns a level for each rho, and the estimator that was taken; see
    :func:`adjoint.fokker_planck.residual.residual`. Raises ValueError for fewer than two probes.
    """
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(x0)
    signs = torch.randint(2, (probes, *x0.shape), generator=generator).to(x0) * 2 - 1
    first = torch.full((len(x0),), math.log(rhos[0]), dtype=x0.dtype, device=x0.device)
    chosen = choose_estimator(denoiser, x0, first) if estimator is None else estimator
    levels = []
    for rho in rhos:
        log_rho = torch.full((len(x0),), math.log(rho), dtype=x0.dtype, device=x0.device)
        z = x0 + rho * eps
        found = residual(denoiser, z, log_rho, signs, chosen)
        squared, error = squared_norm(found)
        parts = (found.advective, found.diffusive, denoiser(z, log_rho))
        rms = [float(part.detach().square().mean().sqrt()) for part in parts]
        levels.append(Level(rho, float(squared.detach()), float(error.detach()), *rms))
        tick()
    return levels, chosen
