r"""A bound of the gap between ODE and SDE samples by the residual of a potential.

Let :math:`\hat p_t = e^{\phi_t} / Z_t`, q_t the law of the reverse SDE that is driven by
:math:`s = \nabla\phi` and starts from pi at the time T, and R the residual of phi. Then

.. math:: \tfrac12 \int_0^T g^2 \, E_{q_t} |s - \nabla \log q_t|^2 \, dt + KL(q_0 \| \hat p_0)
    = KL(\pi \| \hat p_T) + \int_0^T (E_{q_t} R - E_{\hat p_t} R) \, dt,

so that the residual bounds how far s is from the score of its own samples. The ODE that carries q_t
differs from the one of s by :math:`g^2 / 2` times that, and by Groenwall's and Schwarz's
inequalities

.. math:: W_2(p_{ODE}, q_0)^2 \le \int_0^T \tfrac12 g^2 e^{2 \int_0^t L} \, dt
    \cdot \tfrac12 \int_0^T g^2 \, E_{q_t} |s - \nabla \log q_t|^2 \, dt,

with L the one-sided Lipschitz constant of the ODE's field, run from noise to data. It is a theorem
in the spirit of Deveney et al. 2023 (https://arxiv.org/abs/2311.15996), and as theirs it is far
from tight where L is large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjoint.fokker_planck.law import Law, of_potential
from adjoint.fokker_planck.potential import Potential, potential_residual, slopes
from samplers.schedule import Schedule


class Instant(NamedTuple):
    """What the bound needs to know of a time.

    Attributes:
        t: the time.
        diffusion_squared: g^2.
        excess: the mean of R under q_t, less that under exp(phi_t) / Z_t.
        error: its standard error, for independent samples of q_t.
        steepness: L, the largest rate at which two trajectories of the ODE part on their way to the
            data.
    """

    t: float
    diffusion_squared: float
    excess: float
    error: float
    steepness: float


class Bound(NamedTuple):
    """What the residual says.

    Attributes:
        score_error: ``1/2 int g^2 E_q |s - grad log q|^2 dt`` and KL(q_0 | p_0), neither negative.
        error: at most the standard error of that, as if all times erred alike: samples of q_t at
            different times are those of the same paths.
        distance_squared: above W_2^2 between ODE and SDE samples, with two of these errors;
            infinite where it exceeds all numbers.
    """

    score_error: float
    error: float
    distance_squared: float


def instant(phi: Potential, schedule: Schedule, t: Tensor, samples: Law, places: Tensor) -> Instant:
    """Measure at the time t, a scalar in float64.

    Args:
        samples: q_t, of the reverse SDE.
        places: a regular grid [N, d] over all places where exp(phi_t) counts, such as
            :func:`adjoint.fokker_planck.law.grid`; L is the largest value on it.
    """
    own, other = (
        potential_residual(phi, schedule, x, t.to(x).expand(len(x))).detach()
        for x in (samples.places, places)
    )
    mean = samples.mean(own)
    scatter = samples.mean((own - mean).square()) * samples.shares.square().sum()
    excess = mean - of_potential(phi, t, places).mean(other)
    steepest = steepness(phi, schedule, t, places).max()
    found = (schedule.diffusion_squared(t), excess, scatter.sqrt(), steepest)
    return Instant(float(t), *map(float, found))


def bound(instants: Sequence[Instant], divergence: float) -> Bound:
    """Integrate over the times, which rise, by the trapezoidal rule.

    Args:
        divergence: KL(pi | p_T) at the last of them.
    """
    columns = (torch.tensor(column, dtype=torch.float64) for column in zip(*instants, strict=True))
    t, spread, excess, scatter, rate = columns
    ends = torch.cat([t[:1], t, t[-1:]])
    weights = (ends[2:] - ends[:-2]) / 2  # of the trapezoidal rule
    error = float(weights @ scatter)
    found = divergence + float(weights @ excess)
    grown = torch.cat([t.new_zeros(1), torch.cumulative_trapezoid(rate, t)])
    reach = float(weights @ (spread / 2 * (2 * grown).exp()))
    most = max(0.0, found + 2 * error)
    return Bound(found, error, math.inf if math.isinf(reach) else reach * most)


def steepness(phi: Potential, schedule: Schedule, t: Tensor, places: Tensor) -> Tensor:
    r"""The largest eigenvalue of :math:`\frac{g^2}{2} \nabla^2 \phi - f I` at each place [N]."""
    x = places.detach().requires_grad_()
    with torch.enable_grad():
        slope = slopes(phi(x, t.to(x).expand(len(x))), x)[0]
        rows = [slopes(each, x)[0] for each in slope.unbind(dim=1)]
    largest = torch.linalg.eigvalsh(torch.stack(rows, dim=1)).amax(dim=1)
    drift, spread = schedule.drift(t).to(x), schedule.diffusion_squared(t).to(x)
    found: Tensor = spread / 2 * largest - drift
    return found.detach()


def divergence(one: Law, phi: Potential, t: Tensor) -> float:
    """KL of a law on a regular grid from exp(phi_t) / Z_t on the same grid."""
    values = phi(one.places, t.to(one.places).expand(len(one.places))).detach()
    there = one.shares > 0
    shares = one.shares[there]
    return float((shares * (shares.log() - values.log_softmax(dim=0)[there])).sum())
