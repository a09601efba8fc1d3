"""What a classifier thinks of an image: for a class, and against it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adjoint.rewards.networks import load_classifier
from adjoint.rewards.reward import Place, Reward, described


def class_log_probability(place: Place, network: str, label: int | None = None) -> Reward:
    r"""The logarithm of a class's probability, from logits l of a classifier.

    .. math:: r(x) = \log p(c \mid x) = l_c(x) - \log \sum_k e^{l_k(x)}

    Args:
        network: a folder, or ``package.module:name`` of a function from images to logits.
        label: the class c of all images; that which each was asked to show, if None.
    """
    if label is not None and label < 0:
        raise ValueError(f"The label is {label}; it must be a class from 0 up.")
    classifier = load_classifier(network, place)

    def reward(images: Tensor, asked: Tensor | None = None) -> Tensor:
        logits = _checked(classifier(place.put(images)), network, len(images))
        wanted = _labels(label, asked, len(images)).to(logits.device)
        if int(wanted.max()) >= logits.shape[1]:
            raise ValueError(
                f"There is no class {int(wanted.max())}; {network!r} knows {logits.shape[1]}, 0 to "
                f"{logits.shape[1] - 1}."
            )
        return torch.log_softmax(logits, dim=1).gather(1, wanted[:, None]).squeeze(1)

    return reward


def class_surprisal(place: Place, network: str, label: int | None = None) -> Reward:
    r"""How much an image surprises a classifier that is told its class.

    .. math:: r(x) = -\log p(c \mid x)

    Images of class c for which it is high are those on which the classifier errs.

    Args:
        network, label: as of :func:`class_log_probability`.
    """
    log_p = class_log_probability(place, network, label)
    return lambda images, asked=None: -log_p(images, asked)


def _labels(label: int | None, asked: Tensor | None, count: int) -> Tensor:
    if label is not None:
        return torch.full((count,), label)
    if asked is None:
        raise ValueError(
            "No class was asked for, so the reward needs the option 'label': a class from 0 up."
        )
    return asked


def _checked(logits: Any, network: str, count: int) -> Tensor:
    """The logits, if that is what they are: [B, classes], and no probabilities."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        raise ValueError(
            f"{network!r} returned {described(logits)}; a classifier gives logits [B, classes], "
            f"with B = {count}."
        )
    # A second softmax would flatten every gradient, and nothing else would show it.
    sums = logits.detach().sum(1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise ValueError(
            f"{network!r} returned numbers that add up to 1 for each image, as probabilities do; "
            "a classifier gives logits, before the softmax."
        )
    return logits
