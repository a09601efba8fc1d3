"""What the network is told of a flow: a sentence, its numbers, its first frame, or some of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Conditions(NamedTuple):
    """What is told of each of B flows.

    Attributes:
        states: of a sentence's tokens [B, L, D]; spoken: which are there [B, L], none without a
            sentence.
        numbers: of the flow, scaled to [-1, 1], [B, K]; stated: whether they are told [B].
        frame: the latent of a flow that stands still as it is at first [B, Z, rows, columns];
            shown: whether it is told [B].
    """

    states: Tensor
    spoken: Tensor
    numbers: Tensor
    stated: Tensor
    frame: Tensor
    shown: Tensor

    def of(self, rows: Tensor) -> Conditions:
        """Those of some flows, by their numbers."""
        return Conditions(*(value[rows] for value in self))

    def to(self, like: Tensor) -> Conditions:
        """The same on the device of a tensor, and numbers in its type."""
        return Conditions(*(_moved(value, like) for value in self))


def _moved(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like) if value.is_floating_point() else value.to(like.device)


def joined(one: Conditions, other: Conditions) -> Conditions:
    """Those of two batches whose sentences are filled up to the same length."""
    return Conditions(*(torch.cat(pair) for pair in zip(one, other, strict=True)))


def without(conditions: Conditions, text: Tensor, numbers: Tensor, frame: Tensor) -> Conditions:
    """The same, where some are not told the sentence, the numbers or the frame: booleans [B]."""
    return conditions._replace(
        spoken=conditions.spoken & ~text[:, None],
        stated=conditions.stated & ~numbers,
        shown=conditions.shown & ~frame,
    )


def nothing(conditions: Conditions) -> Conditions:
    """The same without a sentence and numbers, from which guidance leads away.

    A frame that is shown stays: it is where the flow begins, and no matter of degree.
    """
    every = torch.ones_like(conditions.stated)
    return without(conditions, every, every, ~every)
