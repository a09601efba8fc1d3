"""Pictures on disk: where they may be written, and what they say of their making."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from samplers.checkpoint import Checkpoint, Recipe
from samplers.cli.failure import Failure
from samplers.images.pixels import write_png

T = TypeVar("T")

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def is_picture(path: Path) -> bool:
    """Whether an output is one PNG file, and not a folder; ValueError for other pictures."""
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        raise ValueError(f"The output is {path}, but pictures are written as PNG; name it .png.")
    return path.suffix.lower() == ".png" and not path.is_dir()


def refuse_folder(path: Path) -> None:
    """Raise ValueError if what is to be a file is a folder, which it would replace."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file.")


def check_places(outputs: Sequence[Path], given: Sequence[Path] = ()) -> None:
    """Raise ValueError if a file to be written is a folder, another of them, or a given one."""
    read, written = {path.resolve() for path in given}, set[Path]()
    for path in outputs:
        refuse_folder(path)
        place = path.resolve()
        if place in written:
            raise ValueError(f"Two outputs are {path}; name different files.")
        if place in read:
            raise ValueError(f"{path} is one of the given files; choose another output.")
        written.add(place)


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write into it, so that a long job does not fail at its end."""
    if folder.is_file():
        raise Failure(f"{folder} is a file; nothing can be written into it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"{folder} can't be written to: {error.strerror or error}.") from error


def write(image: Image.Image, path: Path, parameters: dict[str, Any]) -> None:
    """Write a picture whole or not at all; Failure if the disk is full or forbids it."""
    try:
        write_png(image, path, parameters)
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}.") from error


def spread_out(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def made_by(arguments: argparse.Namespace, weights: Mapping[str, str]) -> dict[str, Any]:
    """What a picture of every command says of the program and of the checkpoint.

    Args:
        weights: the SHA-256 of each file of weights.
    """
    return {
        "software": "retrograde",
        "version": _package_version(),
        "checkpoint": str(arguments.checkpoint),
        "weights_sha256": dict(weights),
        "dtype": arguments.dtype,
    }


def common_parameters(
    arguments: argparse.Namespace,
    checkpoint: Checkpoint,
    recipe: Recipe,
    seeds: Sequence[int] | None,
    labels: Sequence[int | None] | None,
) -> dict[str, Any]:
    """The same, and the settings of a network that draws; the recipe is a settled one."""
    return made_by(arguments, checkpoint.weights) | {
        "sigma_min": recipe.sigma_min,
        "sigma_max": recipe.sigma_max,
        "final": recipe.final,
        "guidance": recipe.guidance,
        "guidance_rescale": recipe.guidance_rescale,
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt,
        "null_label": arguments.null_label,
        "labels": None if labels is None else list(labels),
        "seeds": None if seeds is None else list(seeds),
    }


@cache
def _package_version() -> str:
    try:
        return version("retrograde")
    except PackageNotFoundError:
        return "not installed"
