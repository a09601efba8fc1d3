"""Layer 6. Tensors to 8-bit images and back."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageChops
from torch import Tensor

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_OPAQUE = {"LA": "L", "RGBA": "RGB"}


def to_images(x: Tensor) -> list[Image.Image]:
    """8-bit images of a batch [B, C, H, W] of values from -1 (black) to 1 (white).

    Raises ValueError unless C is 1 (grey), 3 (colour) or 4 (colour and opacity).
    """
    channels = x.shape[1]
    if channels not in _MODES:
        raise ValueError(f"The samples have {channels} channels; an image has 1, 3 or 4.")
    levels = ((x.double().clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    last = "b h w c" if channels > 1 else "b h (w c)"  # a grey image has no axis of channels
    arrays = rearrange(levels, f"b c h w -> {last}")
    return [Image.fromarray(array.contiguous().numpy()) for array in arrays]


def to_8_bit(image: Image.Image) -> Image.Image:
    """Convert an image with 1 or 16 bits or a palette to channels of 8 bits.

    It is grey if its palette has greys only, and has an alpha channel if something is transparent.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.float64) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        clear = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            return clear
    if image.mode in _OPAQUE:
        return image.convert(_OPAQUE[image.mode])
    if image.mode not in ("1", "P"):
        return image
    colours, grey = image.convert("RGB"), image.convert("L")
    return colours if ImageChops.difference(colours, grey.convert("RGB")).getbbox() else grey


def levels_of(image: Image.Image) -> Tensor:
    """The levels of an image, 0 (black) to 255 (white): [1, C, H, W], torch.uint8."""
    pixels = torch.from_numpy(np.array(image))
    pattern = "h w -> 1 1 h w" if pixels.ndim == 2 else "h w c -> 1 c h w"
    return rearrange(pixels, pattern).contiguous()


def values_of(levels: Tensor) -> Tensor:
    """Levels from 0 (black) to 255 (white) as values from -1 to 1, float64."""
    return levels.double() / 127.5 - 1
