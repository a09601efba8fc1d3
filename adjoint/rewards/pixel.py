"""The distance of pixels."""

from __future__ import annotations

from torch import Tensor

from adjoint.rewards.reward import Placement, Reward, of_images
from adjoint.rewards.targets import read_target


def pixel_reward(placement: Placement, target: str) -> Reward:
    r"""Minus the mean squared error to a target image.

    .. math:: r(x) = -\frac{1}{C H W} \| x - y \|^2

    Args:
        target: path of the target y, a PNG or JPEG with the size and channels of the images.
    """
    wanted = placement.put(read_target(target))

    def measure(images: Tensor) -> Tensor:
        if images.shape[1:] != wanted.shape[1:]:
            raise ValueError(
                f"{target} has the shape {list(wanted.shape[1:])} (channels, height, width), but "
                f"the images have {list(images.shape[1:])}; resize, crop or convert it."
            )
        return -(placement.put(images) - wanted).square().mean((1, 2, 3))

    return of_images(measure)
