"""Metrics of restored images."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    r"""The peak signal-to-noise ratio of each image [B], in decibels,

    .. math:: 10 \log_{10} \frac{2^2}{\text{mean squared error}},

    of values from -1 to 1; others are clipped.
    """
    errors = (images.clamp(-1, 1) - originals).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / errors)
