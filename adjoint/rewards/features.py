"""Distances of network features (perceptual), and of their Gram matrices (style)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from adjoint.rewards.networks import load_features
from adjoint.rewards.reward import Placement, Reward, described, of_images
from adjoint.rewards.targets import read_target


def feature_reward(
    placement: Placement,
    target: str,
    network: str,
    layers: list[int] | None = None,
    weights: list[float] | None = None,
) -> Reward:
    r"""Minus the distance to a target image in the features F_l of a network (perceptual loss).

    .. math:: r(x) = -\sum_l w_l \frac{1}{C_l H_l W_l} \| F_l(x) - F_l(y) \|^2

    (Johnson et al. 2016, eq. 2, https://arxiv.org/abs/1603.08155).

    Args:
        target: path of the target image y; its features must have the size of the images' features.
        network: a folder, or ``package.module:name`` of a function from images to feature maps.
        layers: indices of feature maps, from 0, or from -1 backwards; all if None.
        weights: w_l of each of the layers; 1 if None.
    """
    return _negative_distance(placement, target, network, layers, weights, lambda maps: maps)


def gram_reward(
    placement: Placement,
    style: str,
    network: str,
    layers: list[int] | None = None,
    weights: list[float] | None = None,
) -> Reward:
    r"""Minus the style distance to an image.

    .. math:: r(x) = -\sum_l w_l \frac{1}{C_l^2} \| G_l(x) - G_l(y) \|^2

    with the matrices of :func:`gram_matrix` (Gatys et al. 2016, eq. 3-5,
    https://arxiv.org/abs/1508.06576). Their G is C_l H_l W_l times this one, so that their loss of
    a layer is C_l^2 / 4 times this one. Gram matrices do not depend on the positions of features,
    nor on the size of the maps.

    Args:
        style: path of the style image y, of any size.
        network, layers, weights: as of :func:`feature_reward`.
    """
    return _negative_distance(placement, style, network, layers, weights, gram_matrix)


def gram_matrix(maps: Tensor) -> Tensor:
    """``G = F F^T / (C H W)`` of features F [B, C, H W]: [B, C, C]."""
    flat = maps.flatten(2)
    return flat @ flat.mT / flat[0].numel()


def _negative_distance(
    placement: Placement,
    target: str,
    network: str,
    layers: list[int] | None,
    weights: list[float] | None,
    summary: Callable[[Tensor], Tensor],
) -> Reward:
    """Minus the weighted sum, over layers, of the mean squared distances of the maps' summaries."""
    _check_settings(layers, weights)
    features = load_features(network, placement)

    def summaries(images: Tensor) -> list[Tensor]:
        maps = _checked(features(placement.put(images)), network, len(images))
        for layer in layers or ():
            if not -len(maps) <= layer < len(maps):
                raise ValueError(
                    f"There is no layer {layer} in {network!r}; it has {len(maps)}, 0 to "
                    f"{len(maps) - 1}."
                )
        return [summary(maps[layer]) for layer in layers or range(len(maps))]

    wanted = [goal.detach() for goal in summaries(read_target(target))]

    def measure(images: Tensor) -> Tensor:
        found = summaries(images)
        total = found[0].new_zeros(len(images))
        for ours, goal, w in zip(found, wanted, weights or [1] * len(found), strict=True):
            if ours.shape[1:] != goal.shape[1:]:
                raise ValueError(
                    f"{target} gives features of shape {list(goal.shape[1:])}, the images "
                    f"{list(ours.shape[1:])}; resize or crop it to {images.shape[3]} x "
                    f"{images.shape[2]} pixels."
                )
            total = total - w * (ours - goal).square().flatten(1).mean(1)
        return total

    return of_images(measure)


def _checked(maps: Any, network: str, count: int) -> Sequence[Tensor]:
    """The feature maps, if that is what they are: tensors [B, C, H, W]."""
    if not isinstance(maps, Sequence) or not maps:
        raise ValueError(
            f"{network!r} returned {described(maps)}; features are a list of tensors "
            "[B, C, H, W], one a layer."
        )
    for number, found in enumerate(maps):
        if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != count:
            raise ValueError(
                f"{network!r} returned {described(found)} as feature map {number}; each must be a "
                f"tensor [B, C, H, W] with B = {count}."
            )
    return maps


def _check_settings(layers: list[int] | None, weights: list[float] | None) -> None:
    if layers is not None and not layers:
        raise ValueError("The list of layers is empty; name at least one, or omit it for all.")
    if weights is None:
        return
    if layers is None or len(layers) != len(weights):
        raise ValueError(
            f"There are {len(weights)} weights, but {len(layers or ())} layers were named; give "
            "one weight for each layer."
        )
    if not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"The weights are {weights}; each must be zero or positive, and finite.")
