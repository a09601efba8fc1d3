"""Draw digits of each class with a model that is told no class, guided by a classifier.

    python examples/inverse_problems/classes.py --output assets/pictures/classifier_guidance.png

A row is a scale of the guidance, a column a class, all from the same noise. What is printed is how
often the classifier of clean digits, which took no part, sees the class that was asked for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from samplers.checkpoint import CheckpointError, LoadOptions, NetworkCheckpoint, load_checkpoint
from samplers.cli.values import positive
from samplers.grid import default_spacing
from samplers.images.pixels import Cell, table, to_images, write_png
from samplers.noise import initial_noise
from samplers.prediction import Classifier, classifier_guidance
from samplers.sampling import sample

ROOT = Path(__file__).parents[2]
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
        cells = [Cell((image,), ()) for image in to_images(images[:10])]
        rows.append((f"scale {scale:g}, {100 * agreement:.0f} %", cells))
    title = f"{SAMPLER}, {arguments.steps} steps, guided by a classifier of noisy digits"
    picture = table(title, [str(digit) for digit in range(10)], rows)
    try:
        write_png(picture, arguments.output, {"sampler": SAMPLER, "steps": arguments.steps})
    except OSError as error:
        sys.exit(f"error: {error}")
    print(f"The picture is {arguments.output}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw digits guided by a classifier.")
    folder = ROOT / "assets" / "digits-noisy-classifier"
    parser.add_argument("--classifier", type=Path, default=folder, help="of noisy digits")
    parser.add_argument("--output", type=Path, required=True, help="the picture")
    parser.add_argument("--each", type=positive, default=20, help="digits of each class")
    parser.add_argument("--steps", type=positive, default=30)
    return parser.parse_args()


@torch.no_grad()
def draw(
    checkpoint: NetworkCheckpoint, guide: Classifier, labels: Tensor, scale: float, steps: int
) -> Tensor:
    """A digit [N, 1, 28, 28] for each label."""
    seeds, settings = range(len(labels)), checkpoint.settings
    unconditional = checkpoint.model([checkpoint.null_label or 0] * len(labels))
    model = classifier_guidance(
        unconditional, guide, labels, scale, settings.schedule, settings.prediction
    )
    return sample(
        model,
        initial_noise(seeds, checkpoint.shape).float(),
        schedule=settings.schedule,
        prediction=settings.prediction,
        sampler=SAMPLER,
        steps=steps,
        grid=default_spacing(settings.schedule),
        seeds=seeds,
    )


if __name__ == "__main__":
    main()
