"""The Fokker-Planck residual: how far a score is from that of any diffusion process.

Where it is zero, samples of the probability-flow ODE and of the reverse SDE have one law.

Here live the denoiser in the coordinates in which the residual has one form (``denoiser``), its
estimators (``residual``), the residual of a potential (``potential``), both as regularisers
(``penalty``), how large it is at each noise level (``profile``), laws on points (``law``), the gap
between samples of the ODE and of the SDE (``gap``), and how the residual bounds it (``bound``).
Networks, schedules and samplers are those of :mod:`samplers`.
"""

from adjoint.fokker_planck.bound import Bound, Instant, bound, divergence, instant
from adjoint.fokker_planck.denoiser import Denoiser, denoiser_of
from adjoint.fokker_planck.gap import (
    Gap,
    binned_wasserstein,
    centred,
    energy_distance,
    exact_wasserstein,
    floor,
    ode_sde_gap,
    sliced_wasserstein,
    wasserstein,
)
from adjoint.fokker_planck.law import Law, grid, of_potential, of_samples, on_cells
from adjoint.fokker_planck.penalty import potential_penalty, score_penalty
from adjoint.fokker_planck.potential import Potential, potential_residual
from adjoint.fokker_planck.profile import Level, residual_profile
from adjoint.fokker_planck.residual import (
    ESTIMATORS,
    Estimator,
    Residual,
    Steps,
    choose_estimator,
    residual,
    squared_norm,
    squared_norms,
)

__all__ = [
    "ESTIMATORS",
    "Bound",
    "Denoiser",
    "Estimator",
    "Gap",
    "Instant",
    "Law",
    "Level",
    "Potential",
    "Residual",
    "Steps",
    "binned_wasserstein",
    "bound",
    "centred",
    "choose_estimator",
    "denoiser_of",
    "divergence",
    "energy_distance",
    "exact_wasserstein",
    "floor",
    "grid",
    "instant",
    "ode_sde_gap",
    "of_potential",
    "of_samples",
    "on_cells",
    "potential_penalty",
    "potential_residual",
    "residual",
    "residual_profile",
    "score_penalty",
    "sliced_wasserstein",
    "squared_norm",
    "squared_norms",
    "wasserstein",
]
