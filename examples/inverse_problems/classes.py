"""Sample digits of each class with an unconditional model and classifier guidance.

    python examples/inverse_problems/classes.py --output assets/pictures/classifier_guidance.png

A row is a guidance scale, a column a class, all from the same initial noise. It prints the share of
samples in which the classifier of clean digits, which took no part, sees the wanted class.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from samplers import (
    CheckpointError,
    LoadOptions,
    NetworkCheckpoint,
    classifier_guidance,
    initial_noise,
    load_checkpoint,
    sample,
)
from samplers.images import Cell, table, to_images, write_png

ROOT = Path(__file__).parents[2]
Classifier = Callable[[Tensor, Tensor], Tensor]
sys.path.insert(0, str(ROOT / "examples" / "digits"))
from classifier import load_classifier  # noqa: E402  a script's neighbour
from noisy_classifier import load_noisy_classifier  # noqa: E402

SAMPLER = "ancestral"
SCALES = (0.0, 1.0, 3.0, 6.0)


def main() -> None:
    arguments = parse_arguments()
    try:
        checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions())
        guide = load_noisy_classifier(arguments.classifier).requires_grad_(False)
        judge = load_classifier(ROOT / "assets" / "digits-classifier")
    except (OSError, ValueError, CheckpointError) as error:
        sys.exit(f"error: {error}")
    assert isinstance(checkpoint, NetworkCheckpoint)  # it is ours
    labels = torch.arange(10).repeat(arguments.each)
    rows = []
    for scale in SCALES:
        images = draw(checkpoint, guide, labels, scale, arguments.steps)
        with torch.no_grad():
            seen = judge(images.clamp(-1, 1)).argmax(dim=1)
        agreement = float((seen == labels).double().mean())
        print(f"scale {scale:g}: {100 * agreement:.1f} % of {len(labels)} digits")
        cells = [Cell(image) for image in to_images(images[:10])]
        rows.append((f"scale {scale:g}\n{100 * agreement:.0f} % recognised", cells))
    title = f"Classifier guidance of an unconditional model: {SAMPLER}, {arguments.steps} steps"
    figure = table(title, [str(digit) for digit in range(10)], rows)
    try:
        write_png(figure, arguments.output, {"sampler": SAMPLER, "steps": arguments.steps})
    except OSError as error:
        sys.exit(f"error: {error}")
    print(f"The figure is {arguments.output}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sample digits with classifier guidance.")
    folder = ROOT / "assets" / "digits-noisy-classifier"
    parser.add_argument("--classifier", type=Path, default=folder, help="of noisy digits")
    parser.add_argument("--output", type=Path, required=True, help="the figure")
    parser.add_argument("--each", type=int, default=20, help="digits of each class")
    parser.add_argument("--steps", type=int, default=30)
    return parser.parse_args()


@torch.no_grad()
def draw(
    checkpoint: NetworkCheckpoint, guide: Classifier, labels: Tensor, scale: float, steps: int
) -> Tensor:
    """A digit [N, 1, 28, 28] for each label."""
    seeds = range(len(labels))
    model = classifier_guidance(checkpoint.denoiser(), guide, labels, scale)
    return sample(
        model,
        initial_noise(seeds, checkpoint.shape).float(),
        sampler=SAMPLER,
        steps=steps,
        grid="trailing",
        seeds=seeds,
        conditions=checkpoint.conditions([checkpoint.null_label or 0] * len(labels)),
    )


if __name__ == "__main__":
    main()
