"""A distribution in the plane, the SDEs that turn it into noise, and a network for their scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from samplers import VE, Schedule, SubVP, VPLinear
from samplers.training import WeightingName

SCHEDULES: dict[str, Schedule] = {"ve": VE(0.01, 10.0), "vp": VPLinear(), "sub-vp": SubVP()}
"""The three SDEs of Song et al. 2021; VE begins well beyond the width of the board."""

WEIGHTINGS: tuple[WeightingName, ...] = get_args(WeightingName)[1:]
"""All but ``simple``: the weightings of the score."""

SQUARES = 4
"""Along a side of the checkerboard, each of side 1."""

STD = SQUARES / 12**0.5
"""Standard deviation of each coordinate, which is uniform."""


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/plane"), help="of all runs")


def run_folder(output: Path, schedule: str, weighting: str) -> Path:
    return output / f"{schedule}-{weighting}"


def checkerboard(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 2) uniform on the dark squares of a board that is centred on 0."""
    column = torch.randint(SQUARES, (count,), generator=generator)
    row = 2 * torch.randint(SQUARES // 2, (count,), generator=generator) + column % 2
    within = torch.rand(count, 2, generator=generator)
    return torch.stack([column, row], dim=1) + within - SQUARES / 2


def share_beside(points: Tensor) -> float:
    """The share of points that do not lie on a dark square."""
    square = (points + SQUARES / 2).floor()
    inside = ((square >= 0) & (square < SQUARES)).all(dim=1)
    dark = inside & (square.sum(dim=1) % 2 == 0)
    return 1 - float(dark.double().mean())


class ScoreNetwork(nn.Module):
    r"""The score of normal data of deviation s, corrected by a network F of unit scale:

    .. math:: s(x, t) = -\frac{x}{n_t^2} + \frac{\alpha_t s}{\sigma_t n_t}
        F\Big(\frac{x}{n_t}, \lambda_t\Big), \qquad n_t^2 = \alpha_t^2 s^2 + \sigma_t^2,
        \quad \lambda_t = \log \frac{\alpha_t}{\sigma_t},

    which is the preconditioning of Karras et al. 2022 (table 1, https://arxiv.org/abs/2206.00364)
    written for a score, on any schedule. F is a perceptron with four hidden layers.
    """

    def __init__(self, schedule: Schedule, width: int = 256, octaves: int = 4) -> None:
        super().__init__()
        self.schedule, self.octaves = schedule, octaves
        layers: list[nn.Module] = [nn.Linear(3 * (1 + 2 * octaves), width), nn.SiLU()]
        for _ in range(3):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The score (batch, 2) at x (batch, 2) and t (batch,)."""
        at = self.schedule.point(t)
        alpha, sigma, lam = (values.to(x)[:, None] for values in (at.alpha, at.sigma, at.lam))
        norm = torch.hypot(alpha * STD, sigma)
        seen = torch.cat([x / norm, lam / 4], dim=1)
        correction: Tensor = self.layers(waves(seen, self.octaves))
        return alpha * STD / (sigma * norm) * correction - x / norm.square()


def waves(values: Tensor, octaves: int) -> Tensor:
    """The values (batch, n), and their sines and cosines at ``octaves`` doubling frequencies."""
    phases = [2**octave * values for octave in range(octaves)]
    return torch.cat([values, *(p.sin() for p in phases), *(p.cos() for p in phases)], dim=1)
