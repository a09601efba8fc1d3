"""Train a classifier of noisy digits, for classifier guidance on the schedule of ``train.py``.

    accelerate launch examples/digits/train_noisy_classifier.py --data data/mnist \
        --output runs/noisy-classifier

Run it again to go on where it stopped. At the end it prints how good it is on the 10,000 test
images, by noise level.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from classifier import ClassifierConfig, save_classifier
from mnist import digits
from noisy_classifier import NoisyDigitClassifier
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samplers import Point, Schedule, VPDiscrete
from samplers.training import Objective, TrainingConfig, perturb, seeded, train

SCHEDULE = VPDiscrete.linear()
"""That of the diffusion model in ``assets/digits``."""
TIMES = (0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 999)
"""Where the classifier is tested."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a classifier of noisy MNIST digits.")
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="from fetch_mnist.py")
    parser.add_argument("--output", type=Path, default=Path("runs/noisy-classifier"))
    parser.add_argument("--export", type=Path, help="folder of the weights [OUTPUT/classifier]")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = TrainingConfig(
        steps=arguments.steps,
        batch_size=128,
        learning_rate=2e-3,
        warmup=arguments.steps // 20,
        weight_decay=0.01,
        average_decay=0.995,
        seed=arguments.seed,
        log_every=50,
        checkpoint_every=250,
    )
    torch.manual_seed(config.seed)
    model = NoisyDigitClassifier(ClassifierConfig())
    try:
        training, test = digits(arguments.data, "train"), digits(arguments.data, "test")
        average = train(model, training, noisy_classification(SCHEDULE), config, arguments.output)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if PartialState().is_main_process:
        folder = arguments.export or arguments.output / "classifier"
        save_classifier(average, model.config, folder)
        print(f"The classifier is in {folder}.")
        print(accuracy_table(average.cpu(), test))


def noisy_classification(schedule: Schedule) -> Objective:
    """Cross-entropy on images with noise, at times uniform on the trained ones."""

    def objective(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        images, labels = batch
        x, at, _ = perturb(schedule, images, generator)
        return nn.functional.cross_entropy(model(x, at.t.to(x)), labels)

    return objective


def accuracy_table(classifier: nn.Module, test: TensorDataset) -> str:
    """The share of right guesses and the cross-entropy at each of :data:`TIMES`, as Markdown."""
    lines = ["| t | sigma / alpha | accuracy | cross-entropy (nats) |", "|---:|---:|---:|---:|"]
    for t in TIMES:
        at = SCHEDULE.point(torch.tensor(float(t)))
        accuracy, entropy = measure(classifier, test, at)
        lines.append(f"| {t} | {float(at.rho):.2f} | {100 * accuracy:.1f} % | {entropy:.3f} |")
    return "\n".join(lines)


@torch.no_grad()
def measure(classifier: nn.Module, test: TensorDataset, at: Point) -> tuple[float, float]:
    """Share of right guesses, and mean cross-entropy, on the test images with noise."""
    images, labels = test.tensors
    eps = torch.randn(images.shape, generator=seeded(0, int(at.t)))
    x = at.alpha.to(images) * images + at.sigma.to(images) * eps
    logits = torch.cat([classifier(part, at.t.to(part).expand(len(part))) for part in x.chunk(20)])
    right = float((logits.argmax(dim=1) == labels).double().mean())
    return right, float(nn.functional.cross_entropy(logits, labels))


if __name__ == "__main__":
    main()
