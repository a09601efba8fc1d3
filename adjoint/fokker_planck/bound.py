r"""A bound of the gap between ODE and SDE samples by the residual of a potential.

Let :math:`\hat p_t = e^{\phi_t} / Z_t`, q_t the distribution of the reverse SDE that is driven by
:math:`s = \nabla\phi` and starts from pi at the time T, and R the residual of phi. Then

.. math:: \tfrac12 \int_0^T g^2 \, E_{q_t} |s - \nabla \log q_t|^2 \, dt + KL(q_0 \| \hat p_0)
    = KL(\pi \| \hat p_T) + \int_0^T (E_{q_t} R - E_{\hat p_t} R) \, dt,

so the residual bounds how far s is from the score of its own samples. The ODE that transports q_t
differs from the one of s by :math:`g^2 / 2` times that, and by Gronwall's and Schwarz's
inequalities

.. math:: W_2(p_{ODE}, q_0)^2 \le \int_0^T \tfrac12 g^2 e^{2 \int_0^t L} \, dt
    \cdot \tfrac12 \int_0^T g^2 \, E_{q_t} |s - \nabla \log q_t|^2 \, dt,

with L the one-sided Lipschitz constant of the ODE's field, solved from noise to data. It is a
theorem in the spirit of Deveney et al. 2023 (https://arxiv.org/abs/2311.15996), and as theirs it is
far from tight where L is large. Every distribution with the mean and the covariance of q_0 has
W_2^2 <= 2 tr Cov(q_0) from it, the mean squared distance of two independent samples: a bound that
is not below this is vacuous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.distribution import Distribution, of_potential
from adjoint.fokker_planck.potential import Potential, gradients, potential_residual
from samplers.schedule import Schedule


class BoundTerms(NamedTuple):
    """The terms of the bound at one time.

    Attributes:
        t: the time.
        diffusion_squared: g^2.
        excess: the mean of R under q_t, minus that under exp(phi_t) / Z_t.
        error: its standard error, for independent samples of q_t.
        lipschitz: L, the largest rate at which two trajectories of the ODE diverge towards the
            data.
        spread: 2 tr Cov(q_t), the mean squared distance of two independent samples.
    """

    t: float
    diffusion_squared: float
    excess: float
    error: float
    lipschitz: float
    spread: float


class GapBound(NamedTuple):
    """The bound, integrated over time.

    Attributes:
        score_error: ``1/2 int g^2 E_q |s - grad log q|^2 dt`` and KL(q_0 | p_0), neither negative.
        error: its standard error at most, as if all times were perfectly correlated: samples of q_t
            at different times belong to the same paths.
        distance_squared: upper bound of W_2^2 between ODE and SDE samples, with two of these
            errors; infinite if it overflows.
        spread: 2 tr Cov(q_0), by the samples of the reverse SDE at the first time.
    """

    score_error: float
    error: float
    distance_squared: float
    spread: float

    @property
    def vacuous(self) -> bool:
        """Whether any distribution with the mean and the covariance of q_0 is as near to it."""
        return not self.distance_squared < self.spread

    def __str__(self) -> str:
        bound = f"W2^2 <= {self.distance_squared:.3g}"
        if not self.vacuous:
            return bound
        return (
            f"{bound}, which is vacuous: two independent samples of the SDE have the mean squared "
            f"distance {self.spread:.3g}"
        )


def bound_terms(
    phi: Potential, schedule: Schedule, t: Tensor, samples: Distribution, points: Tensor
) -> BoundTerms:
    """The terms at the time t, a scalar in float64.

    Args:
        phi: the potential.
        schedule: of its diffusion.
        t: the time.
        samples: q_t, of the reverse SDE.
        points: a regular grid [N, d] over the support of exp(phi_t), such as
            :func:`adjoint.fokker_planck.regular_grid`; L is the largest value on it.
    """
    own, other = (
        potential_residual(phi, schedule, x, t.to(x).expand(len(x))).detach()
        for x in (samples.points, points)
    )
    mean = samples.mean(own)
    variance = samples.mean((own - mean).square()) * samples.probabilities.square().sum()
    excess = mean - of_potential(phi, t, points).mean(other)
    lipschitz = one_sided_lipschitz(phi, schedule, t, points).max()
    spread = 2 * samples.mean((samples.points - samples.centre).square().sum(dim=1))
    found = (schedule.diffusion_squared(t), excess, variance.sqrt(), lipschitz, spread)
    return BoundTerms(float(t), *map(float, found))


def gap_bound(terms: Sequence[BoundTerms], initial_kl: float) -> GapBound:
    """Integrate over increasing times by the trapezoidal rule.

    Args:
        terms: at each time.
        initial_kl: KL(pi | p_T) at the last of them.
    """
    columns = (torch.tensor(column, dtype=torch.float64) for column in zip(*terms, strict=True))
    t, diffusion, excess, scatter, rate, spread = columns
    ends = torch.cat([t[:1], t, t[-1:]])
    weights = (ends[2:] - ends[:-2]) / 2  # of the trapezoidal rule
    error = float(weights @ scatter)
    score_error = initial_kl + float(weights @ excess)
    growth = torch.cat([t.new_zeros(1), torch.cumulative_trapezoid(rate, t)])
    factor = float(weights @ (diffusion / 2 * (2 * growth).exp()))
    most = max(0.0, score_error + 2 * error)
    bound = math.inf if math.isinf(factor) else factor * most
    return GapBound(score_error, error, bound, float(spread[0]))


def one_sided_lipschitz(phi: Potential, schedule: Schedule, t: Tensor, points: Tensor) -> Tensor:
    r"""The largest eigenvalue of :math:`\frac{g^2}{2} \nabla^2 \phi - f I` at each point [N]."""
    x = points.detach().requires_grad_()
    with torch.enable_grad():
        score = gradients(phi(x, t.to(x).expand(len(x))), x)[0]
        rows = [gradients(each, x)[0] for each in score.unbind(dim=1)]
    largest = torch.linalg.eigvalsh(torch.stack(rows, dim=1)).amax(dim=1)
    drift, diffusion = schedule.drift(t).to(x), schedule.diffusion_squared(t).to(x)
    found: Tensor = diffusion / 2 * largest - drift
    return found.detach()


def kl_divergence(one: Distribution, phi: Potential, t: Tensor) -> float:
    """KL of a distribution on a regular grid from exp(phi_t) / Z_t on the same grid."""
    values = phi(one.points, t.to(one.points).expand(len(one.points))).detach()
    support = one.probabilities > 0
    p = one.probabilities[support]
    return float((p * (p.log() - values.log_softmax(dim=0)[support])).sum())
