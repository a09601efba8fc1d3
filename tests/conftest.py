"""What all tests share: one thread, so that the suite runs beside other work and never races, and
the CPU, whose results they compare to the last bit. ``make cuda`` shows a GPU to those about it.

And what the tests of commands share: checkpoints and pictures of their size.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny_checkpoints
from tests.commands import Say
from tests.tiny_checkpoints import SIZE

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints, and pictures of their size."""
    root = tmp_path_factory.mktemp("places")
    levels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    half = np.zeros((SIZE, SIZE), np.uint8)
    half[SIZE // 2 :] = 255
    arrays = {
        "grey": levels[..., 0],
        "colours": levels,
        "small": levels[:4, :4, 0],
        "mask": half,
        "black": 0 * half,
        "white": 0 * half + 255,
        "wide": np.zeros((SIZE, 2 * SIZE), np.uint8),
    }
    for name, array in arrays.items():
        Image.fromarray(array).save(root / f"{name}.png")
    Image.fromarray(np.dstack([levels, half])).save(root / "opacity.png")
    (root / "broken.png").write_bytes((root / "grey.png").read_bytes()[:60])
    (root / "text.png").write_text("no picture")
    (root / "table.csv").write_text("no picture")
    pictures = {path.stem: path for path in root.glob("*.png")}
    checkpoints = {
        "digits": tiny_checkpoints.of_classes(root / "digits"),
        "plain": tiny_checkpoints.unconditional(root / "plain"),
        "latents": tiny_checkpoints.of_latents(root / "latents"),
        "restoration": tiny_checkpoints.of_restoration(root / "restoration"),
        "prompts": tiny_checkpoints.of_prompts(root / "prompts"),
    }
    return pictures | checkpoints | {"table": root / "table.csv"}


@pytest.fixture
def say(places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    return Say({**places, "tmp": tmp_path, "out": tmp_path / "out.png"}, capsys)
