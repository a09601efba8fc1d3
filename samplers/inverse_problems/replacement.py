r"""Replacement: the measured part of x_t is replaced before each step and after the last.

.. math:: x \leftarrow x - A^+ (A x - y_t), \qquad y_t = \alpha_t y + s_t A z

with fresh noise z and ``s_t = sigma_t``; for a noisy y, where A A^T = c I, with ``s_t^2 = sigma_t^2
- alpha_t^2 sigma_y^2 / c``. The measured part then has the right marginal at every t (Song et al.
2021, appendix I, https://arxiv.org/abs/2011.13456), but the unmeasured part was sampled without it:
the joint distribution is exact only if the two are independent. Repeating each step several times,
with new noise in between, reduces the inconsistency (Lugmayr et al. 2022, algorithm 1,
https://arxiv.org/abs/2201.09865).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from samplers.checks import check_whole
from samplers.inverse_problems.operators import Shape, pseudo_inverse
from samplers.inverse_problems.problem import InverseProblem
from samplers.noise import RowNoise, hashed_seed
from samplers.schedule import Point
from samplers.solve import Model, Solver, State
from samplers.tableau import Tableau

Edit = Callable[[State], State]


@dataclass(frozen=True)
class Replacement:
    """Replacement of the measured part of x_t: a method of ``solve_inverse_problem``.

    Attributes:
        visits: how often each step is taken, which multiplies the network evaluations. More than
            one requires a singlestep sampler, preferably a stochastic one.
    """

    visits: int = 1

    def __post_init__(self) -> None:
        check_whole("The number of visits", self.visits)


def replacing(
    solver: Solver, problem: InverseProblem, seeds: Sequence[int], visit: int = 0
) -> Edit:
    """The function that replaces the measured part of a state between two steps or at the end.

    States inside a step are returned as they are. The noise is a function of the sample's seed,
    the row and the visit, and independent of the sampler's own.

    A noisy measurement weakens the replacement. Where sigma_t / alpha_t is below sigma_y / sqrt(c),
    y is noisier than x_t, and x_t is left as it is; at sigma = 0 the level of the last network
    evaluation decides. Raises ValueError for a noisy measurement whose operator has no scale c
    (``gram``).
    """
    operator, noise_std = problem.operator, _noise_of_known(problem)
    noise = _noise(seeds, operator.image_shape, "known", visit)

    def edit(state: State) -> State:
        if not _between_steps(solver, state):
            return state
        at, x = _reached(solver, state), state.x
        alpha = float(at.alpha)
        if noise_std > float(_asked(solver, state).rho):
            return state
        left = max(0.0, float(at.sigma) ** 2 - (alpha * noise_std) ** 2)
        z = _draw(noise, state.row, x)
        y = alpha * problem.measurement.to(x)
        known = pseudo_inverse(operator, y + operator.forward(math.sqrt(left) * z - x))
        return _moved(solver, state, x + known)

    return edit


def replaced_run(
    solver: Solver,
    model: Model,
    state: State,
    problem: InverseProblem,
    seeds: Sequence[int],
    settings: Replacement,
) -> Iterator[State]:
    """The states of a run with replacement, as those of :meth:`Solver.run`.

    Args:
        state: one at the beginning of a step, after :func:`replacing`. The last state of each step
            is such a state, so a run can be resumed from it, bit for bit.

    Raises ValueError for more than one visit with a multistep sampler.
    """
    _check_visits(solver, settings.visits)
    rounds = [_Round.make(solver, problem, seeds, visit) for visit in range(settings.visits)]
    while not solver.done(state):
        begun = state
        for visit, its in enumerate(rounds):
            state = begun if visit == 0 else _noised_again(solver, state, begun, its.again)
            for state in _step(its.solver, model, state):
                state = its.edit(state)
                yield state


@dataclass(frozen=True, eq=False)
class _Round:
    """The solver and the replacement of one visit of the steps, with noise of their own."""

    solver: Solver
    edit: Edit
    again: RowNoise

    @classmethod
    def make(
        cls, solver: Solver, problem: InverseProblem, seeds: Sequence[int], visit: int
    ) -> _Round:
        shape = problem.operator.image_shape
        edit = replacing(solver, problem, seeds, visit)
        again = _noise(seeds, shape, "again", visit)
        if visit > 0:
            solver = solver.with_noise(_noise(seeds, shape, "sampler", visit))
        return cls(solver, edit, again)


def _step(solver: Solver, model: Model, state: State) -> Iterator[State]:
    """The state after each network evaluation of one step."""
    for state in solver.run(model, state):
        yield state
        if _between_steps(solver, state):
            return


def _noised_again(solver: Solver, state: State, begun: State, noise: RowNoise) -> State:
    r"""``begun``, with its newest point sampled by the forward process from that of ``state``.

    .. math:: x_t = (\alpha_t / \alpha_s) x_s
        + \sqrt{\sigma_t^2 - (\alpha_t \sigma_s / \alpha_s)^2} \, z
    """
    before, now = _reached(solver, begun), _reached(solver, state)
    ratio = float(before.alpha / now.alpha)
    variance = float(before.sigma) ** 2 - (ratio * float(now.sigma)) ** 2
    z = _draw(noise, begun.row, state.x)
    return solver.moved(begun, ratio * state.x + math.sqrt(variance) * z)


def _between_steps(solver: Solver, state: State) -> bool:
    rows = solver.tableau.rows
    if state.row == 0 or solver.done(state):
        return True
    return rows[state.row].step != rows[state.row - 1].step


def _reached(solver: Solver, state: State) -> Point:
    """The point of the schedule at which the newest sample lies."""
    return solver.tableau.end if solver.done(state) else solver.tableau.rows[state.row].at


def _asked(solver: Solver, state: State) -> Point:
    """The same, or at sigma = 0 the point of the last network evaluation."""
    at = _reached(solver, state)
    return solver.tableau.rows[-1].at if at.clean else at


def _moved(solver: Solver, state: State, x: Tensor) -> State:
    if solver.done(state):
        return state._replace(points=(x, *state.points[1:]))
    return solver.moved(state, x)


def _noise_of_known(problem: InverseProblem) -> float:
    """The standard deviation of the measurement's noise in the measured part of the image."""
    if problem.noise_std == 0:
        return 0.0
    if problem.operator.gram is None:
        raise ValueError(
            "Replacement by a noisy measurement needs an operator with A A^T = c I (`gram`), "
            "which a blur does not have; take guidance (--method guidance)."
        )
    return problem.noise_std / math.sqrt(problem.operator.gram)


