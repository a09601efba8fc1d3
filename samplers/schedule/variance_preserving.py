"""Variance-preserving schedules in continuous time, and sub-VP, which has the same alpha."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from samplers.schedule.base import Schedule, check_betas, check_range


class VariancePreserving(Schedule):
    r"""Schedules with alpha^2 + sigma^2 = 1: all follow from log alpha and its inverse."""

    @abc.abstractmethod
    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The time at which log alpha has the given value."""

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(2 * self.log_alpha(t))) / 2

    def time(self, lam: Tensor) -> Tensor:
        return self.time_of_log_alpha(-softplus(-2 * lam, threshold=1e3) / 2)


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    r"""VP SDE with beta(t) = beta_min + t (beta_max - beta_min), t in [t_min, t_max].

    ``log alpha = -t beta_min / 2 - t^2 (beta_max - beta_min) / 4``
    (Song et al. 2021, appendix C, https://arxiv.org/abs/2011.13456).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)
        check_range(self.t_min, self.t_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        return -t * (self.beta_min / 2 + t * (self.beta_max - self.beta_min) / 4)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        # The root of the quadratic that does not cancel for small t.
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 - 4 * slope * log_alpha)
        return -4 * log_alpha / (self.beta_min + root)


@dataclass(frozen=True)
class VPScaledLinear(VariancePreserving):
    r"""VP SDE with sqrt(beta) linear in t, the continuous form of Stable Diffusion's schedule.

    ``beta(t) = (a + t d)^2`` with ``a = sqrt(beta_min)``, ``d = sqrt(beta_max) - a``, hence
    ``log alpha = -((a + t d)^3 - a^3) / (6 d)``.
    """

    beta_min: float = 0.85
    beta_max: float = 12.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)
        check_range(self.t_min, self.t_max)

    @property
    def _line(self) -> tuple[float, float]:
        a = math.sqrt(self.beta_min)
        return a, math.sqrt(self.beta_max) - a

    def log_alpha(self, t: Tensor) -> Tensor:
        a, d = self._line
        return -t * (a * a / 2 + t * d * (a / 2 + t * d / 6))

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        # (c - a) / d with c the root of this cube, written so that it holds for d = 0.
        a, d = self._line
        c = (a**3 - 6 * d * log_alpha) ** (1 / 3)
        return -6 * log_alpha / (c * (c + a) + a * a)


@dataclass(frozen=True)
class VPCosine(VariancePreserving):
    r"""The cosine schedule (Nichol and Dhariwal 2021, eq. 17, https://arxiv.org/abs/2102.09672).

    ``alpha(t) = cos(pi/2 (t + s)/(1 + s)) / cos(pi/2 s/(1 + s))``

    alpha is zero at t = 1, so ``t_max`` is smaller, as in DPM-Solver's code.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        if not self.s >= 0:
            raise ValueError(f"VPCosine offset s is {self.s}; it must be zero or positive.")
        check_range(self.t_min, self.t_max, 1.0)

    @property
    def _log_cos_zero(self) -> float:
        return math.log(math.cos(math.pi / 2 * self.s / (1 + self.s)))

    def log_alpha(self, t: Tensor) -> Tensor:
        angle = math.pi / 2 * (t + self.s) / (1 + self.s)
        return torch.log(torch.cos(angle)) - self._log_cos_zero

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        angle = torch.arccos(torch.exp(log_alpha + self._log_cos_zero))
        return angle * (1 + self.s) * 2 / math.pi - self.s


@dataclass(frozen=True)
class SubVP(Schedule):
    r"""Sub-VP SDE: VP's alpha, ``sigma = 1 - alpha^2`` (Song et al. 2021, appendix C)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    @cached_property
    def _vp(self) -> VPLinear:
        return VPLinear(self.beta_min, self.beta_max, self.t_min, self.t_max)

    def __post_init__(self) -> None:
        check_betas(self.beta_min, self.beta_max)
        check_range(self.t_min, self.t_max)

    def log_alpha(self, t: Tensor) -> Tensor:
        return self._vp.log_alpha(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(2 * self.log_alpha(t)))

    def time(self, lam: Tensor) -> Tensor:
        # alpha / (1 - alpha^2) = e^lam is a quadratic in alpha: log alpha = -asinh(e^-lam / 2).
        return self._vp.time_of_log_alpha(-torch.asinh(torch.exp(-lam) / 2))
