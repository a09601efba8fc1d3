"""The search for the best grid: steps on the estimate, each of which a real run confirms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.fitting.estimate import TRUST, Estimate, decay
from samplers.fitting.levels import Levels
from samplers.fitting.pilots import PilotRun
from samplers.grid import Grid
from samplers.tableau import Tableau
from samplers.tuning.objective import relative_errors

_RADIUS = 0.5
_MORE_TRUST = 0.9
_REACH = 0.2
_ITERATIONS = 2
_SMALL = 0.02
_DIFFERENCE = 1e-4
_LEAST_DAMPED, _MOST_DAMPED = 1e-3, 1e6
_FLOOR = 0.01
"""Of the mean square error, added to that of each sample, so that no lucky one counts."""


class GridTrial(NamedTuple):
    """A grid that was tried: the levels and numbers it is of, its run, and log errors [N]."""

    levels: Levels
    numbers: Tensor
    run: PilotRun
    errors: Tensor

    @property
    def score(self) -> float:
        """The mean log error; infinite for a run that diverged."""
        mean = float(self.errors.mean())
        return mean if math.isfinite(mean) else math.inf

    @property
    def grid(self) -> Grid:
        return self.levels.grid(self.numbers)


@dataclass(frozen=True, eq=False)
class GridSearch:
    """A sampler, and how its grids are run on the pilots' noise.

    Attributes:
        method: the sampler.
        pilots: the converged runs.
        real: a run of the sampler, at the cost of network evaluations.
    """

    method: Callable[[Grid], Tableau]
    pilots: PilotRun
    real: Callable[[Tableau], PilotRun]

    def trial(self, levels: Levels, numbers: Tensor | None = None) -> GridTrial:
        """Run a grid; that to start from if there are no numbers."""
        numbers = levels.zeros if numbers is None else numbers
        return self.of(self.real(self.method(levels.grid(numbers))), levels, numbers)

    def of(self, run: PilotRun, levels: Levels, numbers: Tensor | None = None) -> GridTrial:
        """A run that was made."""
        errors = relative_errors(run.end, self.pilots.end).log().cpu()
        return GridTrial(levels, levels.zeros if numbers is None else numbers, run, errors)

    def trials(self, best: GridTrial) -> Iterator[GridTrial]:
        """Ever better grids, and those that turned out worse.

        A step of the estimate, which is exact on the best grid, and a step along one number take
        turns; each is as long as steps of its kind were good for. Once a step of the estimate was
        worse, errors of distant steps are trusted more to cancel: the best grid may depend on it.
        """
        radius, trust, compass = _RADIUS, TRUST, Compass(best.levels.count)
        while True:
            numbers = self._descended(best, radius, trust)
            if float((numbers - best.numbers).norm()) > _SMALL:
                found = self.trial(best.levels, numbers)
                yield found
                if not found.score < best.score:
                    radius, trust = radius / 2, _MORE_TRUST
                best = min(best, found, key=lambda trial: trial.score)
            found = self.trial(best.levels, best.numbers + compass.step)
            yield found
            compass.learn(found.score < best.score)
            best = min(best, found, key=lambda trial: trial.score)

    def _descended(self, best: GridTrial, radius: float, trust: float) -> Tensor:
        """Gauss-Newton steps on the mean log of the estimated errors, within a radius."""
        levels = best.levels
        estimate = Estimate.of(levels.coordinate, self.pilots, best.run)

        def parts(numbers: Tensor) -> Tensor:
            return estimate.parts(self.method(levels.grid(numbers)))

        numbers, here = best.numbers, parts(best.numbers)
        for _ in range(_ITERATIONS):
            near = [parts(numbers + _DIFFERENCE * one) for one in torch.eye(levels.count).double()]
            if any(one.shape != here.shape for one in near):
                break
            slopes = torch.stack([(one - here) / _DIFFERENCE for one in near])
            step = _step(here, slopes, best.numbers - numbers, radius, trust)
            numbers, here = _backtracked(parts, numbers, here, step, trust)
        return numbers


class Compass:
    """Steps along single numbers in turn; back if one was worse."""

    def __init__(self, count: int) -> None:
        self._count, self._axis, self._length, self._turned = count, 0, -_REACH, False

    @property
    def step(self) -> Tensor:
        step = torch.zeros(self._count, dtype=torch.float64)
        step[self._axis] = self._length
        return step

    def learn(self, better: bool) -> None:
        if better:
            self._turned = True
        elif not self._turned:
            self._length, self._turned = -self._length, True
        else:
            self._axis = (self._axis + 1) % self._count
            self._length, self._turned = -abs(self._length) / 1.5, False


def _step(here: Tensor, slopes: Tensor, back: Tensor, radius: float, trust: float) -> Tensor:
    """The damped step that ends within the radius around where the search began."""
    kernel = decay(here.shape[1], trust)
    size = torch.einsum("nkr,kl,nlr->n", here, kernel, here)
    weight = 1 / (size + _FLOOR * size.mean()) / len(here)
    smooth = torch.einsum("kl,pnlr,n->pnkr", kernel, slopes, weight)
    gradient = torch.einsum("pnkr,nkr->p", smooth, here)
    normal = torch.einsum("pnkr,qnkr->pq", smooth, slopes)
    eye, damping = torch.eye(len(gradient), dtype=torch.float64), _LEAST_DAMPED
    step: Tensor = -torch.linalg.solve(normal + damping * eye, gradient)
    while float((step - back).norm()) > radius and damping < _MOST_DAMPED:
        damping *= 2
        step = -torch.linalg.solve(normal + damping * eye, gradient)
    return step


def _value(parts: Tensor, trust: float) -> float:
    size = torch.einsum("nkr,kl,nlr->n", parts, decay(parts.shape[1], trust), parts)
    return float((size + _FLOOR * size.mean()).log().mean())


def _backtracked(
    parts: Callable[[Tensor], Tensor], numbers: Tensor, here: Tensor, step: Tensor, trust: float
) -> tuple[Tensor, Tensor]:
    """The first of shorter and shorter steps that lowers the estimate; none if none does."""
    for length in (1.0, 0.5, 0.25):
        there = parts(numbers + length * step)
        if _value(there, trust) < _value(here, trust):
            return numbers + length * step, there
    return numbers, here
