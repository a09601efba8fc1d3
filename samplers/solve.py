r"""Layer 3. The executor, which runs any tableau on any network.

``advance(state, output)`` is pure: it takes the network's output at ``state.x`` and returns the
next state. A state is a row number and a few tensors, so it can be pickled, forked, resumed
elsewhere and compared bit for bit. Half-precision states are accumulated in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from samplers import choices
from samplers.noise import BrownianNoise, Noise, RowNoise
from samplers.prediction import Conversion, Correction, Prediction, to_data
from samplers.tableau import Row, Tableau

NoiseKind = choices.NoiseKind

Model = Callable[[Tensor, Tensor], Tensor]
"""A network: (x of shape [B, ...], t of shape [B]) -> its output, shaped like x."""


class State(NamedTuple):
    """The state between two network evaluations.

    Attributes:
        row: the index of the next row.
        points, predictions: the stored ones, newest first.
    """

    row: int
    points: tuple[Tensor, ...]
    predictions: tuple[Tensor, ...]

    @property
    def x(self) -> Tensor:
        """The newest point: the input of the next network evaluation, or the finished sample."""
        return self.points[0]


class Coefficients(NamedTuple):
    """The coefficients of a row as 0-d tensors, in the dtype and on the device of the state.

    x_0 is ``of_x * x + of_output * output``. Each appended point has a line: pairs of an index into
    the memory (the stored points, newest first, then the predictions) and a coefficient. It also
    has a coefficient of ``noise`` if the row adds any. A row that is scaled by norms of the batch
    has the coefficients of eps, 1 / sigma and -alpha / sigma.
    """

    of_x: Tensor
    of_output: Tensor
    lines: tuple[tuple[tuple[int, Tensor], ...], ...]
    noise: tuple[Tensor, ...]
    eps: tuple[Tensor, ...]


class Prepared(NamedTuple):
    """A tableau for states of one dtype on one device: its rows, and the size of its memory."""

    rows: tuple[Coefficients, ...]
    points_kept: int
    predictions_kept: int
    stochastic: bool


Tensors = tuple[Tensor, ...]
Step = Callable[
    [Coefficients, Tensors, Tensors, Tensor, Tensor | None, Correction | None],
    tuple[Tensors, Tensors],
]


def step(
    row: Coefficients,
    points: Tensors,
    predictions: Tensors,
    output: Tensor,
    z: Tensor | None,
    correct: Correction | None,
) -> tuple[Tensors, Tensors]:
    """The arithmetic of one row: x_0, a few fused multiply-adds, a shift of the memory.

    It generates no noise and never branches on the value of a tensor, so it compiles as one graph.
    """
    x0 = (points[0] * row.of_x).addcmul_(output, row.of_output)
    x0 = x0 if correct is None else correct(x0)
    made = (x0, *predictions)
    if row.eps and z is not None:
        return (_scaled(row, points, made, z), *points[:-1]), made[:-1]
    memory = (*points, *made)
    appended = len(row.lines)
    for a, line in enumerate(row.lines):
        new = _combine(line, memory)
        points = (new if z is None else new.addcmul_(z, row.noise[a]), *points)
    return points[:-appended], made[:-1]


def _combine(line: tuple[tuple[int, Tensor], ...], memory: Tensors) -> Tensor:
    """The linear combination; additions are made in place, in newly allocated memory."""
    place, coefficient = line[0]
    total = memory[place] * coefficient
    for place, coefficient in line[1:]:
        total.addcmul_(memory[place], coefficient)
    return total


def _scaled(row: Coefficients, points: Tensors, made: Tensors, z: Tensor) -> Tensor:
    """The arithmetic of a row whose step size is scaled by a ratio of norms over the batch."""
    x = points[0]
    eps = (x * row.eps[0]).addcmul_(made[0], row.eps[1])
    factor = (_mean_norm(z) / _mean_norm(eps)).square()
    moved = _combine(row.lines[0], (*points, *made)) - x
    return x + factor * moved + factor.sqrt() * row.noise[0] * z


def _mean_norm(batch: Tensor) -> Tensor:
    return batch.flatten(1).square().sum(dim=1).sqrt().mean()


@dataclass(frozen=True, eq=False)
class Solver:
    """A tableau with the prediction type of the network and the source of noise.

    Attributes:
        noise: needed by stochastic tableaux only.
        correct: applied to every predicted x_0, such as clipping.
        step: the arithmetic of a row, such as ``torch.compile(step, fullgraph=True)``.
    """

    tableau: Tableau
    prediction: Prediction = "epsilon"
    noise: Noise | None = None
    correct: Correction | None = None
    step: Step = step
    _prepared: dict[tuple[torch.dtype, torch.device], Prepared] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def conversions(self) -> tuple[Conversion, ...]:
        """The coefficients that convert the network output of each row to x_0."""
        return tuple(to_data(self.prediction, row.at) for row in self.tableau.rows)

    def init(self, x: Tensor) -> State:
        """The state before the first network evaluation, from the initial noise x_T.

        Raises ValueError if the sampler is stochastic and there is no noise, or if the network
        can't be evaluated at the first point.
        """
        x = x.to(working_dtype(x.dtype))
        tableau = self.tableau
        prepared = self.prepare(x.dtype, x.device)
        if prepared.stochastic and self.noise is None:
            raise ValueError("This sampler is stochastic; pass seeds, one for each sample.")
        if bool(tableau.start_scale != 1):
            x = tableau.start_scale.to(x.dtype) * x
        if bool(tableau.start_noise != 0):
            x = x + tableau.start_noise.to(x.dtype) * self._draw(-1, x)
        older = tuple(torch.zeros_like(x) for _ in range(prepared.points_kept - 1))
        made = tuple(torch.zeros_like(x) for _ in range(prepared.predictions_kept))
        return State(0, (x, *older), made)

    def advance(self, state: State, output: Tensor) -> State:
        """The next state, from the network's output at ``state.x`` and ``time(state)``."""
        x = state.points[0]
        row = self.prepare(x.dtype, x.device).rows[state.row]
        z = self._draw(state.row, x) if row.noise else None
        output = output.to(x.dtype)
        memory = self.step(row, state.points, state.predictions, output, z, self.correct)
        return State(state.row + 1, *memory)

    def with_noise(self, noise: Noise) -> Solver:
        """The same solver, with its cached coefficients, and another source of noise."""
        other = replace(self, noise=noise)
        other._prepared.update(self._prepared)
        return other

    def done(self, state: State) -> bool:
        return state.row == len(self.tableau.rows)

    def time(self, state: State) -> Tensor:
        """The time of the next network evaluation, a float64 scalar on the CPU."""
        return self.tableau.rows[state.row].at.t

    def run(self, model: Model, state: State) -> Iterator[State]:
        """The states after ``state``, one for each network evaluation.

        The network is given x in the dtype of the state, and one t for each sample.
        """
        while not self.done(state):
            state = self._call(model, state)
            yield state

    def finish(self, model: Model, state: State) -> State:
        """The last state, after all remaining network evaluations."""
        while not self.done(state):
            state = self._call(model, state)
        return state

    def _call(self, model: Model, state: State) -> State:
        t = self.time(state).to(state.x).expand(len(state.x))
        return self.advance(state, model(state.x, t))

    def moved(self, state: State, x: Tensor) -> State:
        """The state after the newest point was edited to ``x`` from outside, such as by a pipeline.

        What was stored since the beginning of the step is shifted consistently: an edit that
        shifts the data by c shifts a point by alpha c and a prediction by c.
        """
        row = self.tableau.rows[state.row]
        if row.base == 0:
            return state._replace(points=(x, *state.points[1:]))
        edit = (x - state.x) / float(row.at.alpha) if not row.at.pure_noise else x - state.x
        alphas = self._alphas[state.row]
        of_step = (p + alpha * edit for p, alpha in zip(state.points[1:], alphas, strict=False))
        made = (d + edit for d in state.predictions[: row.base])
        points = (x, *of_step, *state.points[1 + row.base :])
        return State(state.row, points, (*made, *state.predictions[row.base :]))

    @cached_property
    def _alphas(self) -> tuple[tuple[float, ...], ...]:
        """For each row, alpha of the stored points of its step, by lag from 1 to its base."""
        alphas, found = [float(self.tableau.rows[0].at.alpha)], []
        for row in self.tableau.rows:
            found.append(tuple(alphas[-1 - lag] for lag in range(1, row.base + 1)))
            alphas.extend(row.reached.alpha.tolist())
        return tuple(found)

    def _draw(self, row: int, like: Tensor) -> Tensor:
        assert self.noise is not None  # checked when the run began
        # Cast here and copied without waiting, so that the device is never waited for.
        return self.noise(row).to(like.dtype).to(like.device, non_blocking=True)

    def prepare(self, dtype: torch.dtype, device: torch.device) -> Prepared:
        """The coefficients of the tableau for states of this dtype on this device.

        They are computed once and cached; call this in advance if the first step must not wait.
        """
        key = (dtype, device)
        if key not in self._prepared:
            tableau = self.tableau
            pairs = zip(tableau.rows, self.conversions, strict=True)
            kept = (tableau.points_kept, tableau.predictions_kept)
            rows = tuple(_cast(row, *numbers, kept[0], *key) for row, numbers in pairs)
            self._prepared[key] = Prepared(rows, *kept, tableau.stochastic)
        return self._prepared[key]


