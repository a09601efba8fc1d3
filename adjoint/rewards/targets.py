"""Target images, read from disk."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from samplers.images.files import ImageError, open_image
from samplers.images.pixels import levels_of, values_of


def read_target(path: str) -> Tensor:
    """A grey or RGB image file as values in [-1, 1]: [1, C, H, W], float64.

    Raises ValueError if it cannot be read, or has an alpha channel.
    """
    try:
        image = open_image(Path(path))
    except ImageError as error:
        raise ValueError(str(error)) from error
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f"{path} is of mode {image.mode}, but a target is grey (L) or RGB; convert it (with "
            "Pillow: image.convert('RGB'))."
        )
    return values_of(levels_of(image))
