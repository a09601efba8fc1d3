"""Degradations: functions of an image and a generator of random numbers.

They follow the ten tasks of MR Sampler (Li et al. 2025, section 5,
https://arxiv.org/abs/2502.07856), but are synthetic, so that any photograph gives a pair. Sizes are
in pixels, for images of about 32 to 256 pixels.
"""

from __future__ import annotations

import difflib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Generator, Tensor

from samplers.noise import check_seeds

Degradation = Callable[[Tensor, Generator], Tensor]
"""An image [C, H, W] of values from -1 to 1 and a generator -> the degraded image, of equal
size."""


def noisy(image: Tensor, generator: Generator) -> Tensor:
    """Gaussian noise with a standard deviation of 50 of 255 levels."""
    return (image + 100 / 255 * _normal(image, generator)).clamp(-1, 1)


def blurred(image: Tensor, generator: Generator) -> Tensor:
    """Motion by 4 to 8 pixels along a line."""
    length, angle = _uniform(4, 8, generator), _uniform(0, math.pi, generator)
    return _filtered(image, _line(length, angle))


def small(image: Tensor, generator: Generator) -> Tensor:
    """A third of the resolution in each direction, enlarged again."""
    size = image.shape[1:]
    less = F.interpolate(image[None], [max(1, side // 3) for side in size], mode="area")
    enlarged = F.interpolate(less, size, mode="bicubic", align_corners=False)
    return enlarged[0].clamp(-1, 1)


def compressed(image: Tensor, generator: Generator) -> Tensor:
    """JPEG of a quality from 5 to 15."""
    quality = int(_uniform(5, 16, generator))
    levels = ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    grey = len(image) == 1
    array = (levels[0] if grey else rearrange(levels, "c h w -> h w c")).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="JPEG", quality=quality)
    with Image.open(file) as picture:
        decoded = torch.from_numpy(np.array(picture)).to(image) / 127.5 - 1
    return decoded[None] if grey else rearrange(decoded, "h w c -> c h w")


def rainy(image: Tensor, generator: Generator) -> Tensor:
    """Bright streaks of one direction, within 30 degrees of the vertical."""
    angle = math.pi / 2 + _uniform(-math.pi / 6, math.pi / 6, generator)
    drops = (torch.rand(image.shape[1:], generator=generator) < 0.02).to(image)
    length = _uniform(7, 13, generator)
    streaks = _filtered(drops[None], _line(length, angle)) * length
    return (image + 1.2 * streaks.clamp(0, 1)).clamp(-1, 1)


def hazy(image: Tensor, generator: Generator) -> Tensor:
    """Haze, ``x t + a (1 - t)``, with a bright airlight a and a smooth transmission t from 0.2 to
    0.6."""
    through = 0.2 + 0.4 * _smooth(image, generator)
    airlight = _uniform(0.6, 1.0, generator)
    return image * through + airlight * (1 - through)


def dark(image: Tensor, generator: Generator) -> Tensor:
    """A tenth to a quarter of the light, and the noise of a sensor."""
    light = (image + 1) / 2 * _uniform(0.1, 0.25, generator)
    return ((light + 0.01 * _normal(image, generator)).clamp(0, 1)) * 2 - 1


def incomplete(image: Tensor, generator: Generator) -> Tensor:
    """Broad white strokes over a fifth to a third of the image."""
    height, width = image.shape[1:]
    mask = Image.new("L", (width, height))
    pen, thick = ImageDraw.Draw(mask), max(2, min(height, width) // 8)
    while np.asarray(mask).mean() < 255 * 0.2:
        ends = [_uniform(0, side, generator) for side in (width, height, width, height)]
        pen.line(ends, 255, width=thick)
    covered = torch.from_numpy(np.array(mask) > 0).to(image.device)
    return torch.where(covered, 1.0, image)


def shadowed(image: Tensor, generator: Generator) -> Tensor:
    """A third to two thirds of the light in a region with a soft border."""
    left = _uniform(0.3, 0.65, generator)
    inside = torch.sigmoid(30 * (_smooth(image, generator) - 0.5))
    return ((image + 1) / 2 * (1 - (1 - left) * inside)) * 2 - 1


def snowy(image: Tensor, generator: Generator) -> Tensor:
    """White flakes of three sizes."""
    flakes = torch.zeros_like(image[:1])
    for radius, share in ((0.6, 0.03), (1.0, 0.012), (1.6, 0.005)):
        fallen = (torch.rand(image.shape[1:], generator=generator) < share).to(image)[None]
        flakes = torch.maximum(flakes, _filtered(fallen, _disc(radius)).clamp(0, 1))
    return image + (1 - image) * 0.95 * flakes


DEGRADATIONS: dict[str, Degradation] = {
    "noisy": noisy,
    "blurred": blurred,
    "small": small,
    "compressed": compressed,
    "rainy": rainy,
    "hazy": hazy,
    "dark": dark,
    "incomplete": incomplete,
    "shadowed": shadowed,
    "snowy": snowy,
}
"""All kinds by name."""


def get_degradation(name: str) -> Degradation:
    """The degradation of this name; ValueError with a suggestion if there is none."""
    if name in DEGRADATIONS:
        return DEGRADATIONS[name]
    near = difflib.get_close_matches(name, DEGRADATIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"take one of {', '.join(DEGRADATIONS)}."
    raise ValueError(f"There is no degradation named {name!r}; {hint}")


def degrade(images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Degrade each image [B, C, H, W] by all given degradations, one after the other.

    Args:
        seeds: one for each image, whose degradation is the same alone and in any batch.

    Raises ValueError for an unknown name.
    """
    check_seeds(seeds)
    kinds = [get_degradation(name) for name in names]
    found = []
    for image, seed in zip(images, seeds, strict=True):
        generator = Generator().manual_seed(seed)
        for kind in kinds:
            image = kind(image, generator)
        found.append(image)
    return torch.stack(found)


# ------------------------------------------------------------------------------------- its parts


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _normal(image: Tensor, generator: Generator) -> Tensor:
    return torch.randn(image.shape, generator=generator).to(image)


def _smooth(image: Tensor, generator: Generator) -> Tensor:
    """A field [1, H, W] from 0 to 1 that varies over a third of the image."""
    coarse = torch.rand(1, 1, 4, 4, generator=generator).to(image)
    field = F.interpolate(coarse, image.shape[1:], mode="bicubic", align_corners=True)[0]
    low, high = field.min(), field.max()
    return (field - low) / (high - low).clamp(min=torch.finfo(field.dtype).tiny)


def _line(length: float, angle: float) -> Tensor:
    """A kernel that spreads a point along a line."""
    reach = math.ceil(length / 2)
    places = torch.arange(-reach, reach + 1.0)
    along = places[None, :] * math.cos(angle) - places[:, None] * math.sin(angle)
    across = places[None, :] * math.sin(angle) + places[:, None] * math.cos(angle)
    kernel = (1 - across.abs()).clamp(min=0) * (length / 2 + 0.5 - along.abs()).clamp(0, 1)
    return kernel / kernel.sum()


def _disc(radius: float) -> Tensor:
    """A kernel that makes a point a disc with a soft border."""
    reach = math.ceil(radius) + 1
    places = torch.arange(-reach, reach + 1.0)
    distance = (places[:, None].square() + places[None, :].square()).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """Each channel [C, H, W], convolved with the kernel; borders are repeated."""
    reach = kernel.shape[0] // 2
    padded = F.pad(image[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.to(image)[None, None])[:, 0]
