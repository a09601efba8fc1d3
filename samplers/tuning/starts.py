"""Where tuning starts: the best of the untuned samplers on the training noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.grid import Spacing, make_grid
from samplers.registry import get_sampler
from samplers.sampling import root_mean_square
from samplers.schedule import Schedule
from samplers.tuning.objective import Loss
from samplers.tuning.parameters import bounds_of
from samplers.tuning.problem import Problem
from samplers.tuning.table import Table, table_of

_SAMPLERS = ("abm-3", "abm-4", "unipc-3", "deis-3", "dpmpp-2m")
_SPACINGS: tuple[Spacing, ...] = ("log-flow", "log-snr", "quadratic", "uniform")
_LAST_LEVELS = (None, 0.03, 0.1, 0.2)
_FEW, _MORE = 4, 64
"""Samples of the first and of the second round."""
_FINALISTS = 6


class Start(NamedTuple):
    """An untuned sampler.

    Attributes:
        sampler: its name.
        grid: the spacing of its grid, which ends at sigma = 0.
        sigma_min: the last positive noise level, in units of sigma / alpha; that of the spacing
            if None.
        data_scale: the root mean square of the data.
    """

    sampler: str
    grid: Spacing
    sigma_min: float | None
    data_scale: float = 1.0

    def __str__(self) -> str:
        end = "" if self.sigma_min is None else f", last noise level {self.sigma_min:.4g}"
        return f"{self.sampler}, {self.grid}{end}"

    def table(self, schedule: Schedule, nfe: int) -> Table:
        sampler = get_sampler(self.sampler)
        steps = sampler.steps_within(nfe)
        of_data = schedule.with_data_scale(self.data_scale)
        grid = make_grid(of_data, steps, self.grid, sigma_min=self.sigma_min)
        table = table_of(sampler.tableau(grid)).detached
        if table.nfe != nfe:
            raise ValueError(f"{self.sampler} can't take {nfe} network evaluations.")
        return table

    def weights(self, schedule: Schedule, levels: Tensor) -> Tensor:
        """The weights of the sampler on other levels; gradients pass through.

        Raises ValueError for a sampler with stages between the levels.
        """
        of_data = schedule.with_data_scale(self.data_scale)
        grid = Table(levels, levels[:-1], levels).grid(of_data)
        weights = table_of(get_sampler(self.sampler).tableau(grid)).weights
        if len(weights) != grid.steps:
            raise ValueError(
                f"{self.sampler} evaluates between its levels; learn the weights, too, or take a "
                "sampler of one evaluation per step."
            )
        return weights


def starts(problem: Problem) -> list[Start]:
    """Five samplers on four grids with four last noise levels, in units of the data's scale."""
    low, high = bounds_of(problem.model.schedule)
    scale = root_mean_square(problem.targets)
    levels = [None if level is None else level * scale for level in _LAST_LEVELS]
    within = [v for v in levels if v is None or math.exp(-high) < v < math.exp(-low)]
    combined = itertools.product(_SAMPLERS, _SPACINGS, within)
    return [Start(*combination, scale) for combination in combined]


def best_starts(
    problem: Problem, nfe: int, candidates: Sequence[Start], loss: Loss, batch_size: int
) -> list[tuple[Start, Table]]:
    """The candidates with the least loss, best first: all on a few samples, the best of them on
    more.

    Raises ValueError if none can be used.
    """
    found = list(_tables(candidates, problem.model.schedule, nfe))
    for count, kept in ((_FEW, _FINALISTS), (_MORE, _FINALISTS)):
        part = problem.rows(torch.arange(min(count, len(problem))))
        found = sorted(found, key=lambda pair: part.mean_loss(pair[1], batch_size, loss))[:kept]
    return found


def _tables(
    candidates: Sequence[Start], schedule: Schedule, nfe: int
) -> Iterator[tuple[Start, Table]]:
    """The candidates that there are at this number of evaluations."""
    reasons = []
    for start in candidates:
        try:
            table = start.table(schedule, nfe)
        except ValueError as error:
            reasons.append(str(error))
        else:
            yield start, table
    if len(reasons) == len(candidates):
        raise ValueError(f"No sampler can be tuned at {nfe} evaluations: {reasons[0]}")
