"""Layer 5. The front door: name, schedule and grid in, image out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from samplers.checks import check_numbers, check_one_each
from samplers.errors import NotFiniteError
from samplers.grid import Final, Grid, Spacing, make_grid
from samplers.prediction import Correction, Prediction
from samplers.registry import Method, get_sampler
from samplers.schedule import Schedule
from samplers.solve import NoiseKind, Solver, State, make_noise
from samplers.tableau import Tableau


class Adjoint(Protocol):
    """How a run is made, so that gradients can pass back through it; see the package `adjoint`."""

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        """The states after each network call ``model(x, t, *conditions)``, as a solver's run."""
        ...


def build_tableau(
    sampler: str | Method, grid: Grid, options: Mapping[str, Any] | None = None
) -> Tableau:
    """The tableau of a sampler, by name (with options) or as a function of the grid."""
    if not isinstance(sampler, str):
        return sampler(grid)
    return get_sampler(sampler).tableau(grid, options)


def sample(
    model: Callable[..., Tensor],
    x_T: Tensor,
    *,
    schedule: Schedule,
    prediction: Prediction = "epsilon",
    sampler: str | Method = "dpmpp-2m",
    steps: int = 20,
    grid: Spacing | Grid = "log-snr",
    seeds: Sequence[int] | None = None,
    noise: NoiseKind = "independent",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final = "zero",
    options: Mapping[str, Any] | None = None,
    correct: Correction | None = None,
    callback: Callable[[State], object] | None = None,
    conditions: Sequence[Tensor] = (),
    adjoint: Adjoint | None = None,
) -> Tensor:
    """Draw one sample for each starting noise in ``x_T``.

    Args:
        model: ``model(x, t, *conditions)`` with x [B, ...] and t [B], the schedule's own time.
        x_T: starting noise [B, ...], at the noise level where the grid starts; its dtype decides
            the arithmetic (float64 stays float64; half precision is accumulated in float32, in
            which the model is given x and t).
        prediction: what the model returns; see :mod:`samplers.prediction`.
        sampler: a name from :func:`samplers.list_samplers`, or a function from a grid to a tableau.
        grid: a spacing (see :func:`samplers.grid.make_grid`) or a grid of one's own, for which
            ``schedule``, ``steps``, ``sigma_min``, ``sigma_max`` and ``final`` are not read.
        seeds: one whole number for each sample; stochastic samplers need them.
        noise: of stochastic samplers, ``independent`` from call to call, or along a ``brownian``
            path for each seed, on which more steps converge to one image.
        options: settings of the sampler, such as ``{"eta": 0.5}``.
        correct: a change of every predicted x_0, such as :func:`samplers.prediction.clip`.
        callback: called with the state after every network call.
        conditions: what the model is given in every call, such as labels or embeddings.
        adjoint: how gradients pass back, such as ``adjoint.Checkpoint()``; recorded by autograd,
            with all activations of all calls, if not given.

    Returns x_0 in the dtype of ``x_T``. Gradients flow through everything: call it under
    ``torch.no_grad()`` if none are wanted. Raises ValueError for impossible settings, and
    NotFiniteError if the network returns NaN or infinity.
    """
    check_numbers("x_T", x_T)
    if isinstance(grid, str):
        grid = make_grid(
            schedule, steps, grid, sigma_min=sigma_min, sigma_max=sigma_max, final=final
        )
    if seeds is not None:
        check_one_each("seeds", seeds, "samples", len(x_T))
    tableau = build_tableau(sampler, grid, options)
    drawn = None if seeds is None else make_noise(tableau, seeds, x_T.shape[1:], noise)
    solver = Solver(tableau, prediction, drawn, correct)
    state = solver.init(x_T)
    for state in _states(solver, model, state, conditions, adjoint):
        if callback is not None:
            callback(state)
    return state.x.to(x_T.dtype)


def _states(
    solver: Solver,
    model: Callable[..., Tensor],
    state: State,
    conditions: Sequence[Tensor],
    adjoint: Adjoint | None,
) -> Iterator[State]:
    if adjoint is not None:
        return adjoint.run(solver, model, state, conditions)
    return solver.run(checked(lambda x, t: model(x, t, *conditions), solver), state)


def checked(model: Callable[..., Tensor], solver: Solver) -> Callable[..., Tensor]:
    """The model, with an error at the first call that returns NaN, infinity or another shape."""
    calls = 0

    def call(x: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        output = model(x, t, *conditions)
        if output.shape != x.shape:
            raise ValueError(
                f"The network returned shape {tuple(output.shape)} for x of {tuple(x.shape)}; "
                "it must return one prediction of the shape of x."
            )
        if not bool(output.detach().isfinite().all()):
            raise NotFiniteError(
                f"The network returned NaN or infinity at call {calls} of {solver.tableau.calls} "
                f"(t = {float(t[0]):.6g}).",
                x,
            )
        return output

    return call
