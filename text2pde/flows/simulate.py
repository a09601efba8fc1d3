"""One flow, from its numbers to a clip."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from text2pde.channel import Flow
from text2pde.flows.clip import Clip
from text2pde.flows.statistics import past_cylinder
from text2pde.mesh import Kind, Mesh
from text2pde.solver.meshing import DEFAULT, Sizes, triangulate
from text2pde.solver.navier_stokes import (
    DivergedError,
    Equations,
    State,
    discretise,
    longest_step,
)

_FASTEST = 10.0
"""The speed beyond which a flow has diverged, in units of the mean at the inlet."""
_HALVINGS = 3


@dataclass(frozen=True)
class Recording:
    """What is kept of a flow, in units of D / U, in which fluid passes the cylinder.

    Attributes:
        frames: of the clip.
        interval: between two of them. A vortex leaves about every 3.4, so 0.2 is some 17 a period.
        settling: that passes before the first, in which the wake develops.
    """

    frames: int = 96
    interval: float = 0.2
    settling: float = 60.0

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.interval > 0 or not self.settling >= 0:
            raise ValueError(
                f"The recording is {self}; it must have frames, a positive interval, and a "
                "settling of zero or more."
            )


CLIP = Recording()


def simulate(
    flow: Flow,
    recording: Recording = CLIP,
    sizes: Sizes = DEFAULT,
    tick: Callable[[], object] = lambda: None,
) -> Clip:
    """Solve for the flow in its channel, and keep what is to be recorded.

    Args:
        tick: called after every frame, those of settling included, and of attempts that diverged.

    Raises DivergedError if the numbers grow without bound even with much shorter steps.
    """
    mesh = triangulate(flow.channel, sizes)
    steps = [longest_step(flow, mesh) / 2**halvings for halvings in range(_HALVINGS + 1)]
    for step in steps:
        with contextlib.suppress(DivergedError):
            return _recorded(flow, mesh, recording, step, tick)
    raise DivergedError(
        f"The flow of Reynolds number {flow.reynolds:.0f} diverges with steps of {steps[-1]:.2g} s "
        "at most; take a finer mesh."
    )


def continued(clip: Clip, first: int, frames: int) -> Clip:
    """What becomes of a frame of a clip: the clip from there on as the equations have it.

    Raises ValueError if the clip does not have so many frames from there on.
    """
    if first < 0 or first + frames > len(clip.times) or frames < 2:
        raise ValueError(
            f"{frames} frames from {first} on were asked for; the clip has {len(clip.times)}, and "
            "two are needed."
        )
    flow, interval = past_cylinder(clip), float(clip.times[1] - clip.times[0])
    between = math.ceil(interval / longest_step(flow, clip.mesh))
    equations = discretise(flow, clip.mesh, interval / between)
    state = equations.start_from(clip.fields[first].astype(np.float64))
    fields = [clip.fields[first]]
    for _ in range(frames - 1):
        for _ in range(between):
            state = equations.advance(state)
        _check_finite(flow, state)
        fields.append(equations.fields(state).astype(np.float32))
    return Clip(flow, clip.mesh, clip.times[first : first + frames], np.stack(fields))


def frames_of(recording: Recording) -> int:
    """The frames that a simulation goes through."""
    return recording.frames + math.ceil(recording.settling / recording.interval)


def _recorded(
    flow: Flow, mesh: Mesh, recording: Recording, longest: float, tick: Callable[[], object]
) -> Clip:
    interval = recording.interval * flow.clock
    between = math.ceil(interval / longest)
    equations = discretise(flow, mesh, interval / between)
    state = _kicked(equations, equations.start())
    first = frames_of(recording) - recording.frames
    fields = []
    for frame in range(frames_of(recording)):
        if frame >= first:
            fields.append(equations.fields(state).astype(np.float32))
        for _ in range(between):
            state = equations.advance(state)
        _check_finite(flow, state)
        tick()
    times = interval * np.arange(recording.frames, dtype=np.float64)
    return Clip(flow, mesh, times, np.stack(fields))


def _kicked(equations: Equations, state: State) -> State:
    """A push sideways behind the cylinder, so that vortices begin to leave it soon."""
    flow, places = equations.flow, equations.places
    channel = flow.channel
    away = places - np.array([channel.x + channel.diameter, channel.y])
    push = 0.2 * flow.speed * np.exp(-((away / channel.radius) ** 2).sum(axis=1))
    push[channel.kinds(places) != Kind.INTERIOR] = 0
    velocity = state.velocity + np.stack([np.zeros_like(push), push], axis=1)
    convection = equations.convect(velocity)
    return state._replace(velocity=velocity, convection=convection, older=(velocity, convection))


def _check_finite(flow: Flow, state: State) -> None:
    fastest = np.abs(state.velocity).max()
    if not fastest < _FASTEST * flow.speed:
        raise DivergedError(f"The flow reached {fastest:.3g} m/s.")
