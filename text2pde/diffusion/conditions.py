"""What the network is conditioned on: text, the parameters of a scene, a first frame."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

UNCONDITIONAL = {"text_mask": False, "has_parameters": False}
"""The conditions without text and parameters, for classifier-free guidance.

A first frame stays: it is an initial condition, which guidance must not extrapolate.
"""


class Conditions(NamedTuple):
    """The conditions of B samples, any of which may be absent.

    Attributes:
        text: the states of the prompt's tokens [B, L, D].
        text_mask: which tokens there are [B, L]; none without a prompt.
        parameters: of the scene, scaled to [-1, 1], [B, K].
        has_parameters: [B].
        frame: the latent of the first frame [B, Z, rows, columns].
        has_frame: [B].
    """

    text: Tensor
    text_mask: Tensor
    parameters: Tensor
    has_parameters: Tensor
    frame: Tensor
    has_frame: Tensor

    def to(self, like: Tensor) -> Conditions:
        """On the device of a tensor, with its dtype for all but masks."""
        return Conditions(*(_moved(value, like) for value in self))


def _moved(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like) if value.is_floating_point() else value.to(like.device)


def dropped(conditions: Conditions, text: Tensor, parameters: Tensor, frame: Tensor) -> Conditions:
    """Conditions without the text, the parameters or the frame where these are True [B]."""
    return conditions._replace(
        text_mask=conditions.text_mask & ~text[:, None],
        has_parameters=conditions.has_parameters & ~parameters,
        has_frame=conditions.has_frame & ~frame,
    )
