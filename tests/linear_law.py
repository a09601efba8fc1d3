r"""The exact law of a sampler's output on Gaussian data.

There the denoiser is affine, ``D(x) = m + K (x - alpha m)``, so every point of a run is an affine
function of the starting noise and the draws z: its mean and covariance follow from the numbers of
the tableau alone, without a sample drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samplers.schedule import Point
from samplers.tableau import Row, Tableau
from tests.mixture import Mixture


class Affine(NamedTuple):
    """``mean + sum_k factors[k] @ xi_k`` with independent standard normal xi_k."""

    mean: Tensor
    factors: Tensor

    @property
    def covariance(self) -> Tensor:
        return torch.einsum("kij,klj->il", self.factors, self.factors)


def marginal(data: Mixture, at: Point) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the diffused data at one point."""
    eye = torch.eye(len(data.mean), dtype=torch.float64)
    return at.alpha * data.mean, at.alpha.square() * data.covariance + at.sigma.square() * eye


def final_law(tableau: Tableau, data: Mixture) -> Affine:
    """The law of the finished sample, from the exact marginal at the start."""
    mean, covariance = marginal(data, tableau.start)
    factors = torch.zeros(2 + tableau.calls, *covariance.shape, dtype=torch.float64)
    factors[0] = tableau.start_scale * torch.linalg.cholesky(covariance)
    factors[1] = tableau.start_noise * torch.eye(len(mean), dtype=torch.float64)
    points, made = [Affine(tableau.start_scale * mean, factors)], list[Affine]()
    for number, row in enumerate(tableau.rows):
        made.append(_denoised(points[-1], row.at, data))
        new = [_combined(row, a, points, made) for a in range(len(row.noise))]
        for a, point in enumerate(new):
            point.factors[2 + number] += row.noise[a] * torch.eye(len(mean), dtype=torch.float64)
        points.extend(new)
    return points[-1]


def _denoised(x: Affine, at: Point, data: Mixture) -> Affine:
    mean, covariance = marginal(data, at)
    gain = at.alpha * data.covariance @ torch.linalg.inv(covariance)
    return Affine(data.mean + gain @ (x.mean - mean), gain @ x.factors)


def _combined(row: Row, a: int, points: list[Affine], made: list[Affine]) -> Affine:
    terms = [(float(c), points, lag) for c, lag in zip(row.points[a], row.point_lags, strict=True)]
    terms += [
        (float(c), made, lag)
        for c, lag in zip(row.predictions[a], row.prediction_lags, strict=True)
    ]
    mean, factors = torch.zeros_like(points[0].mean), torch.zeros_like(points[0].factors)
    for coefficient, known, lag in terms:
        if coefficient:
            mean = mean + coefficient * known[-1 - lag].mean
            factors = factors + coefficient * known[-1 - lag].factors
    return Affine(mean, factors)
