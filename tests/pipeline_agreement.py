"""Whether a pipeline of diffusers with our scheduler does what the library's own loop does.

The pipeline runs with a random network of a few thousand weights, and every step is recorded: what
the network was given, what it returned, and what the scheduler made of it. The library's own loop
then runs on the default grid of the config of the pipeline's own scheduler, with the recorded
outputs in the place of the network. A pipeline agrees if the network was given the loop's own
points and times, and every step ends at the loop's own point.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor

from samplers import SamplerScheduler, sample_seeds
from samplers.diffusers.config import read_config
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid
from samplers.registry import get_sampler
from samplers.schedule import Point
from samplers.solve import Solver, State, make_noise

STEPS = 4
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """A pipeline that can be built without a download.

    Attributes:
        name: of its class.
        components: makes its components, of random weights.
        arguments: of its call, but for the number of steps and the generator.
        network: the name of the component that is evaluated once a timestep.
    """

    name: str
    components: Callable[[], Mapping[str, Any]]
    arguments: Callable[[], Mapping[str, Any]]
    network: str = "transformer"

    def __str__(self) -> str:
        return self.name

    def build(self) -> Any:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = getattr(diffusers, self.name)(**self.components())
        pipe.set_progress_bar_config(disable=True)
        return pipe


class Outcome(NamedTuple):
    """Whether the pipeline works with a sampler; why not, or what it does to the latents."""

    works: bool
    said: str = ""


class Disagreement(Exception):
    """The pipeline did something else than the library's own loop."""


class StepCall(NamedTuple):
    """One call of the scheduler's step, and the tensors that the network was given before it."""

    sample: Tensor
    output: Tensor
    result: Tensor
    given: tuple[Tensor, ...]


