"""Adaptive projected guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.guidance.classifier_free import away_from_null
from samplers.guidance.contrast import Contrast
from samplers.guidance.scale import GuidanceScale
from samplers.prediction import per_sample, points_at, to_data


def adaptive_projected_guidance(
    model: Denoiser,
    null: Mapping[str, Tensor | float],
    scale: GuidanceScale,
    parallel: float = 0.0,
    norm_threshold: float = math.inf,
) -> Denoiser:
    r"""Classifier-free guidance with less of the part that saturates images.

    .. math:: D = D_{cond} + (w - 1) \, (\Delta_\perp + \eta \, \Delta_\parallel), \qquad
        \Delta = \min(1, r / \lVert d \rVert) \, d, \quad d = D_{cond} - D_{null}

    with the parts of Delta that are orthogonal and parallel to D_cond, sample by sample (Sadat et
    al. 2024, https://arxiv.org/abs/2410.02416). With eta = 1 and r = inf it is
    :func:`samplers.classifier_free_guidance`. The paper's momentum, a sum of d over the steps of a
    run, is omitted (a momentum of 0): a denoiser is a function of x and t, without a memory.

    Args:
        null, scale: as of :func:`samplers.classifier_free_guidance`.
        parallel: eta.
        norm_threshold: r, the largest norm of Delta in a sample, in the units of the data.

    Raises ValueError for a threshold that is not positive, and for null values as there.
    """
    if not norm_threshold > 0:
        raise ValueError(
            f"The norm threshold of guidance is {norm_threshold}; it must be positive, or infinite "
            "for none."
        )

    def combine(contrast: Contrast) -> Tensor:
        numbers = to_data(model.prediction, points_at(model.schedule, contrast.t, contrast.x))
        of_x, of_output = (number.to(contrast.x) for number in numbers)
        data = of_x * contrast.x + of_output * contrast.output
        difference = of_output * (contrast.output - contrast.away)
        difference = difference * _at_most(norm_threshold, difference)
        update = difference + (parallel - 1) * _along(data, difference)
        return contrast.output + (contrast.scale - 1) * update / of_output

    return away_from_null(model, null, scale, combine)


def _at_most(norm: float, difference: Tensor) -> Tensor:
    """The factor that shortens each sample's difference to this norm, if it is longer."""
    if math.isinf(norm):
        return torch.ones_like(difference[:1])
    size = difference.flatten(1).norm(dim=1)
    return per_sample(norm / size.clamp(min=norm), difference)


def _along(direction: Tensor, difference: Tensor) -> Tensor:
    """The part of each sample's difference that is parallel to a direction."""
    product = (difference * direction).flatten(1).sum(dim=1)
    square = direction.square().flatten(1).sum(dim=1)
    share = product / square.clamp(min=torch.finfo(square.dtype).tiny)
    return per_sample(share, direction) * direction
