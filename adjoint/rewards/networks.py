"""Networks for rewards: a folder with a digits classifier or a transformers model, or a function.

A custom function ``package.module:name`` returns the features or logits itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adjoint.options import did_you_mean
from adjoint.rewards.pretrained import pretrained_classifier, pretrained_features, read_json
from adjoint.rewards.reward import Placement, described
from samplers.files import refuse_special

FeatureExtractor = Callable[[Tensor], Sequence[Tensor]]
"""Images [B, C, H, W] in [-1, 1] -> a map [B, C_l, H_l, W_l] for each layer."""

ImageClassifier = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] in [-1, 1] -> logits [B, classes], before any softmax."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def load_features(network: str, placement: Placement) -> FeatureExtractor:
    """A network that returns feature maps, from a folder or a function; ValueError if not found."""
    return _loaded(network, placement, pretrained_features, lambda digits: digits.features)


def load_classifier(network: str, placement: Placement) -> ImageClassifier:
    """A network that returns logits, from a folder or a function; ValueError if not found."""
    return _loaded(network, placement, pretrained_classifier, lambda digits: digits.classifier)


def _loaded(
    network: str,
    placement: Placement,
    pretrained: Callable[[Path, Placement], _Function],
    part: Callable[[DigitsClassifier], _Function],
) -> _Function | Callable[..., Any]:
    folder = Path(network)
    if not folder.is_dir():
        if ":" in network:
            return load_function(network)
        raise ValueError(
            f"There is no network at {network!r}; give a folder, or a function as "
            "'package.module:name'."
        )
    if "model_type" in read_json(folder / "config.json"):
        return pretrained(folder, placement)
    return part(load_digits(folder, placement))


# ---------------------------------------------------------------------------- functions by name

_WRITTEN = re.compile(r"(\w+(?:\.\w+)*):(\w+)")


def load_function(path: str) -> Callable[..., Any]:
    """Import the function ``package.module:name``; ValueError if there is none."""
    written = _WRITTEN.fullmatch(path)
    if written is None:
        raise ValueError(f"{path!r} names no function; write it as 'package.module:name'.")
    module_name, name = written.groups()
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path!r} can't be imported, since there is no module {error.name!r}; install it, or "
            "put its folder on PYTHONPATH."
        ) from error
    except SystemExit as error:
        raise ValueError(
            f"The module {module_name} ends the process when it is imported; put what it does "
            'under `if __name__ == "__main__":`.'
        ) from error
    try:
        found: Any = getattr(module, name)
    except AttributeError as error:
        hint = did_you_mean(name, dir(module), "define it there, or correct the name.")
        raise ValueError(f"The module {module_name} has no {name!r}; {hint}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is {described(found)}; it must be a function of images.")
    function: Callable[..., Any] = found
    return function


# --------------------------------------------------------------------- assets/digits-classifier


class DigitsClassifier(NamedTuple):
    """The maps after each of the three convolutions, and the logits, as functions of images."""

    features: FeatureExtractor
    classifier: ImageClassifier


def load_digits(folder: Path, placement: Placement) -> DigitsClassifier:
    """The classifier in a folder such as ``assets/digits-classifier``; ValueError if none is there.

    Three convolutions, each followed by a maximum over 2x2 pixels, and two linear layers, as
    ``examples/digits`` trains them.
    """
    try:
        refuse_special(folder)
        w = {n: placement.put(v) for n, v in load_file(folder / "model.safetensors").items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder} has no complete model.safetensors; copy it there.") from error
    if not {"convolutions.8.weight", "penultimate.1.weight", "head.weight"} <= w.keys():
        raise ValueError(
            f"{folder} holds a network that is not known here; it must be a classifier as in "
            "assets/digits-classifier, or a model that transformers saved."
        )

    def normalised(x: Tensor, layer: str) -> Tensor:
        mean, variance = w[f"{layer}.running_mean"], w[f"{layer}.running_var"]
        return F.batch_norm(x, mean, variance, w[f"{layer}.weight"], w[f"{layer}.bias"])

    def features(x: Tensor) -> list[Tensor]:
        if x.shape[1] != 1 or min(x.shape[2:]) < 8:
            raise ValueError(
                f"The digits classifier was given images of shape {list(x.shape[1:])}; they must "
                "be grey, [1, H, W], and at least 8 x 8 pixels."
            )
        maps = []
        for i in (0, 4, 8):
            x = F.conv2d(x, w[f"convolutions.{i}.weight"], padding=1)
            x = F.max_pool2d(normalised(x, f"convolutions.{i + 1}").relu(), 2)
            maps.append(x)
        return maps

    def classifier(x: Tensor) -> Tensor:
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(
                f"The digits classifier was given images of shape {list(x.shape[1:])}; they "
                "must be grey and of 28 x 28 pixels, [1, 28, 28]."
            )
        x = features(x)[-1].flatten(1)
        x = F.linear(x, w["penultimate.1.weight"], w["penultimate.1.bias"])
        return F.linear(normalised(x, "penultimate.2").relu(), w["head.weight"], w["head.bias"])

    return DigitsClassifier(features, classifier)
