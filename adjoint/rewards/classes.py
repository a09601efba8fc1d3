"""The probability of a class under a classifier, to be raised or lowered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adjoint.rewards.networks import load_classifier
from adjoint.rewards.reward import Placement, Reward, described


def class_log_probability(placement: Placement, network: str, label: int | None = None) -> Reward:
    r"""The log-probability of a class, from the logits l of a classifier.

    .. math:: r(x) = \log p(c \mid x) = l_c(x) - \log \sum_k e^{l_k(x)}

    Args:
        network: a folder, or ``package.module:name`` of a function from images to logits.
        label: the class c of all images; None for the class that each was conditioned on.
    """
    if label is not None and label < 0:
        raise ValueError(f"The label is {label}; it must be a class from 0 up.")
    classifier = load_classifier(network, placement)

    def reward(images: Tensor, condition: Tensor | None = None) -> Tensor:
        logits = _checked(classifier(placement.put(images)), network, len(images))
        wanted = _labels(label, condition, len(images)).to(logits.device)
        if int(wanted.max()) >= logits.shape[1]:
            raise ValueError(
                f"There is no class {int(wanted.max())}; {network!r} has {logits.shape[1]} "
                f"classes, 0 to {logits.shape[1] - 1}."
            )
        return torch.log_softmax(logits, dim=1).gather(1, wanted[:, None]).squeeze(1)

    return reward


def class_surprisal(placement: Placement, network: str, label: int | None = None) -> Reward:
    r"""The surprisal of a class under a classifier: its cross-entropy loss.

    .. math:: r(x) = -\log p(c \mid x)

    Images of class c with a high surprisal are misclassified.

    Args:
        network, label: as of :func:`class_log_probability`.
    """
    log_p = class_log_probability(placement, network, label)
    return lambda images, condition=None: -log_p(images, condition)


def _labels(label: int | None, condition: Tensor | None, count: int) -> Tensor:
    if label is not None:
        return torch.full((count,), label)
    if condition is None:
        raise ValueError(
            "The images were conditioned on no class, so the reward needs the option 'label': a "
            "class from 0 up."
        )
    return condition


def _checked(logits: Any, network: str, count: int) -> Tensor:
    """The logits, checked: [B, classes], and no probabilities."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        raise ValueError(
            f"{network!r} returned {described(logits)}; a classifier returns logits [B, classes], "
            f"with B = {count}."
        )
    # A second softmax would silently flatten every gradient.
    sums = logits.detach().sum(1)
    if bool((logits >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise ValueError(
            f"{network!r} returned numbers that add up to 1 for each image, as probabilities do; "
            "a classifier returns logits, before the softmax."
        )
    return logits
