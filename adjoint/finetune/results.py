"""The images of a run, before and after, and the curve of its reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from samplers.images.figures import Cell, curves, table
from samplers.images.files import write_png
from samplers.images.pixels import to_images
from samplers.images.sheets import columns_for, sheet

PREVIEWS, COMPARISON, CURVE = "previews", "before-after.png", "curve.png"
_COMPARED = 10


class Preview(NamedTuple):
    """Images [B, C, H, W], and what each was conditioned on [B]."""

    images: Tensor
    condition: Tensor | None


def write_sheet(preview: Preview, path: Path) -> Path:
    """Write all images on one sheet."""
    images = to_images(preview.images)
    classes = 0 if preview.condition is None else len(set(preview.condition.tolist()))
    write_png(sheet(images, columns_for(len(images), classes)), path, {})
    return path


def write_comparison(before: Preview, after: Preview, path: Path) -> Path:
    """Write the first images from the same noise, before and after, one below the other."""
    rows = [
        (name, [Cell(image) for image in to_images(preview.images[:_COMPARED])])
        for name, preview in (("before", before), ("after", after))
    ]
    columns = [""] * len(rows[0][1])
    write_png(table("images from the same noise", columns, rows), path, {})
    return path


def write_curve(log: Path, path: Path) -> Path:
    """Plot the mean reward of each logged step."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    points = [(line["step"], -line["loss"]) for line in lines]
    write_png(curves({"reward": points}, "training step", "mean reward"), path, {})
    return path
