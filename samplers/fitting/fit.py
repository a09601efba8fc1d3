"""``fit_grid``: the noise levels at which a sampler errs least on a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checks import check_numbers, check_whole
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING, FIT_BUDGET
from samplers.denoiser import Denoiser, check_conditions, check_denoiser, select_rows
from samplers.fitting.estimate import Estimate
from samplers.fitting.fitted import AboutGrid, Criterion, FittedGrid
from samplers.fitting.geometry import COEFFICIENTS, cheapest, step_costs
from samplers.fitting.levels import Levels
from samplers.fitting.pilots import Coordinate, PilotRun, evaluated_at, pilot_tableau, run
from samplers.fitting.search import GridSearch, GridTrial
from samplers.grid import Grid
from samplers.registry import Method
from samplers.sampling import GridLike, OwnGrid, build_tableau, grid_for, root_mean_square
from samplers.tableau import Tableau
from samplers.tuning.objective import Score
from samplers.tuning.purpose import Purpose, facts_of, scores

PILOTS = 12
"""Samples that a fit of few steps uses, at most."""

_FEWEST_KNOTS, _KNOTS_PER_STEP = 16, 1.3
_LEAST_TRIALS, _MOST_TRIALS = 4, 12
_LEAST_STEPS = 2
_EVEN_LAST = 0.3
_WORTH_TRYING = 0.8
_CERTAIN = 1.0
"""How many standard errors a gain must have."""


class Plan(NamedTuple):
    """How the evaluations of a fit are spent.

    Attributes:
        pilots: samples.
        knots: steps of their converged trajectories.
        trials: runs of the sampler, the first of which is on the grid to start from.
    """

    pilots: int
    knots: int
    trials: int

    @classmethod
    def within(cls, budget: int, samples: int, steps: int, calls: int) -> Plan:
        """For a sampler of ``calls`` evaluations in ``steps`` steps.

        Raises ValueError if the budget is too small.
        """
        knots = _FEWEST_KNOTS + math.ceil(_KNOTS_PER_STEP * steps)
        pilots = min(samples, PILOTS, budget // (knots + _LEAST_TRIALS * calls))
        if samples < 1:
            raise ValueError("There is no initial noise; give that of one sample at least.")
        if pilots < 1:
            raise ValueError(
                f"A fit of {steps} steps takes {knots + _LEAST_TRIALS * calls} evaluations at "
                f"least, and {budget} are allowed; take fewer steps, or a larger budget."
            )
        return cls(pilots, knots, min((budget // pilots - knots) // calls, _MOST_TRIALS))


def fit_grid(
    model: Denoiser,
    x_T: Tensor,
    steps: int,
    *,
    sampler: str | Method = DEFAULT_SAMPLER,
    grid: GridLike | None = None,
    conditions: Mapping[str, Any] | None = None,
    criterion: Criterion = "error",
    budget: int = FIT_BUDGET,
    batch_size: int = 16,
    purpose: Purpose | None = None,
    progress: bool = False,
) -> FittedGrid:
    r"""Fit the noise levels of a sampler to a model, in seconds.

    A few pilots of many steps give the denoiser along converged trajectories. From it, and from
    where a real run of the sampler evaluated it, follows an estimate of the error of x_0 on any
    grid, without network evaluations (:mod:`samplers.fitting.estimate`): the error of each step
    from exact values, carried to the end by the linearised sampler. Gauss-Newton steps on

    .. math:: \mathrm{mean}_i \, \log \frac{\lVert x_i - x_i^* \rVert}{\lVert x_i^* \rVert}

    take turns with real runs on the same noise, which correct the estimate and decide. Levels fall
    by construction, from the noisiest one to a last positive one that is chosen, too, and end at
    clean data. Nothing is differentiated, so every deterministic sampler and network will do.

    Args:
        model: the network, with its guidance.
        x_T: initial noise [N, ...] at the noisiest level, such as that of
            :meth:`Denoiser.initial`; the first 12 at most are used.
        steps: of the grid, from 2.
        sampler: a deterministic one, by name or as a function of the grid.
        grid: to start from and to compare with: a spacing, or a grid that ends at clean data; the
            default of :func:`samplers.sample` if None.
        conditions: given to the network by name, with a row for each of the N samples, or shared.
        criterion: ``error``, or ``geometry`` for the dynamic programming of GITS (Chen et al. 2024,
            https://arxiv.org/abs/2405.11326) on the same pilots, which knows Euler's method only.
        budget: evaluations of single samples that the fit may take; one with guidance counts
            once, whatever networks it evaluates.
        batch_size: samples in each evaluation of the network.
        purpose: what it is fitted for, in words.
        progress: show a progress bar of the evaluations.

    Returns:
        The best grid that was run, and the one to start from if none was better.

    Raises:
        ValueError: for impossible settings, such as a stochastic sampler.
        NotFiniteError: if the network returns NaN or infinity.
    """
    _check(model, x_T, steps, criterion, budget)
    given = conditions or {}
    check_conditions(given, len(x_T))
    check_whole("The batch size", batch_size)
    name = sampler if isinstance(sampler, str) else getattr(sampler, "__qualname__", repr(sampler))

    def method(on: Grid) -> Tableau:
        return build_tableau(sampler, on)

    base = _base(sampler, model, steps, grid)
    tableau = _deterministic(method(base), name)
    plan = Plan.within(budget, len(x_T), steps, tableau.calls)
    rows = torch.arange(plan.pilots)
    spending = Spending(
        model, x_T[rows.to(x_T.device)], select_rows(given, rows), batch_size, budget, progress
    )
    with spending:
        before, best = _fitted(spending, method, base, tableau, plan, criterion)
    about = AboutGrid(
        **facts_of(model, purpose or Purpose()),
        data_scale=best.grid.schedule.data_scale,
        sampler=name,
        criterion=criterion,
        base=_words(grid, base),
        pilots=plan.pilots,
        evaluations=spending.evaluations,
        before=scores(before.score),
        after=scores(best.score),
    )
    return FittedGrid(best.grid.points.lam, about)


class Fitted(NamedTuple):
    """A grid that was run, and its score."""

    grid: Grid
    score: Score


@dataclass
class Spending:
    """Runs on the pilots' noise; counts network evaluations, and shows a bar of them."""

    model: Denoiser
    noise: Tensor
    conditions: Mapping[str, Any]
    batch_size: int
    budget: int
    progress: bool
    evaluations: int = 0
    bar: Any = field(init=False)

    def __enter__(self) -> None:
        self.bar = tqdm(total=self.budget, unit="evaluation", disable=not self.progress)

    def __exit__(self, *stopped: object) -> None:
        self.bar.close()

    def run(self, tableau: Tableau) -> PilotRun:
        found = run(self.model, self.noise, self.conditions, tableau, self.batch_size)
        self.evaluations += found.nfe * len(self.noise)
        self.bar.update(tableau.calls * len(self.noise))
        return found


def _fitted(
    spending: Spending,
    method: Callable[[Grid], Tableau],
    base: Grid,
    tableau: Tableau,
    plan: Plan,
    criterion: Criterion,
) -> tuple[Fitted, Fitted]:
    """The grid to start from, and the best one found."""
    first = spending.run(tableau)
    scale = root_mean_square(first.end)
    coordinate = Coordinate(spending.model.schedule.with_data_scale(scale))
    pilots = spending.run(pilot_tableau(coordinate, plan.knots))
    search = GridSearch(method, pilots, spending.run)
    start = search.of(first, Levels.around(coordinate, base))
    tried = {"error": _by_error, "geometry": _by_geometry}[criterion](search, start)
    found = list(itertools.islice(tried, plan.trials - 1))
    best = min([start, *found], key=lambda trial: trial.score)
    before = Fitted(base, Score.of(first.end, pilots.end))
    if not _certain(best, start):
        return before, before
    return before, Fitted(best.grid, Score.of(best.run.end, pilots.end))


def _by_error(search: GridSearch, start: GridTrial) -> Iterator[GridTrial]:
    """Trials around the grid to start from, or around one that suits the scale of the data."""
    c, steps = start.levels.coordinate, len(start.levels.steps) + 1
    even = Levels.even(c, steps, _EVEN_LAST * c.schedule.data_scale / math.sqrt(steps))
    estimate = Estimate.of(c, search.pilots, start.run)
    now, then = (
        estimate.errors(tableau).log().mean()
        for tableau in (start.run.tableau, search.method(even.grid(even.zeros)))
    )
    best = start
    if float((then - now).exp()) < _WORTH_TRYING:
        found = search.trial(even)
        yield found
        best = min(start, found, key=lambda trial: trial.score)
    yield from search.trials(best)


def _by_geometry(search: GridSearch, start: GridTrial) -> Iterator[GridTrial]:
    """The grids of dynamic programming with different coefficients."""
    c, steps = start.levels.coordinate, len(start.levels.steps) + 1
    costs = step_costs(search.pilots)
    tau = c.tau(evaluated_at(search.pilots.tableau))
    for coefficient in COEFFICIENTS:
        path = cheapest(costs, steps, coefficient)
        yield search.trial(Levels(c, -tau[path].diff()))


def _certain(best: GridTrial, start: GridTrial) -> bool:
    """Whether a grid is better than the first one by more than chance."""
    gains = start.errors - best.errors
    error = float(gains.std()) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return float(gains.mean()) > _CERTAIN * error


def _check(model: Denoiser, x_T: Tensor, steps: int, criterion: str, budget: int) -> None:
    check_denoiser(model)
    check_numbers("x_T", x_T)
    check_whole("The number of steps", steps)
    check_whole("The budget", budget)
    if steps < _LEAST_STEPS:
        raise ValueError(
            f"The number of steps is {steps}; a grid can be fitted from {_LEAST_STEPS} on."
        )
    if criterion not in get_args(Criterion):
        raise ValueError(f"The criterion is {criterion!r}; it must be 'error' or 'geometry'.")


def _base(sampler: str | Method, model: Denoiser, steps: int, grid: GridLike | None) -> Grid:
    if isinstance(sampler, OwnGrid):
        raise ValueError("The sampler has its own noise levels; take one by name.")
    base = grid_for(sampler, model.schedule, steps, grid)
    if base.start.rho != model.schedule.noisiest.rho:
        raise ValueError(
            f"The grid to start from begins at sigma/alpha = {float(base.start.rho):.4g}; it must "
            f"begin at the noisiest level, {float(model.schedule.noisiest.rho):.4g}."
        )
    if base.steps != steps or not base.end.clean:
        raise ValueError(
            f"The grid to start from has {base.steps} steps to sigma/alpha = "
            f"{float(base.end.rho):.3g}; it must have {steps}, to clean data."
        )
    return base


def _deterministic(tableau: Tableau, name: str) -> Tableau:
    if tableau.stochastic or not tableau.batch_invariant:
        raise ValueError(
            f"The sampler {name!r} is stochastic, and grids are fitted for deterministic ones; "
            "take one of these, such as ddim or dpmpp-2m."
        )
    return tableau


def _words(grid: GridLike | None, base: Grid) -> str:
    named = grid is None or isinstance(grid, str)
    kind = grid or DEFAULT_SPACING if named else "given grid"
    return f"{kind} to {float(base[base.steps - 1].rho):.4g}"