@dataclass
class Recorder:
    """Records the run of a pipeline."""

    scheduler: SamplerScheduler
    settings: dict[str, Any] = field(default_factory=dict)
    calls: list[StepCall] = field(default_factory=list)
    begin: int = 0
    seeds: tuple[int, ...] = ()
    _given: list[Tensor] = field(default_factory=list)

    def watch(self, network: torch.nn.Module) -> None:
        """Record what the network is given, and the calls of the scheduler."""
        network.register_forward_pre_hook(self._before_network, with_kwargs=True)
        step, plan = self.scheduler.step, self.scheduler.set_timesteps

        @functools.wraps(step)
        def recording(
            output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if not self.calls:
                self.seeds = sample_seeds(sample, kwargs.get("generator"))
            before = sample.clone()
            made = step(output, timestep, sample, *args, **kwargs)
            if not self.calls:
                self.begin = int(self.scheduler.step_index or 0) - 1
            result = made[0].clone()
            self.calls.append(StepCall(before, output.clone(), result, tuple(self._given)))
            self._given.clear()
            return made

        @functools.wraps(plan)
        def planning(num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
            self.settings = {"num_inference_steps": num_inference_steps, **kwargs}
            plan(num_inference_steps, *args, **kwargs)

        scheduler: Any = self.scheduler
        scheduler.step, scheduler.set_timesteps = recording, planning

    def _before_network(self, module: Any, args: Any, kwargs: Any) -> None:
        self._given.extend(_tensors([*args, *kwargs.values()]))


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found = [value.detach().clone() for value in values if isinstance(value, Tensor)]
    for value in values:
        if isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def outcome(case: Case, sampler: str) -> Outcome:
    """Whether the pipeline agrees with the library's own loop, with this sampler."""
    pipe = case.build()
    original = pipe.scheduler
    try:
        pipe.scheduler = SamplerScheduler.from_config(original, sampler=sampler)
        recorder = Recorder(pipe.scheduler)
        recorder.watch(getattr(pipe, case.network))
        torch.manual_seed(1)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generator = torch.Generator().manual_seed(2)
            pipe(num_inference_steps=STEPS, generator=generator, **case.arguments())
        edited = check(recorder, read_config(original))
    except (ValueError, TypeError, AttributeError, NotImplementedError, Disagreement) as error:
        return Outcome(False, _sentence(error))
    return Outcome(True, "edits the latents between steps" if edited else "")


def _sentence(error: Exception) -> str:
    """What was said, without lists of tensors."""
    return " ".join(str(error).split()).split("tensor(")[0]


def check(recorder: Recorder, settings: SchedulerSettings) -> bool:
    """Whether the pipeline edits the latents between steps, which the own loop then does, too.

    Raises Disagreement unless the library's own loop makes the same points.
    """
    if not recorder.calls:
        raise Disagreement("The pipeline never called the scheduler.")
    asked = recorder.settings
    count, strength = asked.get("original_inference_steps"), asked.get("strength", 1.0)
    settings = settings.shifted_by(asked.get("mu")).distilled_at(count, strength)
    solver = own_solver(recorder, settings)
    state = solver.init(recorder.calls[0].sample)
    _check_size(state.x, solver.tableau.start)
    edited = False
    for call in recorder.calls:
        if not _same(call.sample, state.x):
            state, edited = solver.moved(state, call.sample), True
        _check_given(call, state.x, _told(solver, state, settings, asked))
        state = solver.advance(state, _prediction(call))
        if not _same(call.result, state.x):
            raise Disagreement(f"Step {state.row} ends elsewhere than that of the own loop.")
    if not solver.done(state):
        raise Disagreement(f"The pipeline stopped after {state.row} evaluations.")
    return edited


def _check_size(x: Tensor, start: Point) -> None:
    """Whether the run begins at noise of the right size, with an image of unknown size in it."""
    size, alpha, sigma = (
        float(x.double().square().mean().sqrt()),
        float(start.alpha),
        float(start.sigma),
    )
    if not sigma / 2 < size < 4 * (alpha + sigma):
        raise Disagreement(
            f"The run begins at latents of size {size:.3g}, with noise of {sigma:.3g}."
        )


def own_solver(recorder: Recorder, settings: SchedulerSettings) -> Solver:
    """The solver of the library's own loop, on the part of the grid that the pipeline took."""
    config, asked = recorder.scheduler.config, recorder.settings
    sampler = get_sampler(config.sampler)
    options = settings.options(sampler, config.sampler_options)
    grid = _grid(settings, asked)
    whole = sampler.tableau(grid, options)
    first = whole.rows[recorder.begin].step
    rest = Grid(grid.schedule, Point(*(values[first:] for values in grid.points)))
    tableau = sampler.method(rest, **options) if first else whole
    shape = recorder.calls[0].sample.shape[1:]
    noise = make_noise(tableau, recorder.seeds, shape, first=recorder.begin)
    return Solver(tableau, settings.prediction, noise, settings.correction)


def _grid(settings: SchedulerSettings, asked: Mapping[str, Any]) -> Grid:
    if asked.get("sigmas") is not None:
        return settings.grid_from_sigmas(asked["sigmas"])
    if asked.get("timesteps") is not None:
        return settings.grid_from_timesteps(asked["timesteps"])
    return settings.grid(asked["num_inference_steps"])


def _prediction(call: StepCall) -> Tensor:
    return call.output if call.output.shape == call.sample.shape else call.output.chunk(2, 1)[0]


def _told(
    solver: Solver, state: State, settings: SchedulerSettings, asked: Mapping[str, Any]
) -> float:
    """The timestep of the next evaluation, which pipelines may give along with the sigmas."""
    if asked.get("sigmas") is not None and asked.get("timesteps") is not None:
        levels = sorted({float(row.at.t) for row in solver.tableau.rows}, reverse=True)
        return float(asked["timesteps"][levels.index(float(solver.time(state)))])
    return float(solver.time(state)) * settings.time_scale


def _check_given(call: StepCall, x: Tensor, told: float) -> None:
    if not any(_holds(tensor, x) for tensor in call.given):
        raise Disagreement("The network was not given the latents of the own loop as they are.")
    if not any(_is_time(tensor, told) for tensor in call.given):
        raise Disagreement(f"The network was not given the time {told:.6g} of the own loop.")


def _holds(tensor: Tensor, x: Tensor) -> bool:
    """Whether the tensor holds x: perhaps twice for guidance, with further frames, or with further
    channels on either side; with frames that are samples in x; as one of a list of samples; or as
    tokens, perhaps after those of a given frame."""
    tokens = x.flatten(2).transpose(1, 2) if x.ndim == 5 else x
    if tensor.ndim == tokens.ndim == 3:
        after = tensor[:, -tokens.shape[1] :]
        return _begins_with(tensor, tokens) or _begins_with(after, tokens)
    if tensor.ndim == x.ndim + 1:
        tensor = tensor.transpose(1, 2).flatten(0, 1)
    turned = tensor.transpose(0, 1) if tensor.ndim > 1 else tensor
    return _begins_with(tensor, x) or _begins_with(turned, x)


def _begins_with(tensor: Tensor, x: Tensor) -> bool:
    if tensor.ndim != x.ndim or any(n < m for n, m in zip(tensor.shape, x.shape, strict=True)):
        return False
    first = tensor[tuple(slice(0, size) for size in x.shape)]
    last = tensor[(slice(0, len(x)), slice(-x.shape[1], None), *map(slice, x.shape[2:]))]
    return any(_same(part.to(x.dtype), x) for part in (first, last))


def _is_time(tensor: Tensor, told: float) -> bool:
    if not tensor.numel() or tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    values = tensor.flatten().double()
    values = values[values != 0] if values.any() else values  # a given frame is at time 0
    return any(
        bool((values - form).abs().max() <= 1e-5 * max(abs(form), 1e-2))
        for form in (told, told / 1000, 1 - told / 1000)
    )


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.double(), b.double()
    return a.shape == b.shape and bool((a - b).abs().max() <= TOLERANCE * b.abs().max())
