"""What a reward is, and the check that a function is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from samplers.errors import NotFiniteError


class Reward(Protocol):
    """A differentiable metric of finished images."""

    def __call__(self, images: Tensor, condition: Tensor | None = None, /) -> Tensor:
        """One number an image, [B]; higher is better.

        Args:
            images: [B, C, H, W] in [-1, 1].
            condition: what each image was conditioned on, [B]: a class, or the index of a prompt;
                None if the model is unconditional.
        """
        ...


class Placement(NamedTuple):
    """The dtype and device in which a reward computes; images are converted to it."""

    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor, converted; gradients pass through."""
        return tensor.to(self.device, self.dtype)


def of_images(measure: Callable[[Tensor], Tensor]) -> Reward:
    """The reward of a function that takes images alone."""
    return lambda images, condition=None: measure(images)


def checked_reward(reward: Reward, name: str = "") -> Reward:
    """The same reward, which raises an error if its result cannot be optimised.

    Args:
        name: of the reward, for error messages.

    The result raises ValueError unless it is a floating-point tensor [B] that requires a gradient
    if the images do; and NotFiniteError, an ArithmeticError, for NaN or infinity.
    """
    subject = f"The reward {name!r}" if name else "The reward"

    def checking(images: Tensor, condition: Tensor | None = None, /) -> Tensor:
        value: Any = reward(images, condition)
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
                "compute them with torch alone, without detach, item, numpy or no_grad."
            )
        finite = value.isfinite()
        if not bool(finite.all()):
            raise NotFiniteError(
                f"{subject} is NaN or infinite for {int((~finite).sum())} of {len(images)} "
                "images; check that the images themselves are finite, or lower the learning rate.",
                images,
            )
        return value

    return checking


def described(value: object) -> str:
    """A value of a wrong kind, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and type {str(value.dtype)[6:]}"
    return f"a value of type {type(value).__name__}"