def _check_visits(solver: Solver, visits: int) -> None:
    # What a step remembers of another visit's noise is no slope: its differences grow with it.
    if visits > 1 and not _forgets(solver.tableau):
        raise ValueError(
            f"{visits} visits to each step need a sampler that remembers nothing from one step to "
            "the next, such as ancestral or ddim, and this one does; take another, or 1 visit."
        )


def _forgets(tableau: Tableau) -> bool:
    """Whether no row uses anything from before the beginning of its step."""
    step, points, predictions = 0, 0, 0
    for row in tableau.rows:
        if row.step != step:
            step, points, predictions = row.step, 0, 0
        if _reaches(row.points, row.point_lags, points):
            return False
        if _reaches(row.predictions, row.prediction_lags, predictions):
            return False
        points, predictions = points + len(row.noise), predictions + 1
    return True


def _reaches(coefficients: Tensor, lags: tuple[int, ...], most: int) -> bool:
    """Whether a column of a lag above ``most`` is used."""
    used = (coefficients != 0).any(dim=0).tolist()
    return any(lag > most and use for lag, use in zip(lags, used, strict=True))


def _noise(seeds: Sequence[int], shape: Shape, purpose: str, visit: int) -> RowNoise:
    """Noise for a purpose and a visit, independent of that of the seeds themselves."""
    return RowNoise(
        tuple(hashed_seed(f"{seed} {purpose} {visit}".encode()) for seed in seeds), shape
    )


def _draw(noise: RowNoise, row: int, like: Tensor) -> Tensor:
    # Cast here and copied without waiting, so that the device is never waited for.
    return noise(row).to(like.dtype).to(like.device, non_blocking=True)
