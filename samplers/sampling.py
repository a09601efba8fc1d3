"""Layer 5. ``sample``: sample from a denoiser on a fixed grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import (
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypedDict,
    Unpack,
    overload,
    runtime_checkable,
)

from torch import Tensor
from tqdm.auto import tqdm

from samplers.checks import check_numbers, check_one_each
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.denoiser import Denoiser, check_conditions, check_denoiser
from samplers.errors import NotFiniteError
from samplers.grid import Final, Grid, Spacing, make_grid
from samplers.registry import Method, get_sampler
from samplers.schedule import Schedule
from samplers.solve import NoiseKind, Solver, State, make_noise
from samplers.spacings import find_spacing
from samplers.tableau import Tableau

STEPS = 20

_OTHER_SCALE = 3.0
"""By which the scale of samples may differ from that of the data that a grid was made for."""
_ENOUGH_NUMBERS = 64
"""From which a root mean square is one of the data, rather than of one sample's own."""


class Adjoint(Protocol):
    """The interface of an adjoint: how gradients are backpropagated; see the package `adjoint`."""

    def run(
        self,
        solver: Solver,
        model: Callable[..., Tensor],
        state: State,
        conditions: Sequence[Tensor],
    ) -> Iterator[State]:
        """The states after each evaluation ``model(x, t, *conditions)``, like
        :meth:`Solver.run`."""
        ...


class SampleInfo(NamedTuple):
    """The samples of a run, and its number of network evaluations.

    Attributes:
        x_0: the samples [B, ...], in the dtype of ``x_T``.
        nfe: network evaluations of each sample; a guided one counts as the two that it makes.
        rejected: steps that were tried and rejected; 0 on a fixed grid.
        trajectory: x before each evaluation and at the end, [B, ...] each; empty unless asked for.
    """

    x_0: Tensor
    nfe: int
    rejected: int
    trajectory: tuple[Tensor, ...]


def count_evaluations(model: Denoiser, tableau: Tableau) -> int:
    """The network evaluations of each sample in a run (NFE), those of guidance included."""
    return sum(int(model.nfe(row.at)) for row in tableau.rows)


ReturnInfo = bool | Literal["trajectory"]


@runtime_checkable
class OwnGrid(Protocol):
    """The interface of a sampler that has its own grid, such as a tuned one."""

    def grid(self, schedule: Schedule) -> Grid:
        """The grid on which it runs, on the schedule of a model."""
        ...

    def __call__(self, grid: Grid) -> Tableau: ...


@runtime_checkable
class NetworkLevels(Protocol):
    """The interface of noise levels that belong to a network, such as fitted ones."""

    @property
    def steps(self) -> int: ...

    def grid(self, schedule: Schedule) -> Grid:
        """The grid, on the schedule of a model."""
        ...


GridLike = Spacing | Grid | NetworkLevels
"""What determines a grid: a spacing by name, or noise levels."""


def build_tableau(
    sampler: str | Method, grid: Grid, options: Mapping[str, Any] | None = None
) -> Tableau:
    """The tableau of a sampler, by name (with options) or as a function of the grid."""
    if isinstance(sampler, str):
        return get_sampler(sampler).tableau(grid, options)
    if options:
        raise ValueError(
            f"The options {', '.join(options)} came with a sampler that is a function; only "
            "samplers by name have options."
        )
    return sampler(grid)


