"""Simulations: from the parameters of a scene to a clip."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from text2pde.data.clip import Clip
from text2pde.data.statistics import cylinder_flow_of
from text2pde.mesh import Mesh, NodeKind
from text2pde.solver import smoke
from text2pde.solver.meshing import DEFAULT_SIZES, MeshSizes, triangulate
from text2pde.solver.navier_stokes import (
    DivergedError,
    Equations,
    FlowState,
    discretise,
    longest_step,
)
from text2pde.subject.cylinder.channel import CylinderFlow
from text2pde.subject.smoke.plume import Plume

# ------------------------------------------------------------------------ flows past a cylinder

_DIVERGED = 10.0
"""The velocity beyond which a flow has diverged, in units of the mean inlet velocity."""
_HALVINGS = 3


@dataclass(frozen=True)
class Recording:
    """Which frames of a flow a clip has, in convective times D / U.

    Attributes:
        frames: of the clip.
        interval: between frames; the period of vortex shedding is about 3.4, or 17 frames of 0.2.
        settling: the time before the first frame, in which the wake develops.
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

    @property
    def all_frames(self) -> int:
        """Of the simulation, those of settling included."""
        return self.frames + math.ceil(self.settling / self.interval)


DEFAULT_RECORDING = Recording()


def simulate(
    flow: CylinderFlow,
    recording: Recording = DEFAULT_RECORDING,
    sizes: MeshSizes = DEFAULT_SIZES,
    tick: Callable[[], object] = lambda: None,
) -> Clip:
    """Solve the Navier-Stokes equations for a flow past a cylinder.

    Args:
        tick: called after every frame, those of settling and of attempts that diverged included.

    Raises:
        DivergedError: if the solution grows without bound even with much shorter time steps.
    """
    mesh = triangulate(flow.channel, sizes)
    steps = [longest_step(flow, mesh) / 2**halvings for halvings in range(_HALVINGS + 1)]
    for step in steps:
        with contextlib.suppress(DivergedError):
            return _recorded(flow, mesh, recording, step, tick)
    raise DivergedError(
        f"The flow of Reynolds number {flow.reynolds:.0f} diverges even with steps of "
        f"{steps[-1]:.2g} s; take a finer mesh."
    )


def continued(clip: Clip, first: int, frames: int) -> Clip:
    """A clip solved anew from one of its frames on.

    Args:
        first: the frame to start at.
        frames: of the result, which has the clip's own times.

    Raises:
        ValueError: if the clip has fewer frames from there on, or fewer than two are requested.
    """
    if first < 0 or first + frames > len(clip.times) or frames < 2:
        raise ValueError(
            f"{frames} frames from frame {first} on were requested; the clip has "
            f"{len(clip.times)}, and at least two are needed."
        )
    flow, interval = cylinder_flow_of(clip), float(clip.times[1] - clip.times[0])
    between = math.ceil(interval / longest_step(flow, clip.mesh))
    equations = discretise(flow, clip.mesh, interval / between)
    state = equations.start_from(clip.fields[first].astype(np.float64))
    fields = [clip.fields[first]]
    for _ in range(frames - 1):
        for _ in range(between):
            state = equations.advance(state)
        _check_bounded(flow, state)
        fields.append(equations.fields(state).astype(np.float32))
    return Clip(flow, clip.mesh, clip.times[first : first + frames], np.stack(fields))


def _recorded(
    flow: CylinderFlow,
    mesh: Mesh,
    recording: Recording,
    longest: float,
    tick: Callable[[], object],
) -> Clip:
    interval = recording.interval * flow.time_unit
    between = math.ceil(interval / longest)
    equations = discretise(flow, mesh, interval / between)
    state = _perturbed(equations, equations.start())
    first = recording.all_frames - recording.frames
    fields = []
    for frame in range(recording.all_frames):
        if frame >= first:
            fields.append(equations.fields(state).astype(np.float32))
        for _ in range(between):
            state = equations.advance(state)
        _check_bounded(flow, state)
        tick()
    times = interval * np.arange(recording.frames, dtype=np.float64)
    return Clip(flow, mesh, times, np.stack(fields))


def _perturbed(equations: Equations, state: FlowState) -> FlowState:
    """With a transverse velocity behind the cylinder, which triggers vortex shedding early."""
    flow, points = equations.flow, equations.points
    channel = flow.channel
    away = points - np.array([channel.x + channel.diameter, channel.y])
    push = 0.2 * flow.speed * np.exp(-((away / channel.radius) ** 2).sum(axis=1))
    push[channel.kinds(points) != NodeKind.INTERIOR] = 0
    velocity = state.velocity + np.stack([np.zeros_like(push), push], axis=1)
    convection = equations.convect(velocity)
    return state._replace(velocity=velocity, convection=convection, previous=(velocity, convection))


def _check_bounded(flow: CylinderFlow, state: FlowState) -> None:
    fastest = np.abs(state.velocity).max()
    if not fastest < _DIVERGED * flow.speed:
        raise DivergedError(f"The flow reached {fastest:.3g} m/s; take shorter time steps.")


# --------------------------------------------------------------------------------- rising smoke

_COURANT = 0.5
"""The Courant number of a time step, for an estimate of the velocity."""


@dataclass(frozen=True)
class SmokeRecording:
    """Which frames of a plume a clip has, and on how fine a grid it is solved.

    Attributes:
        interval: between frames, in seconds.
        cells: a side of the grid.
    """

    frames: int = 48
    interval: float = 0.75
    cells: int = smoke.CELLS

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.interval > 0 or self.cells < 4:
            raise ValueError(
                f"The recording is {self}; it must have frames, a positive interval, and at least "
                "4 cells."
            )


DEFAULT_SMOKE_RECORDING = SmokeRecording()


def simulate_smoke(
    plume: Plume,
    recording: SmokeRecording = DEFAULT_SMOKE_RECORDING,
    tick: Callable[[], object] = lambda: None,
) -> Clip:
    """Solve the Boussinesq equations for a plume.

    Args:
        tick: called after every frame.
    """
    state = smoke.start(plume, recording.cells)
    between = math.ceil(recording.interval / _smoke_step(plume, recording.cells))
    fields = []
    for _ in range(recording.frames):
        fields.append(smoke.fields(state).astype(np.float32))
        for _ in range(between):
            state = smoke.advance(state, plume, recording.interval / between)
        tick()
    times = recording.interval * np.arange(recording.frames, dtype=np.float64)
    return Clip(plume, smoke.uniform_mesh(plume, recording.cells), times, np.stack(fields))


def _smoke_step(plume: Plume, cells: int) -> float:
    """A time step for clouds that rise with about the root of their buoyancy times their width."""
    speed = math.sqrt(2 * plume.buoyancy * plume.radius)
    return _COURANT * plume.side / cells / speed
