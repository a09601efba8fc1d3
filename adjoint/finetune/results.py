"""The pictures of a run: what it draws, before and after, and how its reward rose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from samplers.files import replacing
from samplers.images.pixels import Cell, columns_for, curve, sheet, table, to_images, write_png

_COMPARED = 10


class Drawn(NamedTuple):
    """Images [B, C, H, W], and what each was asked to show."""

    images: Tensor
    asked: Tensor | None


def write_sheet(drawn: Drawn, path: Path) -> Path:
    """All images on one picture."""
    images = to_images(drawn.images)
    classes = 0 if drawn.asked is None else len(set(drawn.asked.tolist()))
    write_png(sheet(images, columns_for(len(images), classes)), path, {})
    return path


def write_comparison(before: Drawn, after: Drawn, path: Path) -> Path:
    """The first images from the same noise, before and after, one below the other."""
    rows = [
        (name, [Cell((image,), ()) for image in to_images(drawn.images[:_COMPARED])])
        for name, drawn in (("before", before), ("after", after))
    ]
    columns = [""] * len(rows[0][1])
    write_png(table("images from the same noise", columns, rows), path, {})
    return path


def write_curve(log: Path, path: Path) -> Path:
    """The mean reward of each logged step."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    points = [(line["step"], -line["loss"]) for line in lines]
    with replacing(path) as part:
        curve({"reward": points}, "step").save(part, format="PNG")
    return path
