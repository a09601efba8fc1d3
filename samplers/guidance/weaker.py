"""Autoguidance: a model guided by a weaker version of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.denoiser import Denoiser, check_denoiser, select_rows
from samplers.guidance.contrast import contrasted, extrapolated
from samplers.guidance.scale import GuidanceScale
from samplers.prediction import points_at, to_data
from samplers.schedule import Schedule


def autoguidance(model: Denoiser, weaker: Denoiser, scale: GuidanceScale) -> Denoiser:
    r"""A denoiser guided away from the errors that a weaker model makes more of.

    .. math:: D = D_{weaker} + w \, (D_{model} - D_{weaker})

    (Karras et al. 2024, https://arxiv.org/abs/2406.02507). Both are given the same
    conditions. Where the scale is not 1, both networks are evaluated, which counts as two
    evaluations although the weaker one is usually smaller.

    Args:
        weaker: a smaller network, or one that was trained less, on the same schedule; it may
            predict something else, and have another time scale.
        scale: w, or a function of the noise level, such as :class:`samplers.GuidanceInterval`.

    Raises ValueError if the schedules differ.
    """
    check_denoiser(weaker)
    _check_schedules(model.schedule, weaker.schedule)

    def evaluate(
        x: Tensor, t: Tensor, conditions: Mapping[str, Any], rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        output = model(x, t, **conditions)
        if rows is None:
            return output, _output_of(weaker, model, x, t, conditions)
        some = select_rows(conditions, rows)
        return output, _output_of(weaker, model, x[rows], t[rows], some)

    return contrasted(model, weaker, scale, evaluate, extrapolated)


def _output_of(
    weaker: Denoiser, model: Denoiser, x: Tensor, t: Tensor, conditions: Mapping[str, Any]
) -> Tensor:
    """What the weaker model says, as an output of the other."""
    output = weaker(x, t, **conditions)
    if weaker.prediction == model.prediction and weaker.correction is None:
        return output
    at = points_at(model.schedule, t, x)
    own_x, own_output = (number.to(x) for number in to_data(weaker.prediction, at))
    of_x, of_output = (number.to(x) for number in to_data(model.prediction, at))
    data = own_x * x + own_output * output
    if weaker.correction is not None:
        data = weaker.correction(data)
    return (data - of_x * x) / of_output


def _check_schedules(schedule: Schedule, other: Schedule) -> None:
    """Raise ValueError unless two schedules have the same range, and the same levels in it."""
    ends = (schedule.t_min, schedule.t_max)
    t = schedule.at_fraction(torch.linspace(0, 1, 33, dtype=torch.float64))
    same = ends == (other.t_min, other.t_max) and all(
        torch.allclose(own, its, rtol=1e-6, atol=1e-9)
        for own, its in zip(schedule.point(t), other.point(t), strict=True)
    )
    if not same:
        raise ValueError(
            f"The weaker model has the schedule {other!r}, and the model {schedule!r}; they must "
            "be equal, since both are evaluated at the same x and t."
        )
