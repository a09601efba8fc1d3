"""Three distributions in the plane, the process that turns them into noise, and a network for it.

Distributions and process are those of Deveney et al. 2023, section 5
(https://arxiv.org/abs/2311.15996); the process is learned from the time 0.001 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.func import grad

from samplers import Schedule

EDGE = 3.5
"""Half the side of the square in which the residual is learned."""


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Schedule):
    r"""dx = -x dt + dw: alpha = exp(-t), sigma^2 = (1 - exp(-2 t)) / 2, the noise N(0, I / 2)."""

    t_min: float = 1e-3
    t_max: float = 10.0

    def log_alpha(self, t: Tensor) -> Tensor:
        return -t

    def log_sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(-2 * t) / 2).log() / 2

    def time(self, lam: Tensor) -> Tensor:
        return torch.log1p(2 * (-2 * lam).exp()) / 2

    def at_fraction(self, u: Tensor) -> Tensor:
        """Times whose logarithm is uniform, from uniform u."""
        return self.t_min * (self.t_max / self.t_min) ** u

    def fraction(self, t: Tensor) -> Tensor:
        return (t / self.t_min).log() / math.log(self.t_max / self.t_min)

    def density(self, t: Tensor) -> Tensor:
        """Of the times of :meth:`at_fraction`."""
        return 1 / (t * math.log(self.t_max / self.t_min))


class PotentialNetwork(nn.Module):
    r"""log p_t up to a constant: that of normal data with standard deviation s plus a network F,

    .. math:: \phi(x, t) = -\frac{|x|^2}{2 n^2} + \frac{\alpha s}{n}
        F\Big(\frac{x}{n}, \log(t + t_0)\Big), \qquad n^2 = \alpha^2 s^2 + \sigma^2.

    At the end of the process it is exactly that of the noise. F is an MLP with three hidden layers.
    """

    DEVIATION, SOONEST = 1.7, 0.02

    def __init__(self, width: int = 80) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in (3, width, width):
            layers += [nn.Linear(size, width), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The potential (batch,) at x (batch, 2) and t (batch,)."""
        signal = self.DEVIATION * (-t).exp()
        norm = (signal.square() - torch.expm1(-2 * t) / 2).sqrt()
        seen = x / norm[:, None]
        when = (t + self.SOONEST).log()
        found: Tensor = self.layers(torch.cat([seen, when[:, None]], dim=1))
        return signal / norm * found[:, 0] - seen.square().sum(dim=1) / 2


def score(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """The gradient (batch, 2) of the potential with respect to x."""
    found: Tensor = grad(lambda point: network(point, t).sum())(x)
    return found


# ------------------------------------------------------------------------------- distributions


def mixture(count: int, generator: Generator) -> Tensor:
    """Nine equal Gaussians: in the middle, at the corners of a square, beyond its sides."""
    at = 1.3 * torch.tensor(
        [(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (2, 0), (-2, 0), (0, 2), (0, -2)]
    )
    chosen = at[torch.randint(len(at), (count,), generator=generator)]
    return chosen + 0.65 * math.sqrt(0.2) * torch.randn(count, 2, generator=generator)


def circles(count: int, generator: Generator) -> Tensor:
    """Two rings about 0, of radius 1.3 and 2.8, with equally many points."""
    inner = torch.rand(count, generator=generator) < 0.5
    radius = torch.where(inner, 1.3, 2.8) + 0.2 * torch.randn(count, generator=generator)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


def checkerboard(count: int, generator: Generator) -> Tensor:
    """Eight of the sixteen squares of a board of side 6."""
    column = torch.randint(4, (count,), generator=generator)
    row = 2 * torch.randint(2, (count,), generator=generator) + column % 2
    within = torch.rand(count, 2, generator=generator)
    return 1.5 * (torch.stack([column, row], dim=1) + within) - 3


DATA: dict[str, Callable[[int, Generator], Tensor]] = {
    "mixture": mixture,
    "circles": circles,
    "checkerboard": checkerboard,
}


# -------------------------------------------------------------------------------------- the runs


WEIGHTS = (0.0, 0.1, 1.0, 10.0)
"""w_R of the paper."""
STEPS_TRAINED = 8000


def run_folder(output: Path, data: str, weight: float, centred: bool) -> Path:
    return output / f"{data}-{weight:g}{'-centred' if centred else ''}"
