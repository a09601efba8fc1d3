"""The distance of pixels."""

from __future__ import annotations

from torch import Tensor

from adjoint.rewards.pictures import read_picture
from adjoint.rewards.reward import Place, Reward, of_images


def pixel(place: Place, target: str) -> Reward:
    r"""Nearness to a picture, pixel by pixel.

    .. math:: r(x) = -\frac{1}{C H W} \| x - y \|^2

    Args:
        target: the path of the picture y, a PNG or JPEG of the images' size and channels.
    """
    wanted = place.put(read_picture(target))

    def measure(images: Tensor) -> Tensor:
        if images.shape[1:] != wanted.shape[1:]:
            raise ValueError(
                f"{target} has the shape {list(wanted.shape[1:])} (channels, height, width), but "
                f"the images have {list(images.shape[1:])}; resize, crop or convert it."
            )
        return -(place.put(images) - wanted).square().mean((1, 2, 3))

    return of_images(measure)
