"""The MNIST digits as tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import TensorDataset

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An array of bytes in the idx format: 0, 0, 8, rank; big-endian lengths; the bytes."""
    content = path.read_bytes()
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an idx file of bytes; fetch it again.")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def digits(folder: Path, split: Literal["train", "test"]) -> TensorDataset:
    """Pairs of an image (1, 28, 28) in [-1, 1] and its label.

    Raises FileNotFoundError if the digits are not there.
    """
    paths = [folder / name for name in FILES[split]]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f"{path} does not exist; run `python examples/digits/fetch_mnist.py {folder}`."
            )
    images, labels = (torch.from_numpy(read_idx(path).copy()) for path in paths)
    return TensorDataset(images.unsqueeze(1) / 127.5 - 1, labels.long())
