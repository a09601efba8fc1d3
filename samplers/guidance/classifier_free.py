"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.denoiser import Denoiser, is_batched, select_rows
from samplers.guidance.contrast import Contrast, contrasted, extrapolated
from samplers.guidance.scale import GuidanceScale


def classifier_free_guidance(
    model: Denoiser,
    null: Mapping[str, Tensor | float],
    scale: GuidanceScale,
    rescale: float = 0.0,
) -> Denoiser:
    r"""A denoiser guided towards its conditions, by one evaluation of a doubled batch.

    .. math:: o = o_{null} + w \, (o_{cond} - o_{null})

    (Ho and Salimans 2022, eq. 6 with w = 1 + their w, https://arxiv.org/abs/2207.12598).

    Args:
        null: the value of each condition that stands for "no condition": a number, or a tensor that
            broadcasts to the condition. Conditions that are not named are the same in both halves.
        scale: w, or a function of the noise level, such as :class:`samplers.GuidanceInterval` or
            :class:`samplers.CFGPlusPlus`. Where it is 1, this is the conditional model itself, at
            half the cost.
        rescale: this share of the result is rescaled to the standard deviation of o_cond, sample by
            sample (Lin et al. 2023, section 3.4, https://arxiv.org/abs/2305.08891).

    Raises ValueError for a rescale that is not between 0 and 1, and at the first evaluation for a
    null value of a condition that is not given, or that all samples share.
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"The guidance rescale is {rescale}; it must lie between 0 and 1.")

    def combine(contrast: Contrast) -> Tensor:
        output = extrapolated(contrast)
        return _rescaled(output, contrast.output, rescale) if rescale else output

    return away_from_null(model, null, scale, combine)


def away_from_null(
    model: Denoiser,
    null: Mapping[str, Tensor | float],
    scale: GuidanceScale,
    combine: Callable[[Contrast], Tensor],
) -> Denoiser:
    """A denoiser guided away from the same model under null conditions, in one batch."""

    def evaluate(
        x: Tensor, t: Tensor, conditions: Mapping[str, Any], rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        some_x, some_t = (x, t) if rows is None else (x[rows], t[rows])
        joined = _joined(conditions, null, rows)
        outputs = model(torch.cat([some_x, x]), torch.cat([some_t, t]), **joined)
        away, output = outputs.split([len(some_x), len(x)])
        return output, away

    return contrasted(model, model, scale, evaluate, combine)


def _joined(
    conditions: Mapping[str, Any], null: Mapping[str, Tensor | float], rows: Tensor | None
) -> dict[str, Any]:
    """The conditions of a joined batch: some rows with the null values, then all as given."""
    _check_null(null, conditions)
    without = {**conditions, **{name: _nothing(null[name], conditions[name]) for name in null}}
    some = without if rows is None else select_rows(without, rows)
    return {
        name: torch.cat([some[name], given]) if is_batched(given) else given
        for name, given in conditions.items()
    }


def _check_null(null: Mapping[str, Tensor | float], conditions: Mapping[str, Any]) -> None:
    for name in sorted(null):
        if name not in conditions:
            raise ValueError(
                f"Guidance has a null value for the condition {name!r}, which is not given; give "
                f"{name}, or set the guidance scale to 1."
            )
        if not is_batched(conditions[name]):
            raise ValueError(
                f"Guidance has a null value for the condition {name!r}, which all samples share; "
                "give it as a tensor with a row for each sample."
            )


def _nothing(value: Tensor | float, given: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=given.dtype, device=given.device).expand_as(given)


def _rescaled(output: Tensor, like: Tensor, share: float) -> Tensor:
    dims = tuple(range(1, output.ndim))
    ratio = like.std(dims, keepdim=True) / output.std(dims, keepdim=True)
    return (1 - share + share * ratio) * output
