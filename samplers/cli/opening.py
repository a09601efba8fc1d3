"""From arguments to a loaded checkpoint and a settled recipe."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from samplers.checkpoint import (
    Checkpoint,
    CheckpointError,
    LoadOptions,
    Recipe,
    load_checkpoint,
)
from samplers.cli.arguments import DTYPES, Failure
from samplers.pictures import write_png

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def open_checkpoint(arguments: argparse.Namespace, device: torch.device) -> Checkpoint:
    """Load the checkpoint that was named."""
    options = LoadOptions(
        DTYPES[arguments.dtype], device, arguments.allow_pickle, arguments.null_label
    )
    try:
        return load_checkpoint(arguments.checkpoint, options)
    except CheckpointError as error:
        raise Failure(str(error)) from error


def recipe_from(
    arguments: argparse.Namespace, sampler: str, steps: int, options: Mapping[str, Any]
) -> Recipe:
    """The recipe that the arguments describe, before the checkpoint has settled it."""
    numbers = ("guidance", "guidance_rescale", "sigma_min", "sigma_max")
    for name in numbers:
        value = getattr(arguments, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be a finite number.")
    return Recipe(
        sampler=sampler,
        steps=steps,
        grid=arguments.grid,
        sigma_min=arguments.sigma_min,
        sigma_max=arguments.sigma_max,
        final=arguments.final,
        options=options,
        guidance=arguments.guidance,
        guidance_rescale=arguments.guidance_rescale,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
    )


def is_picture(path: Path) -> bool:
    """Whether an output is one PNG file, and not a folder; ValueError for other pictures."""
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        raise ValueError(f"The output is {path}, but pictures are written as PNG; name it .png.")
    return path.suffix.lower() == ".png" and not path.is_dir()


@cache
def package_version() -> str:
    """The version of this package, as installed."""
    try:
        return version("retrograde")
    except PackageNotFoundError:
        return "not installed"


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write into it, so that a long job does not fail at its end."""
    if folder.is_file():
        raise Failure(f"{folder} is a file; it can't hold pictures.")
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
