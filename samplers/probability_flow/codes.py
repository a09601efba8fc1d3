r"""Layer 6. Latent codes: the noise to which the probability-flow ODE maps images (DDIM inversion).

The map is a bijection, so an image has one code and a code one image (Song et al. 2021, section
4.3, https://arxiv.org/abs/2011.13456). A code is in units of the prior's standard deviation: codes
of the model's own states at the cleanest noise level are standard normal. Images without the noise
of that level have smaller codes, in the directions in which the data vary less than this noise; it
can be added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_one_each, check_whole
from samplers.denoiser import Denoiser, check_denoiser
from samplers.noise import cleanest_noise
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
    noise_seeds: Sequence[int] | None = None,
) -> AdaptiveResult:
    """Encode images: the result's x has the latent codes, ``x_T / sigma_T``.

    Args:
        x_0: images [B, ...]; the state at the cleanest noise level is ``alpha x_0``, plus noise if
            seeds are given.
        noise_seeds: one integer for each image, from which the noise of the cleanest level is
            drawn. With it, codes of images as :func:`samplers.sample` returns them are standard
            normal, and :func:`decode` gives the image with its noise. None if the images have this
            noise already, or to get the same images back.

    All other arguments, and the errors, are those of :func:`samplers.sample_adaptive`.
    """
    check_denoiser(model)
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    state = float(clean.alpha) * x_0
    if noise_seeds is not None:
        check_one_each("noise_seeds", noise_seeds, "images", len(x_0))
        state = state + float(clean.sigma) * cleanest_noise(noise_seeds, x_0.shape[1:]).to(x_0)
    found = encode_adaptive(
        model.uncorrected,
        state,
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
