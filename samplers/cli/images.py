"""Pictures that are given to a command: read, and checked against what the network draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from samplers.cli.failure import Failure
from samplers.images.pixels import PictureError, levels_of, listed, open_picture, values_of

_MODES = {1: "L", 3: "RGB"}
_KINDS = {
    "L": "grey",
    "RGB": "in colour",
    "LA": "grey with opacity",
    "RGBA": "in colour with opacity",
}


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture [1, C, H, W] of values from -1 (black) to 1 (white).

    shape: [C, H, W], as it must be. Raises ValueError if the picture has another, Failure if it
    can't be read.
    """
    return values_of(read_bytes(path, shape)).float()


def read_bytes(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """The same, of levels from 0 (black) to 255 (white): torch.uint8."""
    channels, height, width = shape
    if channels not in _MODES:
        raise ValueError(
            f"This network draws images of {channels} channels; pictures have 1 or 3, so only such "
            "networks can be given any."
        )
    image = _opened(path)
    if image.mode != _MODES[channels]:
        found = _KINDS.get(image.mode, f"of mode {image.mode}")
        wanted = _MODES[channels]
        raise ValueError(
            f"{path} is {found}, but it must be {_KINDS[wanted]} here; convert it (with Pillow: "
            f"image.convert({wanted!r}))."
        )
    _check_size(path, image, (width, height))
    return levels_of(image)


def read_mask(path: Path, height: int, width: int) -> Tensor:
    """Where a picture is white, or nearer to it than to black: [H, W]."""
    opened = _opened(path)
    if opened.has_transparency_data:
        raise ValueError(f"The mask {path} has an opacity; paint it black and white alone.")
    image = opened.convert("L")
    _check_size(path, image, (width, height))
    return torch.from_numpy(np.asarray(image) >= 128)


@dataclass(frozen=True)
class Picture:
    """A picture on disk, its levels [1, C, H, W], and which of the named places it came from."""

    path: Path
    levels: Tensor
    place: Path


def read_pictures(places: Sequence[Path], shape: tuple[int, int, int]) -> list[Picture]:
    """All pictures of the named files and folders, the latter sorted by name.

    Of a folder that ``samplers sample`` drew, the sheet of all images is left out. Raises as
    :func:`read_bytes` does, Failure for a folder without pictures.
    """
    return [
        Picture(path, read_bytes(path, shape), place)
        for place in places
        for path in picture_paths([place])
    ]


def picture_paths(places: Sequence[Path]) -> list[Path]:
    """As :func:`samplers.images.pixels.listed`, whose error is a failure of the command."""
    try:
        return listed(places)
    except PictureError as error:
        raise Failure(str(error)) from error


def read_any(path: Path) -> Tensor:
    """A picture of any size, grey or in colour: [1, C, H, W] of values from -1 to 1."""
    image = _opened(path)
    if image.mode not in _MODES.values():
        found = _KINDS.get(image.mode, f"of mode {image.mode}")
        raise ValueError(
            f"{path} is {found}, but it must be grey or in colour; convert it (with Pillow: "
            "image.convert('RGB'))."
        )
    return values_of(levels_of(image)).float()


def _opened(path: Path) -> Image.Image:
    try:
        return open_picture(path)
    except PictureError as error:
        raise Failure(str(error)) from error


def _check_size(path: Path, image: Image.Image, size: tuple[int, int]) -> None:
    if image.size != size:
        raise ValueError(
            f"{path} is {image.width} x {image.height} pixels (width x height), but {size[0]} x "
            f"{size[1]} are needed here; resize or crop it."
        )
