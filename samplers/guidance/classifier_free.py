"""Classifier-free guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.denoiser import Denoiser, is_batched


def classifier_free_guidance(
    model: Denoiser, null: Mapping[str, Tensor | float], scale: float, rescale: float = 0.0
) -> Denoiser:
    r"""A denoiser guided towards its conditions, by one evaluation of a doubled batch.

    .. math:: o = o_{null} + w \, (o_{cond} - o_{null})

    (Ho and Salimans 2022, eq. 6 with w = 1 + their w, https://arxiv.org/abs/2207.12598).

    Args:
        null: the value of each condition that stands for "no condition": a number, or a tensor that
            broadcasts to the condition. Conditions that are not named are the same in both halves.
        scale: w; 1 is the conditional model itself, at half the cost.
        rescale: this share of the result is rescaled to the standard deviation of o_cond, sample by
            sample (Lin et al. 2023, section 3.4, https://arxiv.org/abs/2305.08891).

    Raises ValueError for a rescale that is not between 0 and 1, and at the first evaluation for a
    null value of a condition that is not given.
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"The guidance rescale is {rescale}; it must lie between 0 and 1.")
    if scale == 1:
        return model

    def guided(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        both = _doubled(conditions, null)
        halves = model(torch.cat([x, x]), torch.cat([t, t]), **both).chunk(2)
        unconditional, conditional = halves
        output = unconditional + scale * (conditional - unconditional)
        return _rescaled(output, conditional, rescale) if rescale else output

    return model.wrapped(guided)


def _doubled(conditions: Mapping[str, Any], null: Mapping[str, Tensor | float]) -> dict[str, Any]:
    """The conditions of a doubled batch: the null values, then the given ones."""
    absent = sorted(set(null) - set(conditions))
    if absent:
        raise ValueError(
            f"Guidance has a null value for the condition {absent[0]!r}, which is not given; give "
            f"{absent[0]}, or set the guidance scale to 1."
        )
    both = {name: torch.cat([v, v]) if is_batched(v) else v for name, v in conditions.items()}
    for name, value in null.items():
        given = conditions[name]
        nothing = torch.as_tensor(value, dtype=given.dtype, device=given.device).expand_as(given)
        both[name] = torch.cat([nothing, given])
    return both


def _rescaled(output: Tensor, like: Tensor, share: float) -> Tensor:
    dims = tuple(range(1, output.ndim))
    ratio = like.std(dims, keepdim=True) / output.std(dims, keepdim=True)
    return (1 - share + share * ratio) * output
