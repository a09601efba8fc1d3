"""What a reward is, and the check that a function is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from samplers.errors import NotFiniteError


class Reward(Protocol):
    """What finished images are worth."""

    def __call__(self, images: Tensor, asked: Tensor | None = None, /) -> Tensor:
        """One number an image, [B]; higher is better.

        Args:
            images: [B, C, H, W] of values from -1 to 1.
            asked: what each image was to show, [B], a class or the number of a text; None if
                nothing was asked for.
        """
        ...


class Place(NamedTuple):
    """In which precision and on which device a reward computes; images are brought there."""

    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor there, with its gradient's way back."""
        return tensor.to(self.device, self.dtype)


def of_images(measure: Callable[[Tensor], Tensor]) -> Reward:
    """The reward that a function of the images alone is."""
    return lambda images, asked=None: measure(images)


def checked(reward: Reward, name: str = "") -> Reward:
    """The same reward, which raises where no gradient could come from its result.

    ValueError unless that is a floating tensor of shape [B] that carries a gradient if the images
    require one; NotFiniteError, an ArithmeticError, for NaN or infinity.

    Args:
        name: what the errors call it.
    """
    subject = f"The reward {name!r}" if name else "The reward"

    def checking(images: Tensor, asked: Tensor | None = None, /) -> Tensor:
        value: Any = reward(images, asked)
        if (
            not isinstance(value, Tensor)
            or value.shape != images.shape[:1]
            or not value.is_floating_point()
        ):
            raise ValueError(
                f"{subject} returned {described(value)} for {len(images)} images; it must return "
                f"one floating-point number for each, a tensor of shape [{len(images)}]."
            )
        if images.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
            raise ValueError(
                f"{subject} returned numbers without a gradient, though the images require one; "
                "compute them by torch alone, without detach, item, numpy or no_grad."
            )
        finite = value.isfinite()
        if not bool(finite.all()):
            raise NotFiniteError(
                f"{subject} is NaN or infinite for {int((~finite).sum())} of {len(images)} "
                "images; see whether the images themselves are finite, or make their changes "
                "smaller.",
                images,
            )
        return value

    return checking


def described(value: object) -> str:
    """A few words on a value that is of the wrong kind."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and type {str(value.dtype)[6:]}"
    return f"a value of type {type(value).__name__}"
