"""The front door: model, noise and measurement in, image out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from samplers.checks import check_one_each
from samplers.grid import Final, Grid, Spacing, make_grid
from samplers.inverse_problems.guidance import Guidance, guiding
from samplers.inverse_problems.problem import InverseProblem, check_problem
from samplers.inverse_problems.replacement import Replacement, replaced_run, replacing
from samplers.noise import RowNoise
from samplers.prediction import Correction, Prediction
from samplers.registry import Method
from samplers.sampling import build_tableau, checked
from samplers.schedule import Schedule
from samplers.solve import Model, Solver, State


def solve_inverse_problem(
    model: Model,
    x_T: Tensor,
    problem: InverseProblem,
    *,
    schedule: Schedule,
    prediction: Prediction = "epsilon",
    method: Guidance | Replacement | None = None,
    sampler: str | Method = "ancestral",
    steps: int = 20,
    grid: Spacing | Grid = "log-snr",
    seeds: Sequence[int] | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final = "zero",
    options: Mapping[str, Any] | None = None,
    correct: Correction | None = None,
    callback: Callable[[State], object] | None = None,
) -> Tensor:
    """Draw one image x_0 with ``A x_0 = y`` (up to the noise of y) for each starting noise.

    Args:
        problem: the operator A, the measurement y and its noise.
        method: ``Guidance()`` (the default) bends the model towards the measurement by a gradient
            and comes near ``A x_0 = y``; ``Replacement()`` puts the measurement into every x_t and
            meets it to rounding, unless it is noisy, but knows less of how the parts belong
            together.
        seeds: one whole number for each sample; replacement and stochastic samplers need them.
        callback: called with the state after every network call.

    All other arguments and the errors are those of :func:`samplers.sample`. Raises
    ValueError, too, if x_T, y and the operator do not fit one another, or if the adjoint of the
    operator is not one. Gradients flow through everything: call it under ``torch.no_grad()`` if
    none are wanted.
    """
    check_problem(problem, x_T)
    if isinstance(grid, str):
        grid = make_grid(
            schedule, steps, grid, sigma_min=sigma_min, sigma_max=sigma_max, final=final
        )
    if seeds is not None:
        check_one_each("seeds", seeds, "samples", len(x_T))
    noise = None if seeds is None else RowNoise(tuple(seeds), tuple(x_T.shape[1:]))
    solver = Solver(build_tableau(sampler, grid, options), prediction, noise, correct)
    state = solver.init(x_T)
    match method or Guidance():
        case Guidance() as guidance:
            posterior = guiding(model, problem, grid.schedule, prediction, guidance)
            states = solver.run(checked(posterior, solver), state)
        case Replacement() as replacement:
            given = _needed(seeds)
            state = replacing(solver, problem, given)(state)
            states = replaced_run(
                solver, checked(model, solver), state, problem, given, replacement
            )
        case other:
            raise ValueError(f"The method is {other!r}; it must be a Guidance() or Replacement().")
    for state in states:
        if callback is not None:
            callback(state)
    return state.x.to(x_T.dtype)


def _needed(seeds: Sequence[int] | None) -> Sequence[int]:
    if seeds is None:
        raise ValueError("Replacement draws noise; give it seeds, one for each sample.")
    return seeds
