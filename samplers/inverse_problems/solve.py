"""``solve_inverse_problem``: sample from the posterior given a linear measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from samplers.checks import check_one_each
from samplers.choices import INVERSE_PROBLEM_SPACING
from samplers.denoiser import Denoiser, check_conditions, check_denoiser
from samplers.grid import Final
from samplers.inverse_problems.guidance import Guidance, guiding
from samplers.inverse_problems.problem import InverseProblem, check_problem
from samplers.inverse_problems.replacement import Replacement, replaced_run, replacing
from samplers.noise import RowNoise
from samplers.registry import Method
from samplers.sampling import GridLike, build_tableau, checked, grid_for
from samplers.solve import Solver, State


def solve_inverse_problem(
    model: Denoiser,
    x_T: Tensor,
    problem: InverseProblem,
    *,
    method: Guidance | Replacement | None = None,
    sampler: str | Method = "ancestral",
    steps: int | None = None,
    grid: GridLike | None = None,
    seeds: Sequence[int] | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final | None = None,
    options: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    callback: Callable[[State], object] | None = None,
) -> Tensor:
    """Sample x_0 with ``A x_0 = y`` (up to the noise of y) from each initial noise in ``x_T``.

    Args:
        problem: the operator A, the measurement y and its noise.
        method: ``Guidance()`` (the default) adds the gradient of the measurement's likelihood to
            the score and satisfies ``A x_0 = y`` approximately; ``Replacement()`` replaces the
            measured part of every x_t and satisfies a noiseless measurement up to rounding, but its
            samples are less consistent.
        grid: ``log-snr`` if None: its first steps are short, for near pure noise the gradient of a
            prediction is large, and its last noise level is the lowest of the trained range.
        seeds: one integer for each sample; replacement and stochastic samplers need them.
        callback: called with the state after every network evaluation.

    All other arguments and the errors are those of :func:`samplers.sample`. Raises ValueError also
    if x_T, y and the operator do not fit together, or if the operator's adjoint is wrong. Gradients
    flow through everything: call it under ``torch.no_grad()`` if none are wanted.
    """
    check_denoiser(model)
    check_problem(problem, x_T)
    check_conditions(conditions or {}, len(x_T))
    on = grid_for(
        sampler,
        model.schedule,
        steps,
        grid,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        final=final,
        default=INVERSE_PROBLEM_SPACING,
    )
    if seeds is not None:
        check_one_each("seeds", seeds, "samples", len(x_T))
    noise = None if seeds is None else RowNoise(tuple(seeds), tuple(x_T.shape[1:]))
    solver = Solver(build_tableau(sampler, on, options), model.prediction, noise, model.correction)
    given = conditions or {}
    state = solver.init(x_T)
    match method or Guidance():
        case Guidance() as guidance:
            posterior = guiding(model, problem, guidance)
            states = solver.run(checked(lambda x, t: posterior(x, t, **given), solver), state)
        case Replacement() as replacement:
            own = _needed(seeds)
            network = checked(lambda x, t: model(x, t, **given), solver)
            state = replacing(solver, problem, own)(state)
            states = replaced_run(solver, network, state, problem, own, replacement)
        case other:
            raise ValueError(f"The method is {other!r}; it must be a Guidance() or Replacement().")
    for state in states:
        if callback is not None:
            callback(state)
    return state.x.to(x_T.dtype)


def _needed(seeds: Sequence[int] | None) -> Sequence[int]:
    if seeds is None:
        raise ValueError("Replacement adds noise; pass seeds, one for each sample.")
    return seeds