def grid_for(
    sampler: str | Method,
    schedule: Schedule,
    steps: int | None = None,
    grid: GridLike | None = None,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final | None = None,
    default: Spacing = DEFAULT_SPACING,
) -> Grid:
    """The grid of a run: that of the sampler if it has one, or the grid, or one of this spacing.

    For None it has 20 steps and the spacing ``default``, to ``zero``. Raises ValueError for
    settings that come with a sampler or with levels that have their own grid.
    """
    if not isinstance(sampler, OwnGrid):
        if isinstance(grid, Grid):
            return grid
        if isinstance(grid, NetworkLevels):
            ends = {"sigma_min": sigma_min, "sigma_max": sigma_max, "final": final}
            _refuse("a grid of noise levels", grid.steps, steps, ends)
            return grid.grid(schedule)
        return make_grid(
            schedule,
            STEPS if steps is None else steps,
            default if grid is None else grid,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            final=final or "zero",
        )
    own = sampler.grid(schedule)
    if isinstance(grid, Grid):
        return grid  # which the sampler compares with its own
    settings = {"grid": grid, "sigma_min": sigma_min, "sigma_max": sigma_max, "final": final}
    _refuse("a sampler that has its own grid", own.steps, steps, settings)
    return own


def _refuse(what: str, own: int, steps: int | None, settings: Mapping[str, object]) -> None:
    """Raise ValueError for settings, or another number of steps, beside what has its own."""
    given = [name for name, value in settings.items() if value is not None]
    given += [] if steps in (None, own) else ["steps"]
    if given:
        raise ValueError(f"{given[0]} came with {what}, of {own} steps; omit it.")


class RunSettings(TypedDict, total=False):
    """The keywords of :func:`sample` that determine the run; see there."""

    sampler: str | Method
    steps: int | None
    grid: GridLike | None
    sigma_min: float | None
    sigma_max: float | None
    final: Final | None
    options: Mapping[str, Any] | None
    seeds: Sequence[int] | None
    noise: NoiseKind
    conditions: Mapping[str, Any] | None
    callback: Callable[[State], object] | None
    adjoint: Adjoint | None
    progress: bool


@overload
def sample(
    model: Denoiser, x_T: Tensor, *, return_info: Literal[False] = ..., **run: Unpack[RunSettings]
) -> Tensor: ...


@overload
def sample(
    model: Denoiser,
    x_T: Tensor,
    *,
    return_info: Literal[True, "trajectory"],
    **run: Unpack[RunSettings],
) -> SampleInfo: ...


