"""The noise schedule of a k-diffusion model, and the grid of its caller's noise levels.

A model takes the noise level sigma. With ``alpha = 1`` it is the time of :class:`samplers.EDM`;
ComfyUI's flows are given t in x = (1 - t) x_0 + t z, the time of :class:`samplers.FlowMatching`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from samplers.grid import Grid, grid_from_times
from samplers.schedule import EDM, FlowMatching, Schedule

_FLOW = "CONST"
"""The class of ``comfy.model_sampling`` from which the ``model_sampling`` of a flow is derived."""


def check_schedule(schedule: Schedule | None) -> None:
    """Raise ValueError for a schedule whose time is not the sigma that a model is given."""
    if not isinstance(schedule, EDM | FlowMatching | None):
        raise ValueError(
            f"The schedule is {schedule!r}; it must be samplers.EDM(), for a model of "
            "x = x_0 + sigma z, or samplers.FlowMatching(), for one of x = (1 - sigma) x_0 + "
            "sigma z."
        )


def schedule_of(model: object) -> Schedule:
    """The schedule that a model states, or one of its ``inner_model``.

    FlowMatching if ComfyUI's ``model_sampling`` is one of flows, else EDM, with the trained range
    if there are a ``sigma_min`` and a ``sigma_max``.
    """
    sampling = _model_sampling(model)
    if any(kind.__name__ == _FLOW for kind in type(sampling).__mro__):
        return FlowMatching()
    for each in (sampling, *_inside(model)):
        low, high = (getattr(each, name, None) for name in ("sigma_min", "sigma_max"))
        if low is not None and high is not None:
            return EDM(float(low), float(high))
    return EDM()


def noise_scale_of(model: object) -> float:
    """The standard deviation of noise that a flow of ComfyUI was trained with."""
    return float(getattr(_model_sampling(model), "noise_scale", 1.0))


def _model_sampling(model: object) -> object:
    found = (getattr(each, "model_sampling", None) for each in _inside(model))
    return next((sampling for sampling in found if sampling is not None), None)


def _inside(model: Any) -> Iterator[Any]:
    """The model, the one that it wraps, and so on."""
    while model is not None:
        yield model
        model = getattr(model, "inner_model", None)


def grid_of(schedule: Schedule, sigmas: Tensor) -> Grid:
    """The grid of the caller's noise levels, noisiest first; the last may be 0.

    Raises ValueError for levels that do not fall strictly, are negative or not finite, or exceed 1
    on a flow.
    """
    levels = sigmas.detach().to("cpu", torch.float64)
    _check_falling(levels, 1.0 if isinstance(schedule, FlowMatching) else math.inf)
    if levels[-1] == 0:
        return grid_from_times(schedule, levels[:-1], "zero")
    return grid_from_times(schedule, levels, "sigma_min")


def _check_falling(levels: Tensor, most: float) -> None:
    for level, nxt in pairwise(levels.tolist()):
        if not level > nxt:
            raise ValueError(
                f"The sigmas came with {nxt:.6g} after {level:.6g}; they must fall strictly, from "
                "noise to data (samplers.encode goes from data to noise)."
            )
    first, last = float(levels[0]), float(levels[-1])
    if last < 0 or first > most or math.isinf(first):
        bound = "at most 1, as the times of a flow" if most == 1 else "finite"
        raise ValueError(
            f"The sigmas run from {first:.6g} to {last:.6g}; they must be {bound}, and positive "
            "but for a last 0."
        )
