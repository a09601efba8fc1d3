"""Features for styles of small grey pictures: rectified answers of fixed random filters.

One layer of random filters of several sizes is enough for the statistics of textures (Ustyuzhaninov
et al. 2017, https://arxiv.org/abs/1606.00021); nothing has to be trained or fetched, and a filter
without pooling sees every speck.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (3, 5, 9)
FILTERS = 48


def features(images: Tensor) -> list[Tensor]:
    """A map [B, FILTERS, H, W] for each size of filter, of images [B, 1, H, W] from -1 to 1."""
    ink = (images + 1) / 2
    return [F.conv2d(ink, _filters(size).to(ink), padding=size // 2).relu() for size in SIZES]


def _filters(size: int) -> Tensor:
    """The same in every run: unit vectors with a mean of zero."""
    drawn = torch.randn(FILTERS, 1, size, size, generator=torch.Generator().manual_seed(size))
    drawn = drawn - drawn.mean((1, 2, 3), keepdim=True)
    return drawn / drawn.flatten(1).norm(dim=1)[:, None, None, None]
