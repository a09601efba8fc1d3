"""Train the classifier of digits by which generated digits are judged.

    accelerate launch examples/digits/train_classifier.py --data data/mnist --output runs/classifier

Run it again to go on where it stopped. At the end it prints the accuracy on the 10,000 test images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from classifier import ClassifierConfig, DigitClassifier, save_classifier
from mnist import digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samplers.training import TrainingConfig, train


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a classifier of the MNIST digits.")
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="from fetch_mnist.py")
    parser.add_argument("--output", type=Path, default=Path("runs/classifier"), help="of the run")
    parser.add_argument("--export", type=Path, help="folder of the weights [OUTPUT/classifier]")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = TrainingConfig(
        steps=arguments.steps,
        batch_size=128,
        learning_rate=2e-3,
        warmup=arguments.steps // 20,
        weight_decay=0.01,
        seed=arguments.seed,
        log_every=50,
        checkpoint_every=250,
    )
    torch.manual_seed(config.seed)
    classifier = DigitClassifier(ClassifierConfig())
    try:
        training, test = digits(arguments.data, "train"), digits(arguments.data, "test")
        # The last weights are kept, not their average: batch statistics belong to weights, and
        # the learning rate has fallen to zero by then.
        train(classifier, training, classification_loss, config, arguments.output)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if PartialState().is_main_process:
        report(classifier.cpu().eval(), test, arguments.export or arguments.output / "classifier")


def report(classifier: DigitClassifier, test: TensorDataset, folder: Path) -> None:
    """Write the classifier and print how good it is."""
    save_classifier(classifier, classifier.config, folder)
    print(f"Test accuracy {accuracy(classifier, test):.2%}; the classifier is in {folder}.")


def classification_loss(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    """Cross-entropy on images that are moved by up to two pixels."""
    images, labels = batch
    return nn.functional.cross_entropy(model(shift(images, generator)), labels)


def shift(images: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Each image (batch, 1, height, width) rolled by up to ``most`` pixels both ways.

    The margins of a digit are empty, so what leaves on one side and enters on the other is
    background.
    """
    batch, _, height, width = images.shape
    dy, dx = torch.randint(-most, most + 1, (2, batch, 1), generator=generator)
    rows = ((torch.arange(height) + dy) % height).unsqueeze(2)
    columns = ((torch.arange(width) + dx) % width).unsqueeze(1)
    image = torch.arange(batch).reshape(-1, 1, 1)
    return images[image, 0, rows, columns].unsqueeze(1)


@torch.no_grad()
def accuracy(classifier: nn.Module, test: TensorDataset) -> float:
    """The share of images whose most likely class is their label."""
    images, labels = test.tensors
    guesses = torch.cat([classifier(part).argmax(dim=1) for part in images.chunk(20)])
    return float((guesses == labels).double().mean())


if __name__ == "__main__":
    main()
