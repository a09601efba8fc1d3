r"""The scale of guidance, w: a number, or a function of the noise level.

Where the scale is 1, the guided model is the model itself, and what it is guided away from is not
evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.grid import Grid
from samplers.schedule import Point

GuidanceScale = float | Callable[[Point], Tensor | float]
"""The scale w, or a function from a point to it; 1 is no guidance."""

# Networks are given times in float32, so a level is known up to this share of it.
_ROUNDING = 1e-4


def scale_at(scale: GuidanceScale, at: Point) -> Tensor:
    """The scale at a point, in float64 and of its shape."""
    found = scale(at) if callable(scale) else scale
    return found if isinstance(found, Tensor) else torch.full_like(at.t, found)


def check_scale(scale: object) -> None:
    """Raise ValueError unless a scale is a finite number, or a function."""
    number = isinstance(scale, int | float) and math.isfinite(scale)
    if not number and not callable(scale):
        raise ValueError(
            f"The guidance scale is {scale!r}; it must be a finite number, or a function of the "
            "noise level."
        )


@dataclass(frozen=True)
class GuidanceInterval:
    r"""A guidance scale in an interval of noise levels, and none outside of it.

    .. math:: w(t) = w \text{ if } low \le \sigma_t / \alpha_t \le high, \text{ else } 1

    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724). Outside, the network is
    evaluated once instead of twice. A level at an end of the interval, up to rounding, is guided.

    Attributes:
        scale: w, or a function of the noise level.
        low, high: noise levels as sigma / alpha, ``0 <= low < high``.

    Raises ValueError for an interval that is empty.
    """

    scale: GuidanceScale
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(
                f"The guidance interval is from {self.low} to {self.high}; it must go from a noise "
                "level of 0 or more to a higher one, in units of sigma / alpha."
            )

    def __call__(self, at: Point) -> Tensor:
        inside = at.rho >= self.low * (1 - _ROUNDING)
        inside &= at.rho <= self.high * (1 + _ROUNDING)
        return torch.where(inside, scale_at(self.scale, at), torch.ones_like(at.t))


@dataclass(frozen=True, eq=False)
class CFGPlusPlus:
    r"""The scale with which classifier-free guidance is CFG++ on a grid.

    CFG++ (Chung et al. 2024, https://arxiv.org/abs/2406.08070) takes the data from a
    guided prediction and renoises it by the unconditional one. With strength s from 0 to 1,

    .. math:: x' = \alpha' D_s + \sigma' \varepsilon_{null}, \qquad
        D_s = D_{null} + s \, (D_{cond} - D_{null})

    Since D and eps are linear in each other, this is the step of ``ddim`` under classifier-free
    guidance whose scale depends on the step from rho = sigma / alpha to rho':

    .. math:: w = s \, \frac{\rho}{\rho - \rho'}

    It is exact for the sampler ``ddim`` on this grid. Other samplers take the same scale at the
    same noise level, which is not what CFG++ is for them.

    Attributes:
        strength: s.
        grid: that of the run.

    Raises ValueError for a strength that is not between 0 and 1.
    """

    strength: float
    grid: Grid

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(
                f"The strength of CFG++ is {self.strength}; it must lie between 0 and 1."
            )

    def __call__(self, at: Point) -> Tensor:
        levels = self.grid.points.rho
        reached = levels >= at.rho.unsqueeze(-1) * (1 - _ROUNDING)
        step = (reached.sum(-1) - 1).clamp(0, self.grid.steps - 1)
        return self.strength / (1 - levels[step + 1] / levels[step])
