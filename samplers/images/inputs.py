"""Layer 6. Input images of a network: read, and checked for their size and channels.

Nothing is resized or converted. A file that can't be read is an ImageError, one of another size or
kind a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samplers.images.files import image_paths, open_image
from samplers.images.pixels import levels_of, values_of

_MODES = {1: "L", 3: "RGB"}
_KINDS = {
    "L": "grey",
    "RGB": "in colour",
    "LA": "grey with opacity",
    "RGBA": "in colour with opacity",
}


@dataclass(frozen=True)
class ImageInput:
    """An image file, its levels [1, C, H, W], and the argument (file or folder) that it came
    from."""

    path: Path
    levels: Tensor
    place: Path


def read_inputs(places: Sequence[Path], shape: tuple[int, int, int]) -> list[ImageInput]:
    """Read all images of files and folders, see :func:`samplers.images.files.image_paths`.

    Args:
        shape: [C, H, W], which each must have.
    """
    return [
        ImageInput(path, read_levels(path, shape), place)
        for place in places
        for path in image_paths([place])
    ]


def read_levels(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read an image [1, C, H, W] as levels from 0 (black) to 255 (white): torch.uint8.

    Args:
        shape: [C, H, W], which it must have.
    """
    channels, height, width = shape
    if channels not in _MODES:
        raise ValueError(
            f"This network has images of {channels} channels; image files have 1 or 3, so only "
            "such networks can be given any."
        )
    image = open_image(path)
    if image.mode != _MODES[channels]:
        wanted = _MODES[channels]
        raise ValueError(
            f"{path} is {_kind(image)}, but it must be {_KINDS[wanted]} here; {_convert(wanted)}"
        )
    _check_size(path, image, (width, height))
    return levels_of(image)


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read an image as values from -1 (black) to 1 (white): torch.float32."""
    return values_of(read_levels(path, shape)).float()


def read_any(path: Path) -> Tensor:
    """Read an image of any size, grey or in colour: [1, C, H, W], values from -1 to 1."""
    image = open_image(path)
    if image.mode not in _MODES.values():
        raise ValueError(
            f"{path} is {_kind(image)}, but it must be grey or in colour; {_convert('RGB')}"
        )
    return values_of(levels_of(image)).float()


def random_part(image: Tensor, size: int, seed: int, name: str) -> Tensor:
    """A random square of an image [1, C, H, W]: [1, C, size, size], a function of the seed.

    Raises ValueError, with the name of the image, if it is smaller.
    """
    height, width = image.shape[2:]
    if min(height, width) < size:
        raise ValueError(
            f"{name} is {width} x {height} pixels (width x height), and parts of {size} x {size} "
            "are needed; take larger images or smaller parts."
        )
    generator = torch.Generator().manual_seed(seed)
    top, left = (
        int(torch.randint(side - size + 1, (), generator=generator)) for side in (height, width)
    )
    return image[:, :, top : top + size, left : left + size]


def read_mask(path: Path, height: int, width: int) -> Tensor:
    """Read a mask: where the image is nearer to white than to black, [H, W]."""
    opened = open_image(path)
    if opened.has_transparency_data:
        raise ValueError(f"The mask {path} has an opacity; paint it black and white alone.")
    image = opened.convert("L")
    _check_size(path, image, (width, height))
    return torch.from_numpy(np.asarray(image) >= 128)


def _kind(image: Image.Image) -> str:
    return _KINDS.get(image.mode, f"of mode {image.mode}")


def _convert(mode: str) -> str:
    return f"convert it (with Pillow: image.convert({mode!r}))."


def _check_size(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    if image.size != size:
        raise ValueError(
            f"{path} is {image.width} x {image.height} pixels (width x height), but {size[0]} x "
            f"{size[1]} are needed here; resize or crop it."
        )
