"""Layer 6. Timesteps as pipelines see them: one for each row of a tableau.

Where a run may begin, which row a timestep belongs to, and timesteps that a user gave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from samplers.diffusers.settings import Numbers, SchedulerSettings
from samplers.grid import Grid
from samplers.schedule import FlowMatching
from samplers.tableau import Row, Tableau


def entered(tableau: Tableau) -> Tableau:
    """The tableau without noise before the first network evaluation.

    The initial latents of a pipeline are the first input of the network, so noise that a sampler
    adds before that counts as included in them.
    """
    if bool(tableau.start_noise == 0):
        return tableau
    one, zero = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return Tableau(tableau.rows[0].at, one, zero, tableau.rows)


def check_both(settings: SchedulerSettings, timesteps: Numbers, sigmas: Numbers) -> None:
    """Raise ValueError unless timesteps and sigmas may be given together."""
    if not isinstance(settings.schedule, FlowMatching):
        raise ValueError(
            "Both timesteps and sigmas were given, which only flow models take; pass one of them."
        )
    if len(timesteps) != len(sigmas):
        raise ValueError(
            f"{len(timesteps)} timesteps and {len(sigmas)} sigmas were given; pass as many of both."
        )


def given(timesteps: Numbers, tableau: Tableau, grid: Grid) -> Tensor:
    """For each row, the timestep that was given for its noise level."""
    levels = grid.points.t[: len(timesteps)].tolist()
    rows = [float(row.at.t) for row in tableau.rows]
    if not set(rows) <= set(levels):
        raise ValueError(
            "Both timesteps and sigmas were given, but this sampler also evaluates the network "
            "between the sigmas; take a sampler with one evaluation per step."
        )
    given = torch.as_tensor(timesteps, dtype=torch.float32).cpu()
    return given[[levels.index(t) for t in rows]]


def of_length(grid: Grid, steps: int | None) -> Grid:
    """The grid; ValueError if another number of steps was asked for."""
    if steps is not None and steps != grid.steps:
        raise ValueError(
            f"{grid.steps} custom steps were given together with num_inference_steps = {steps}; "
            "leave one of them out."
        )
    return grid


def index_of_view(timestep: float | Tensor | None, timesteps: Tensor) -> int | None:
    """The index of an element of ``timesteps``, by its address, without reading its value."""
    if not isinstance(timestep, Tensor) or not timestep.data_ptr():
        return None
    distance = timestep.data_ptr() - timesteps.data_ptr()
    index = distance // timesteps.element_size()
    return index if 0 <= index < timesteps.numel() else None


def check_value(timestep: float | Tensor, told: Tensor, expected: int) -> None:
    """Raise ValueError for a timestep by value, rounded or not, that is not the expected one.

    That of a tensor on an accelerator is not read, which would wait for all of its work.
    """
    value = torch.as_tensor(timestep)
    if value.device.type != "cpu":
        return
    value = value.flatten()[0]
    if expected < len(told) and _is_rounded(value, told[expected]):
        return
    following = f"{float(told[expected]):.6g}" if expected < len(told) else "none"
    raise ValueError(
        f"The timestep {float(value):.6g} came, but {following} is the next of this run; iterate "
        "over scheduler.timesteps, and call set_timesteps before another run."
    )


def _is_rounded(value: Tensor, told: Tensor) -> bool:
    if not value.is_floating_point():
        return bool((value - told).abs() < 1)
    return bool(value.float() == told.to(value.dtype).float())


def check_begin(rows: Sequence[Row], index: int) -> None:
    """Raise ValueError unless a step begins at the index."""
    if index >= len(rows):
        raise ValueError(
            f"The run would begin at timestep {index} of {len(rows)}, so no step is left; raise "
            "the strength or the number of steps."
        )
    if index >= 0 and starts_a_step(rows, index):
        return
    starts = [start for start in range(len(rows)) if starts_a_step(rows, start)]
    near = sorted(starts, key=lambda start: abs(start - index))[:2]
    raise ValueError(
        f"The run would begin at timestep {index} of {len(rows)}, where no step of the sampler "
        f"begins (the nearest are {' and '.join(str(start) for start in sorted(near))}); change "
        "the strength or the number of steps, take a sampler with one evaluation per step, or set "
        "sigma_max if the grid starts at pure noise."
    )


def starts_a_step(rows: Sequence[Row], index: int) -> bool:
    """Whether the row at the index is the first of its step."""
    return index == 0 or rows[index - 1].step != rows[index].step


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one device have equal values."""
    return a.device == b.device and torch.equal(a, b)
