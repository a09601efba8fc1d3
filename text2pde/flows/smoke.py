"""The family of smoke in a box, and one of its clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from text2pde.flows.clip import Clip
from text2pde.flows.cylinder import HELD_OUT, Range, left_over, sobol
from text2pde.mesh import Mesh
from text2pde.plume import Plume
from text2pde.solver.smoke import advance, corners, fields, start

_COURANT = 0.5
"""Cells that smoke passes in a step, roughly: its speed is estimated beforehand."""


@dataclass(frozen=True)
class SmokeFamily:
    """From where to where the numbers of a plume go, in metres and m/s^2.

    Attributes:
        held_out: buoyancies that no case has.
    """

    buoyancy: Range = (0.2, 0.5)
    radius: Range = (3.0, 5.0)
    x: Range = (10.0, 22.0)
    y: Range = (6.0, 12.0)
    held_out: Range = (0.32, 0.38)

    @property
    def ranges(self) -> dict[str, Range]:
        """By the names of a plume's numbers."""
        return {"buoyancy": self.buoyancy, "radius": self.radius, "x": self.x, "y": self.y}


@dataclass(frozen=True)
class SmokeRecording:
    """What is kept: frames, the seconds between two of them, on a grid of so many cells a side."""

    frames: int = 48
    interval: float = 0.75
    cells: int = 48

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.interval > 0 or self.cells < 4:
            raise ValueError(
                f"The recording is {self}; it must have frames, a positive interval, and 4 cells."
            )


SMOKE = SmokeRecording()


def draw_smoke(family: SmokeFamily, count: int, seed: int = 0) -> list[Plume]:
    """Plumes spread evenly over the family (a scrambled Sobol sequence), without those whose
    buoyancy is held out. The first of more plumes are those of fewer."""
    return [_plume(family, numbers) for numbers in sobol(4, count, seed)]


def draw_held_out_smoke(family: SmokeFamily, count: int, seed: int = 0) -> list[Plume]:
    """The same of buoyancies that are held out."""
    (low, high), numbers = family.held_out, sobol(4, count, seed + HELD_OUT)
    return [_plume(family, n, low + n[0] * (high - low)) for n in numbers]


def simulate_smoke(
    plume: Plume,
    recording: SmokeRecording = SMOKE,
    tick: Callable[[], object] = lambda: None,
) -> Clip:
    """The rise of a plume, at the corners of the cells; tick: called after every frame."""
    state = start(plume, recording.cells)
    between = math.ceil(recording.interval / _longest_step(plume, recording.cells))
    found = []
    for _ in range(recording.frames):
        found.append(fields(state).astype(np.float32))
        for _ in range(between):
            state = advance(state, plume, recording.interval / between)
        tick()
    times = recording.interval * np.arange(recording.frames, dtype=np.float64)
    return Clip(plume, corners(plume, recording.cells), times, np.stack(found))


def plume_mesh(plume: Plume) -> Mesh:
    """The mesh that clips of the family have."""
    return corners(plume, SMOKE.cells)


def _longest_step(plume: Plume, cells: int) -> float:
    """A cloud rises with about the root of its buoyancy times its width."""
    speed = math.sqrt(2 * plume.buoyancy * plume.radius)
    return _COURANT * plume.side / cells / speed


def _plume(family: SmokeFamily, numbers: list[float], buoyancy: float | None = None) -> Plume:
    radius, x, y = (
        low + share * (high - low)
        for share, (low, high) in zip(numbers[1:], (family.radius, family.x, family.y), strict=True)
    )
    if buoyancy is None:
        buoyancy = left_over(family.buoyancy, family.held_out, numbers[0])
    return Plume(x, y, radius, buoyancy)
