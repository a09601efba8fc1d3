"""Variance-exploding schedules, alpha = 1, and EDM in the coordinates of its network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.schedule.base import Schedule, check_range, check_sigmas


class VarianceExploding(Schedule):
    """Schedules with alpha = 1."""

    starts_at_sigma = True

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class VE(VarianceExploding):
    r"""The VE SDE, ``sigma(t) = sigma_min (sigma_max / sigma_min)^t``, t in [t_min, t_max].

    (Song et al. 2021, appendix C, https://arxiv.org/abs/2011.13456)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)
        check_range(self.t_min, self.t_max)

    def log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min)

    def time(self, lam: Tensor) -> Tensor:
        return (-lam - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(VarianceExploding):
    r"""EDM, ``sigma(t) = t``: the network is given the noise level (Karras et al. 2022, table 1,
    https://arxiv.org/abs/2206.00364)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.sigma_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def time(self, lam: Tensor) -> Tensor:
        return torch.exp(-lam)


@dataclass(frozen=True)
class EDMPreconditioned(Schedule):
    r"""EDM in the coordinates of the network inside its preconditioning, ``c_in(rho) x``.

    With ``rho`` the noise level of EDM and s = ``sigma_data``, the state is
    ``x / sqrt(rho^2 + s^2)``, so ``alpha = 1 / sqrt(rho^2 + s^2)`` and ``sigma = rho alpha``; the
    network is given ``t = log(rho) / 4`` (Karras et al. 2022, table 1). diffusers stores EDM models
    in this form.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_sigmas(self.sigma_min, self.sigma_max)
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data is {self.sigma_data}; it must be positive.")

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return math.log(self.sigma_min) / 4

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return math.log(self.sigma_max) / 4

    def log_alpha(self, t: Tensor) -> Tensor:
        return -torch.log(torch.exp(8 * t) + self.sigma_data**2) / 2

    def log_sigma(self, t: Tensor) -> Tensor:
        return 4 * t + self.log_alpha(t)

    def time(self, lam: Tensor) -> Tensor:
        return -lam / 4
