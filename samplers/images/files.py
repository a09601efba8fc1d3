"""Layer 6. Image files: reading, and atomic writing with the parameters of the image."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from samplers.files import parse_json, replacing
from samplers.images.pixels import to_8_bit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARAMETERS = "parameters"
"""The keyword of the PNG text chunk with the parameters of an image, in JSON."""


class ImageError(OSError):
    """An image can't be read, for the reason in the message."""


def open_image(path: Path) -> Image.Image:
    """Read a PNG or JPEG, upright and in sRGB, as :func:`samplers.images.pixels.to_8_bit`.

    Raises ImageError if it does not exist, is truncated, or has several frames.
    """
    if not path.exists():
        raise ImageError(f"There is no image at {path}: no such file.")
    if not path.is_file():
        raise ImageError(f"{path} can't be read as an image: it is no file; give a PNG or JPEG.")
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            upright = ImageOps.exif_transpose(image)  # by the EXIF orientation
            found = _in_srgb(to_8_bit(upright), image.info.get("icc_profile"))
    except (
        OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageCms.PyCMSError
    ) as error:  # fmt: skip
        raise ImageError(f"{path} can't be read as an image; give a whole PNG or JPEG.") from error
    if frames > 1:
        raise ImageError(f"{path} is an animation of {frames} frames; give a single image.")
    return found


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image with colours of a profile converted to sRGB, which values without one are in."""
    if not profile or image.mode not in ("RGB", "RGBA"):
        return image
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"))
    return image if converted is None else converted


SHEET = "grid.png"
"""The sheet of all images in a folder that ``samplers sample`` wrote."""

_SUFFIXES = (".png", ".jpg", ".jpeg")


def image_paths(places: Sequence[Path]) -> list[Path]:
    """The named files, and the PNG and JPEG files in the named folders, sorted by name.

    The sheet of all images in a folder is left out. Raises ImageError for a folder without any.
    """
    return [path for place in places for path in (_images_in(place) if place.is_dir() else [place])]


def _images_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    found = [path for path in found if path.name != SHEET]
    if not found:
        raise ImageError(f"The folder {folder} holds no image; a PNG or JPEG is needed.")
    return found


def write_png(picture: Image.Image | Figure, path: Path, parameters: Mapping[str, Any]) -> None:
    """Write an image or a figure with its parameters, atomically.

    Raises OSError if it can't be written.
    """
    text = json.dumps(parameters)
    with replacing(path) as part:
        if isinstance(picture, Image.Image):
            info = PngImagePlugin.PngInfo()
            info.add_text(PARAMETERS, text)
            picture.save(part, format="PNG", pnginfo=info)
        else:
            metadata = {PARAMETERS: text, "Software": None}
            picture.savefig(part, format="png", bbox_inches="tight", metadata=metadata)


def read_parameters(path: Path) -> dict[str, Any] | None:
    """Read the parameters of a PNG file; None if it is truncated, has none, or is no file."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            image.load()
            found = parse_json(image.info[PARAMETERS])
    except (OSError, SyntaxError, KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None
