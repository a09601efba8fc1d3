"""From arguments to a loaded checkpoint and a recipe for it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import torch

from samplers.checkpoint import (
    Checkpoint,
    CheckpointError,
    LoadOptions,
    Recipe,
    load_checkpoint,
)
from samplers.cli.arguments import DTYPES
from samplers.cli.failure import Failure


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
