"""Layer 6. Image files: read whole, written whole, with the parameters of what they show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, PngImagePlugin

from samplers.files import replacing
from samplers.images.pixels import to_8_bit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARAMETERS = "parameters"
"""The keyword of the PNG text chunk that holds how an image was made, as JSON."""


class ImageError(OSError):
    """An image can't be read; the message says why in a sentence."""


def open_image(path: Path) -> Image.Image:
    """A PNG or JPEG with all its pixels, upright, as :func:`samplers.images.pixels.to_8_bit`.

    Raises ImageError if there is none, or not a whole one.
    """
    if not path.exists():
        raise ImageError(f"There is no image at {path}: no such file.")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)  # as cameras note it, and viewers show it
            return to_8_bit(upright)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} can't be read as an image; give a whole PNG or JPEG.") from error


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
    """Write an image or a figure with its parameters.

    ``path`` is whole or untouched at every moment. Raises OSError if it can't be written.
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
    """How the image was made, or None if it is not a whole image with parameters."""
    try:
        with Image.open(path) as image:
            image.load()
            found = json.loads(image.info[PARAMETERS])
    except (OSError, SyntaxError, KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None
