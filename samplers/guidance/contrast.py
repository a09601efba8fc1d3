"""Guidance by the contrast of two predictions, the second of which is made only where it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.guidance.scale import GuidanceScale, check_scale, scale_at
from samplers.prediction import points_at
from samplers.schedule import Point, Schedule


class Contrast(NamedTuple):
    """Two outputs for the samples x [b, ...] at times t [b], both of the model's prediction type.

    Attributes:
        output: of the model that is guided.
        away: of the model that it is guided away from.
        scale: w, one number or [b, 1, ..., 1].
    """

    x: Tensor
    t: Tensor
    output: Tensor
    away: Tensor
    scale: float | Tensor


Evaluate = Callable[[Tensor, Tensor, Mapping[str, Any], Tensor | None], tuple[Tensor, Tensor]]
"""(x [B, ...], t [B], conditions, rows [b] or None for all) -> the output of the model, [B, ...],
and that of the model that it is guided away from at these rows, [b, ...]."""


def contrasted(
    model: Denoiser,
    other: Denoiser,
    scale: GuidanceScale,
    evaluate: Evaluate,
    combine: Callable[[Contrast], Tensor],
) -> Denoiser:
    """The model, with an output that is combined of two wherever the scale is not 1."""
    check_scale(scale)
    if scale == 1:
        return model

    def guided(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        w, rows = _scales(scale, model.schedule, t, x)
        if rows is not None and len(rows) == 0:
            return model(x, t, **conditions)
        output, away = evaluate(x, t, conditions, rows)
        if rows is None:
            return combine(Contrast(x, t, output, away, w))
        combined = combine(Contrast(x[rows], t[rows], output[rows], away, w[rows]))
        return output.to(combined.dtype).index_copy(0, rows, combined)

    def nfe(at: Point) -> Tensor:
        on = (scale_at(scale, at) != 1).to(torch.int64)
        return model.nfe(at) + on * other.nfe(at)

    return model.wrapped(guided, nfe)


def _scales(
    scale: GuidanceScale, schedule: Schedule, t: Tensor, x: Tensor
) -> tuple[Any, Tensor | None]:
    """The scale of each sample, and the rows where it is not 1; None if that is everywhere."""
    if not callable(scale):
        return scale, None
    w = scale_at(scale, points_at(schedule, t, x))
    on = w.detach().flatten() != 1
    rows = None if bool(on.all()) else on.nonzero().flatten().to(x.device)
    return w.to(x), rows


def extrapolated(contrast: Contrast) -> Tensor:
    """The linear extrapolation from the one output through the other."""
    return contrast.away + contrast.scale * (contrast.output - contrast.away)
