"""Target pictures, read from disk."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from samplers.images.pixels import PictureError, levels_of, open_picture, values_of


def read_picture(path: str) -> Tensor:
    """A grey or coloured PNG or JPEG as values from -1 to 1: [1, C, H, W], float64.

    Raises ValueError if it can't be read, or has opacity.
    """
    try:
        image = open_picture(Path(path))
    except PictureError as error:
        raise ValueError(str(error)) from error
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f"{path} is of mode {image.mode}, but a target is grey (L) or coloured (RGB); convert "
            "it (with Pillow: image.convert('RGB'))."
        )
    return values_of(levels_of(image))
