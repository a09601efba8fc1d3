r"""Layer 6. Latent codes: the noise to which the probability-flow ODE maps images (DDIM inversion).

The map is a bijection, so an image has one code and a code one image (Song et al. 2021, section
4.3, https://arxiv.org/abs/2011.13456). A code is in units of the prior's standard deviation: codes
of the model's own data are standard normal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_whole
from samplers.denoiser import Denoiser, check_denoiser
from samplers.probability_flow.adaptive import (
    AdaptiveResult,
    encode_adaptive,
    ends,
    sample_adaptive,
)
from samplers.probability_flow.integration import Adaptive

DEFAULT = Adaptive("bogacki-shampine", rtol=1e-4, atol=1e-4, max_nfe=2_000)

# Codes nearer to (anti)parallel than this do not determine a great circle.
_PARALLEL = 1e-6


def encode(
    model: Denoiser,
    x_0: Tensor,
    *,
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> AdaptiveResult:
    """Encode images: the result's x has the latent codes, ``x_T / sigma_T``.

    Args:
        x_0: images [B, ...]; the state at the cleanest noise level is ``alpha x_0``.

    All other arguments, and the errors, are those of :func:`samplers.sample_adaptive`.
    """
    check_denoiser(model)
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    found = encode_adaptive(
        model.uncorrected,
        float(clean.alpha) * x_0,
        settings=settings,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        conditions=conditions,
    )
    return found._replace(x=found.x / float(noisy.sigma))


def decode(
    model: Denoiser,
    code: Tensor,
    *,
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> AdaptiveResult:
    """Decode latent codes [B, ...] to images: the inverse of :func:`encode`, up to the
    tolerance."""
    check_denoiser(model)
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    found = sample_adaptive(
        model.uncorrected,
        float(noisy.sigma) * code,
        settings=settings,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        final="sigma_min",
        conditions=conditions,
    )
    return found._replace(x=found.x / float(clean.alpha))


def interpolate(a: Tensor, b: Tensor, frames: int) -> Tensor:
    r"""Interpolate from code a to code b along a great circle (slerp): [frames, ...].

    .. math:: \frac{\sin((1 - s) \theta)}{\sin\theta} a + \frac{\sin(s \theta)}{\sin\theta} b,
        \qquad \cos\theta = \frac{\langle a, b \rangle}{|a| |b|}

    (Shoemake 1985). Both ends are included. The norm of a code hardly changes on the way, as for
    samples of the prior; linear interpolation would reduce it. Between parallel or opposite codes,
    which do not determine a great circle, interpolation is linear.
    """
    if a.shape != b.shape:
        raise ValueError(f"The codes have shapes {tuple(a.shape)} and {tuple(b.shape)}; need one.")
    check_whole("The number of frames", frames)
    if frames < 2:
        raise ValueError(f"There are {frames} frames; an interpolation has at least its 2 ends.")
    share = torch.linspace(0, 1, frames, dtype=a.dtype, device=a.device)
    share = share.reshape(-1, *(1 for _ in a.shape))
    cosine = (a * b).sum() / (a.norm() * b.norm())
    if not bool(1 - cosine.abs() >= _PARALLEL):  # or a code of norm 0, which has no angle
        return (1 - share) * a + share * b
    theta = cosine.acos()
    return (torch.sin((1 - share) * theta) * a + torch.sin(share * theta) * b) / torch.sin(theta)


def tempered(code: Tensor, temperature: float) -> Tensor:
    """Scale a code to a prior of variance ``temperature``; below 1, images become more typical."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"The temperature is {temperature}; it must be zero or positive.")
    return math.sqrt(temperature) * code
