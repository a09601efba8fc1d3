"""The Fokker-Planck residual: how far a model's score is from that of any diffusion process.

Where it is zero, samples of the probability-flow ODE and of the reverse SDE have one distribution.

Here live the residual of a model (``profile``) and of a potential (``potential``), the estimators
of the former (``estimators``), its coordinates (``coordinates``) and the kinks that they must not
miss (``kinks``), both as regularisers (``penalty``), the gap between samples of the ODE and of the
SDE (``gap``) and the samples that dominate it (``escape``), distances of distributions
(``distances``, ``distribution``), and the bound of the gap by the residual (``bound``). Networks,
schedules and samplers belong to :mod:`samplers`.
"""

from adjoint.fokker_planck.bound import (
    BoundTerms,
    GapBound,
    bound_terms,
    gap_bound,
    kl_divergence,
)
from adjoint.fokker_planck.coordinates import level_denoiser
from adjoint.fokker_planck.distances import (
    Distance,
    binned_wasserstein,
    debiased,
    energy_distance,
    exact_wasserstein,
    sliced_wasserstein,
    split_half_distance,
    wasserstein,
)
from adjoint.fokker_planck.distribution import (
    Distribution,
    binned,
    empirical,
    of_potential,
    regular_grid,
)
from adjoint.fokker_planck.escape import Box, Escape, bulk_of, escaped, range_of
from adjoint.fokker_planck.estimators import (
    ESTIMATORS,
    DifferenceSteps,
    Estimator,
    Residual,
    ResidualMethod,
    squared_norm,
    squared_norms,
)
from adjoint.fokker_planck.gap import Gap, measure_gap, ode_sde_gap
from adjoint.fokker_planck.penalty import potential_penalty, score_penalty
from adjoint.fokker_planck.potential import Potential, potential_residual
from adjoint.fokker_planck.profile import ResidualLevel, residual_profile, score_residual

__all__ = [
    "ESTIMATORS",
    "BoundTerms",
    "Box",
    "DifferenceSteps",
    "Distance",
    "Distribution",
    "Escape",
    "Estimator",
    "Gap",
    "GapBound",
    "Potential",
    "Residual",
    "ResidualLevel",
    "ResidualMethod",
    "binned",
    "binned_wasserstein",
    "bound_terms",
    "bulk_of",
    "debiased",
    "empirical",
    "energy_distance",
    "escaped",
    "exact_wasserstein",
    "gap_bound",
    "kl_divergence",
    "level_denoiser",
    "measure_gap",
    "ode_sde_gap",
    "of_potential",
    "potential_penalty",
    "potential_residual",
    "range_of",
    "regular_grid",
    "residual_profile",
    "score_penalty",
    "score_residual",
    "sliced_wasserstein",
    "split_half_distance",
    "squared_norm",
    "squared_norms",
    "wasserstein",
]
