"""Metrics of strokes, as functions of finished images [B, 1, H, W] of values from -1 to 1.

Nothing here knows classes: no network was ever told which digit leans or how bold it is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slant(images: Tensor) -> Tensor:
    """How far the strokes lean to the right, as columns for each row upwards: [B].

    The slope of the regression of x on -y, under the ink as a density.
    """
    ink = (images.squeeze(1) + 1) / 2
    ink = ink / ink.sum((1, 2), keepdim=True)
    rows, columns = (torch.arange(n, dtype=ink.dtype, device=ink.device) for n in ink.shape[1:])
    y, x = (ink.sum(2) * rows).sum(1), (ink.sum(1) * columns).sum(1)
    across, up = columns[None, None] - x[:, None, None], y[:, None, None] - rows[None, :, None]
    return (ink * across * up).sum((1, 2)) / (ink * up.square()).sum((1, 2))


def ink(images: Tensor) -> Tensor:
    """The share of the picture that is ink: [B]."""
    return (images.mean((1, 2, 3)) + 1) / 2


def leaning_left(images: Tensor) -> Tensor:
    """A reward, highest where the strokes lean to the left by some 31 degrees: [B]."""
    return -(slant(images) + 0.6).square()


def bold(images: Tensor) -> Tensor:
    """A reward, highest where a quarter of the picture is ink, twice as much as usual: [B]."""
    return -(ink(images) / 0.25 - 1).square()
