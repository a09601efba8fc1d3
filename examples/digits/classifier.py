"""A small classifier of digits, which also gives the features of the Fréchet distance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from samplers.files import replacing

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class ClassifierConfig:
    """Channels of the three convolutions, width of the penultimate layer, number of classes."""

    channels: tuple[int, int, int] = (32, 64, 128)
    width: int = 128
    classes: int = 10


class DigitClassifier(nn.Module):
    """Three convolutions, each followed by a maximum over 2x2 pixels, and two linear layers.

    Takes images (batch, 1, 28, 28) in [-1, 1].
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.channels
        self.convolutions = nn.Sequential(
            *_halving(1, first), *_halving(first, second), *_halving(second, third)
        )
        # 28 pixels, halved three times and rounded down, are 3.
        self.penultimate = nn.Sequential(
            nn.Flatten(),
            nn.Linear(9 * third, config.width),
            nn.BatchNorm1d(config.width),
            nn.ReLU(),
        )
        self.head = nn.Linear(config.width, config.classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate activations (batch, width), zero or positive."""
        features: Tensor = self.penultimate(self.convolutions(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _halving(channels: int, to: int) -> list[nn.Module]:
    """A convolution to ``to`` channels at half the resolution."""
    convolution = nn.Conv2d(channels, to, kernel_size=3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(to), nn.ReLU(), nn.MaxPool2d(2)]


def save_classifier(classifier: nn.Module, config: ClassifierConfig, folder: Path) -> None:
    """Write the weights and the configuration into ``folder``; its card stays."""
    with replacing(folder / CONFIG) as part:
        part.write_text(json.dumps(asdict(config), indent=2) + "\n")
    with replacing(folder / WEIGHTS) as part:
        save_file(classifier.state_dict(), part)


def load_config(folder: Path) -> ClassifierConfig:
    """Read the configuration of a classifier."""
    settings = json.loads((folder / CONFIG).read_text())
    settings["channels"] = tuple(settings["channels"])
    return ClassifierConfig(**settings)


def load_classifier(folder: Path) -> DigitClassifier:
    """Read a classifier, in evaluation mode."""
    classifier = DigitClassifier(load_config(folder))
    classifier.load_state_dict(load_file(folder / WEIGHTS))
    return classifier.eval()