def make_noise(
    tableau: Tableau,
    seeds: Sequence[int],
    shape: Sequence[int],
    kind: NoiseKind = "independent",
    *,
    first: int = 0,
) -> Noise:
    """Make the noise of a run of a tableau, from one seed for each sample.

    Args:
        kind: ``independent`` from row to row, or the increments of one ``brownian`` path for each
            sample, so that more steps with the same seed converge to one image.
        first: the index of the tableau's first row in the whole run, of which it may be a later
            part.

    Raises ValueError if the sampler's noise is not a function of a Brownian path.
    """
    if kind == "independent":
        return RowNoise(tuple(seeds), tuple(shape), first)
    if kind != "brownian":
        raise ValueError(f"There is no noise named {kind!r}; take 'independent' or 'brownian'.")
    free = [k for k, row in enumerate(tableau.rows) if row.noisy and row.path is None]
    if free or bool(tableau.start_noise != 0):
        raise ValueError(
            "This sampler has noise that is not a function of a Brownian path (a Langevin "
            "corrector's, or EDM's churn); take independent noise, or another sampler."
        )
    paths = [None if row.path is None else row.path.detach().tolist() for row in tableau.rows]
    intervals = tuple(None if path is None else (path[0], path[1]) for path in paths)
    return BrownianNoise(tuple(seeds), tuple(shape), intervals)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a state of ``dtype`` is accumulated."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _cast(
    row: Row,
    of_x: Tensor,
    of_output: Tensor,
    points_kept: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Coefficients:
    def scalars(vector: Tensor) -> Tensors:
        return vector.to(dtype).to(device, non_blocking=True).unbind()

    a, b = scalars(torch.stack([of_x, of_output]))
    places = (*row.point_lags, *(points_kept + lag for lag in row.prediction_lags))
    tables = torch.cat([row.points, row.predictions], dim=1)
    lines = tuple(tuple(zip(places, scalars(numbers), strict=True)) for numbers in tables)
    noise = scalars(row.noise) if row.noisy else ()
    eps = torch.stack([1 / row.at.sigma, -row.at.alpha / row.at.sigma])
    return Coefficients(a, b, lines, noise, scalars(eps) if row.scaling == "batch-norm" else ())