def sample(
    model: Denoiser,
    x_T: Tensor,
    *,
    sampler: str | Method = DEFAULT_SAMPLER,
    steps: int | None = None,
    grid: GridLike | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final | None = None,
    options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    noise: NoiseKind = "independent",
    conditions: Mapping[str, Any] | None = None,
    callback: Callable[[State], object] | None = None,
    adjoint: Adjoint | None = None,
    progress: bool = False,
    return_info: ReturnInfo = False,
) -> Tensor | SampleInfo:
    """Sample x_0 from the initial noise ``x_T``.

    Args:
        model: the network with its schedule and prediction type, see :class:`samplers.Denoiser`.
        x_T: initial noise [B, ...] at the noise level where the grid starts, such as that of
            :meth:`Denoiser.initial`; its dtype decides the arithmetic (float64 stays float64; half
            precision is accumulated in float32, in which the network is given x and t).
        sampler: a name from ``list_samplers("fixed-grid")``, a function from a grid to a tableau,
            or a :class:`samplers.TunedSampler`, which has its own grid: omit the next five.
        steps: of the grid; also the number of evaluations, if the sampler takes one per step. 20 if
            None.
        grid: a spacing (see :func:`samplers.make_grid`), ``log-flow`` if None, which depends on the
            scale of the data (see :meth:`Denoiser.with_data_scale`); or a grid, then
            ``steps``, ``sigma_min``, ``sigma_max`` and ``final`` are ignored; or a
            :class:`samplers.FittedGrid`: omit these.
        sigma_min, sigma_max: the last positive and the first noise level, as sigma / alpha; those
            of the trained range if None.
        final: the grid ends at sigma = 0 (``zero``, also for None) or at ``sigma_min``.
        options: settings of the sampler, such as ``{"eta": 0.5}``.
        seeds: one integer for each sample; stochastic samplers need them.
        noise: of stochastic samplers, ``independent`` from row to row, or along a ``brownian`` path
            for each seed, on which more steps converge to one sample.
        conditions: given to the network by name in every evaluation, such as labels or embeddings.
        callback: called with the state after every evaluation.
        adjoint: how gradients are backpropagated, such as ``adjoint.CheckpointAdjoint()``; through
            the graph of autograd, with all activations of all evaluations, if None.
        progress: show a progress bar of the evaluations.
        return_info: return a :class:`SampleInfo`, which counts the evaluations; ``"trajectory"``
            also keeps every x in it.

    Returns:
        x_0 in the dtype of ``x_T``, or a :class:`SampleInfo`.

    Gradients flow through everything: call it under ``torch.no_grad()`` if none are wanted. Raises
    ValueError for impossible settings, and NotFiniteError if the network returns NaN or infinity.
    """
    check_denoiser(model)
    check_numbers("x_T", x_T)
    check_conditions(conditions or {}, len(x_T))
    on = grid_for(
        sampler,
        model.schedule,
        steps,
        grid,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        final=final,
    )
    if seeds is not None:
        check_one_each("seeds", seeds, "samples", len(x_T))
    tableau = build_tableau(sampler, on, options)
    source = None if seeds is None else make_noise(tableau, seeds, x_T.shape[1:], noise)
    solver = Solver(tableau, model.prediction, source, model.correction)
    state = solver.init(x_T)
    trajectory = [state.x]
    states = _states(solver, model, state, conditions or {}, adjoint)
    for state in tqdm(states, total=tableau.calls, unit="evaluation", disable=not progress):
        if callback is not None:
            callback(state)
        if return_info == "trajectory":
            trajectory.append(state.x)
    x_0 = state.x.to(x_T.dtype)
    named = DEFAULT_SPACING if grid is None else grid
    scaled = isinstance(named, str) and find_spacing(named) == "log-flow"
    scaled = scaled and not isinstance(sampler, OwnGrid)
    if scaled and on.end.clean and x_0.numel() >= _ENOUGH_NUMBERS:
        _warn_of_scale(x_0, model.schedule.data_scale)
    if not return_info:
        return x_0
    kept = tuple(trajectory) if return_info == "trajectory" else ()
    return SampleInfo(x_0, count_evaluations(model, tableau), 0, kept)


def root_mean_square(x: Tensor) -> float:
    return float(x.detach().float().square().mean().sqrt())


def _warn_of_scale(x_0: Tensor, expected: float) -> None:
    """Warn if samples are not of the scale of data that the grid was made for."""
    found = root_mean_square(x_0)
    if not expected / _OTHER_SCALE <= found <= expected * _OTHER_SCALE:
        warnings.warn(
            f"The samples have a root mean square of about {found:.1g}, and the grid 'log-flow' is "
            f"one for data of {expected:g}; if the data have another scale, take "
            "model.with_data_scale (see samplers.measure_data_scale), which errs less.",
            stacklevel=3,
        )


def _states(
    solver: Solver,
    model: Denoiser,
    state: State,
    conditions: Mapping[str, Any],
    adjoint: Adjoint | None,
) -> Iterator[State]:
    if adjoint is None:
        return solver.run(checked(lambda x, t: model(x, t, **conditions), solver), state)
    # An adjoint is given the tensors by position: it needs their gradients, not their names.
    return adjoint.run(solver, by_place(model, tuple(conditions)), state, [*conditions.values()])


def by_place(model: Denoiser, names: Sequence[str]) -> Callable[..., Tensor]:
    """The model as ``call(x, t, *conditions)``, with the conditions of these names in order."""

    def call(x: Tensor, t: Tensor, *values: Any) -> Tensor:
        return model(x, t, **dict(zip(names, values, strict=True)))

    return call


def checked(model: Callable[..., Tensor], solver: Solver) -> Callable[..., Tensor]:
    """The model, which raises an error for an output that is NaN, infinite or of another shape."""
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
                f"The network returned NaN or infinity at evaluation {calls} of "
                f"{solver.tableau.calls} (t = {float(t[0]):.6g}).",
                x,
            )
        return output

    return call
