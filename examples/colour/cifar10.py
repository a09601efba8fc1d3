"""The CIFAR-10 images of one class as a tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FILES = {
    "train": ([f"data_batch_{part}.png" for part in range(1, 6)], "train_lables.json"),
    "test": (["test_batch.png"], "test_lables.json"),
}
"""Pictures with one image to a row, and the list of labels, as the npm package names them."""

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

Split = Literal["train", "test"]


def cifar10(folder: Path, split: Split, name: str) -> Tensor:
    """The images (count, 3, 32, 32) in [-1, 1] of the class ``name``.

    Raises FileNotFoundError if CIFAR-10 is not there.
    """
    chosen = read_labels(folder, split) == CLASSES.index(name)
    pixels = torch.from_numpy(read_images(folder, split)[chosen])
    return pixels.permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def read_images(folder: Path, split: Split) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """All images (count, 32, 32, 3)."""
    pictures = []
    for name in FILES[split][0]:
        with Image.open(_existing(folder, name)) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    return np.concatenate(pictures).reshape(-1, 32, 32, 3)


def read_labels(folder: Path, split: Split) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The class of each image, a number into :data:`CLASSES`."""
    return np.array(json.loads(_existing(folder, FILES[split][1]).read_text()), dtype=np.int64)


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; run `python examples/colour/fetch_cifar10.py {folder}`."
        )
    return path
