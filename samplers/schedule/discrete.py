"""The schedule of a model that was trained at discrete timesteps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from samplers.schedule.variance_preserving import VariancePreserving


@dataclass(frozen=True, eq=False, repr=False)
class VPDiscrete(VariancePreserving):
    r"""The continuous form of a model trained at N discrete steps with ``alphas_cumprod``.

    ``t`` is the trained index, 0 to N - 1, and may be fractional: log alpha is interpolated
    linearly (as in DPM-Solver, Lu et al. 2022, https://arxiv.org/abs/2206.00927). If the last step
    holds no signal (zero terminal SNR), alpha itself is linear on the last interval.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alphas_cumprod).detach().to("cpu", torch.float64)
        object.__setattr__(self, "alphas_cumprod", table)
        _check_alphas_cumprod(table)

    def __repr__(self) -> str:
        table = self.alphas_cumprod
        first, last = float(table[0]), float(table[-1])
        return f"VPDiscrete({len(table)} steps, alphas_cumprod from {first:.4g} to {last:.3g})"

    @classmethod
    def from_betas(cls, betas: Tensor) -> VPDiscrete:
        """From the variances of the forward steps, alphas_cumprod = cumprod(1 - betas)."""
        return cls(torch.cumprod(1 - betas.to(torch.float64), dim=0))

    @classmethod
    def linear(cls, start: float = 1e-4, end: float = 0.02, steps: int = 1000) -> VPDiscrete:
        """Betas linear in the index, the schedule of DDPM."""
        return cls.from_betas(torch.linspace(start, end, steps, dtype=torch.float64))

    @classmethod
    def scaled_linear(
        cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000
    ) -> VPDiscrete:
        """Square roots of the betas linear in the index, the schedule of Stable Diffusion."""
        roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
        return cls.from_betas(roots.square())

    @classmethod
    def cosine(cls, steps: int = 1000, max_beta: float = 0.999, s: float = 0.008) -> VPDiscrete:
        """Nichol and Dhariwal's schedule at ``steps`` indices, betas capped at ``max_beta``."""
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos(math.pi / 2 * (u + s) / (1 + s)).square()
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return float(len(self.alphas_cumprod) - 1)

    @cached_property
    def _nodes(self) -> Tensor:
        """log alpha at the trained steps, the last one only if it is finite."""
        log_alphas = self.alphas_cumprod.log() / 2
        return log_alphas[:-1] if self._zero_terminal else log_alphas

    @property
    def _zero_terminal(self) -> bool:
        return bool(self.alphas_cumprod[-1] == 0)

    def log_alpha(self, t: Tensor) -> Tensor:
        value = interpolated(self._nodes, t)
        if not self._zero_terminal:
            return value
        beyond = (t - self._last_finite).clamp(min=0)
        return torch.where(beyond > 0, self._nodes[-1] + torch.log1p(-beyond), value)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        value = inverted(self._nodes, log_alpha)
        if not self._zero_terminal:
            return value
        beyond = -torch.expm1((log_alpha - self._nodes[-1]).clamp(max=0))
        return torch.where(beyond > 0, self._last_finite + beyond, value)

    @property
    def _last_finite(self) -> int:
        return len(self._nodes) - 1


def interpolated(nodes: Tensor, t: Tensor) -> Tensor:
    """Linear interpolation, and extrapolation, of the values ``nodes[i]`` at t = i."""
    nodes = nodes.to(t.device)
    index = t.detach().floor().long().clamp(0, len(nodes) - 2)
    left, right = nodes[index], nodes[index + 1]
    return left + (t - index) * (right - left)


def inverted(nodes: Tensor, value: Tensor) -> Tensor:
    """The inverse of :func:`interpolated` for decreasing ``nodes``."""
    nodes = nodes.to(value.device)
    index = torch.searchsorted(-nodes, -value.detach()) - 1
    index = index.clamp(0, len(nodes) - 2)
    left, right = nodes[index], nodes[index + 1]
    return index + (left - value) / (left - right)


def _check_alphas_cumprod(table: Tensor) -> None:
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(
            f"alphas_cumprod has shape {tuple(table.shape)}; it must be a vector of at least 2."
        )
    inside = bool((table < 1).all()) and bool((table[:-1] > 0).all()) and bool(table[-1] >= 0)
    if not inside or bool((table[1:] >= table[:-1]).any()):
        raise ValueError(
            "alphas_cumprod must fall strictly and stay between 0 and 1 "
            "(0 is allowed for the last step); check the betas it was made from."
        )
