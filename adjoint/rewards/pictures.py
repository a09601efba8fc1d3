"""Target pictures, read from disk."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Modes that hold nothing that another would not.
_SAME = {"1": "L", "P": "RGB"}


def read_picture(path: str) -> Tensor:
    """A grey or coloured PNG or JPEG as values from -1 to 1: [1, C, H, W], float64.

    Raises ValueError if it can't be read, or has opacity.
    """
    try:
        with Image.open(path) as opened:
            image = opened.convert(_SAME.get(opened.mode, opened.mode))
    except FileNotFoundError as error:
        raise ValueError(f"There is no picture at {path}: no such file.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be read as a picture; give a whole PNG or JPEG.") from error
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f"{path} is of mode {image.mode}, but a target is grey (L) or coloured (RGB); convert "
            "it (with Pillow: image.convert('RGB'))."
        )
    levels = torch.from_numpy(np.array(image)).reshape(1, image.height, image.width, -1)
    return levels.permute(0, 3, 1, 2).double() / 127.5 - 1
