"""Make the target images of the examples in this folder and in ``style``.

    python examples/effects/pictures.py

Ten digits of the bundled network, dilated, or with a halo. No data set is needed, and networks see
these images through a reward only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageChops, ImageFilter

from samplers import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint
from samplers.images import to_images, write_png

ROOT = Path(__file__).parents[2]
FAINT = 24
"""Grey levels, of 255, that are set to 0 as background."""


def bold(image: Image.Image) -> Image.Image:
    """Strokes two pixels wider."""
    return image.filter(ImageFilter.MaxFilter(3))


def glowing(image: Image.Image) -> Image.Image:
    """Strokes with a halo."""
    halo = image.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(1.7))
    return ImageChops.lighter(image, halo.point(lambda level: int(0.8 * level)))


EFFECTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "effects/bold.png": bold,
    "style/glow.png": glowing,
}


def main() -> None:
    checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    recipe = checkpoint.settle(Recipe(steps=20, guidance=2.0))
    with torch.no_grad():
        sampled = checkpoint.draw(recipe, range(100, 110), range(10), lambda: None)
    images = [image.point(lambda level: max(0, level - FAINT)) for image in to_images(sampled)]
    for name, effect in EFFECTS.items():
        width = images[0].width
        strip = Image.new("L", (width * len(images), images[0].height))
        for number, image in enumerate(images):
            strip.paste(effect(image), (number * width, 0))
        path = ROOT / "examples" / name
        write_png(strip, path, {})
        print(path)


if __name__ == "__main__":
    main()
