"""Flow matching: straight paths between noise and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samplers.schedule.base import Schedule, check_range, shifted


@dataclass(frozen=True)
class FlowMatching(Schedule):
    r"""Straight paths, ``alpha = 1 - t`` and ``sigma = t`` (Lipman et al. 2023; Liu et al. 2023).

    ``shift`` shifts evenly spaced times towards the noise, see :func:`shifted`.
    """

    starts_at_sigma: ClassVar[bool] = True

    shift: float = 1.0
    u_min: float = 1e-3

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"The flow shift is {self.shift}; it must be positive.")
        check_range(self.u_min, 1.0, 1.0)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return shifted(self.u_min, self.shift)

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return 1.0

    def at_fraction(self, u: Tensor) -> Tensor:
        return shifted(self.u_min + u * (1 - self.u_min), self.shift)

    def fraction(self, t: Tensor) -> Tensor:
        u = t / (self.shift - (self.shift - 1) * t)  # exactly 1 at 1, which shifted() is not
        return (u - self.u_min) / (1 - self.u_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def time(self, lam: Tensor) -> Tensor:
        return torch.sigmoid(-lam)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)  # log1p(-t) has none at t = 1
