r"""Gaussian mixtures: data whose denoiser and probability-flow ODE are known exactly.

For data ``x_0 ~ sum_k w_k N(m_k, C_k)`` the marginal at (alpha, sigma) is again a mixture, of
``N(alpha m_k, alpha^2 C_k + sigma^2)``, and the best denoiser is

.. math:: D(x) = \sum_k p_k(x) \, \big[m_k
    + \alpha C_k (\alpha^2 C_k + \sigma^2)^{-1} (x - \alpha m_k)\big]

with the posterior weights p_k. In the coordinates ``y = x / alpha``, ``rho = sigma / alpha`` the
probability-flow ODE is ``dy / drho = eps(y, rho)`` on every schedule, so one solution serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.integrate import OdeSolution, solve_ivp
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.prediction import PredictionType, target
from samplers.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Mixture:
    """weights [K], means [K, d], covariances [K, d, d], all float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """The principal variances [K, d] and axes [K, d, d] of the components."""
        variances, axes = torch.linalg.eigh(self.covariances)
        return variances, axes

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        centred = self.means - self.mean
        between = torch.einsum("k,ki,kj->ij", self.weights, centred, centred)
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + between

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x] for x [B, d] at one noise level, or at levels [B, 1, 1]."""
        variances, axes = self._axes
        along, total = self._along(x, alpha, sigma)
        log_weights = self.weights.log() - (total.log() + along.square() / total).sum(-1) / 2
        shrunk = torch.einsum("bke,kde->bkd", along * alpha * variances / total, axes)
        return torch.einsum("bk,bkd->bd", torch.softmax(log_weights, dim=1), self.means + shrunk)

    def log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The log density of x [B, d] at one noise level."""
        along, total = self._along(x, alpha, sigma)
        of_each = -((2 * math.pi * total).log() + along.square() / total).sum(-1) / 2
        return torch.logsumexp(self.weights.log() + of_each, dim=1)

    def _along(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x seen from each component, along its axes, and the variances there."""
        variances, axes = self._axes
        along = torch.einsum("bkd,kde->bke", x[:, None] - alpha * self.means, axes)
        return along, alpha.square() * variances + sigma.square()

    def model(self, schedule: Schedule, prediction: PredictionType) -> Denoiser:
        """The exact denoiser of this data, computed in float64 whatever the dtype of x."""

        def network(x: Tensor, t: Tensor) -> Tensor:
            # One row for each sample, or one for all.
            at = schedule.point(t.unsqueeze(-1))
            wide = x.to(torch.float64)
            x0 = self.denoise(wide, at.alpha.unsqueeze(-1), at.sigma.unsqueeze(-1))
            eps = (wide - at.alpha * x0) / at.sigma
            return target(prediction, x0, eps, at.alpha, at.sigma).to(x.dtype)

        return Denoiser(network, schedule, prediction)

    def affine(self, scale: float, shift: Tensor) -> Mixture:
        """The law of ``scale * x_0 + shift``."""
        return Mixture(self.weights, scale * self.means + shift, scale**2 * self.covariances)


def line(means: list[float], deviations: list[float], weights: list[float]) -> Mixture:
    """A mixture in one dimension."""
    mean, deviation, weight = (
        torch.tensor(v, dtype=torch.float64) for v in (means, deviations, weights)
    )
    return Mixture(weight, mean[:, None], deviation.square()[:, None, None])


def gaussian(mean: list[float], covariance: list[list[float]]) -> Mixture:
    """A single Gaussian, whose denoiser is linear."""
    return Mixture(
        torch.ones(1, dtype=torch.float64),
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor([covariance], dtype=torch.float64),
    )


THREE = line([-1.0, 0.5, 1.5], [0.5, 0.6, 0.45], [0.3, 0.45, 0.25])
"""The mixture of the order tests: three humps that overlap, so that few steps resolve it."""

PLANE = Mixture(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-1.0, 0.5], [0.8, -0.4]], dtype=torch.float64),
    torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
)
"""A mixture in the plane with correlated components."""


@dataclass(frozen=True, eq=False)
class Flow:
    """The exact solutions y(lam) of ``dy/drho = rate * eps`` through ``y0`` [B, d] at ``lam0``."""

    mixture: Mixture
    y0: Tensor
    lam0: float
    lam_min: float
    lam_max: float
    rate: float = 1.0

    def __call__(self, lam: float) -> Tensor:
        """The points y [B, d] at half log-SNR ``lam`` between ``lam_min`` and ``lam_max``."""
        branch = self._later if lam >= self.lam0 else self._earlier
        return torch.from_numpy(branch(lam)).reshape(self.y0.shape)

    @cached_property
    def _later(self) -> OdeSolution:
        return self._solve(self.lam_max)

    @cached_property
    def _earlier(self) -> OdeSolution:
        return self._solve(self.lam_min)

    def _solve(self, end: float) -> OdeSolution:
        found = solve_ivp(
            self._slope(),
            (self.lam0, end),
            self.y0.flatten().numpy(),
            method="DOP853",
            rtol=1e-12,
            atol=1e-13,
            max_step=0.05,
            dense_output=True,
        )
        assert found.success, found.message
        solution: OdeSolution = found.sol
        return solution

    def _slope(self) -> Callable[[float, np.ndarray], np.ndarray]:
        one = torch.ones((), dtype=torch.float64)

        def slope(lam: float, y: np.ndarray) -> np.ndarray:
            at = torch.from_numpy(y).reshape(self.y0.shape)
            x0 = self.mixture.denoise(at, one, one * math.exp(-lam))
            # drho = -rho dlam, and rho eps = y - D.
            return -self.rate * (at - x0).flatten().numpy()

        return slope
