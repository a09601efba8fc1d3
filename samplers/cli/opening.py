"""From arguments to a loaded checkpoint and a recipe for it."""

from __future__ import annotations

import argparse
import math

import torch

from samplers.checkpoint import (
    Checkpoint,
    CheckpointError,
    LoadOptions,
    NetworkCheckpoint,
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


def open_network(arguments: argparse.Namespace, device: torch.device) -> NetworkCheckpoint:
    """Load the checkpoint that was named; ValueError if it is asked by a prompt."""
    checkpoint = open_checkpoint(arguments, device)
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise ValueError(
            f"{arguments.checkpoint} is a pipeline that is asked by a prompt; a network without "
            "one is needed here."
        )
    return checkpoint


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """What the arguments say of the grid and the model; no sampler yet, and nothing is settled."""
    numbers = ("guidance", "guidance_rescale", "sigma_min", "sigma_max")
    for name in numbers:
        value = getattr(arguments, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be a finite number.")
    return Recipe(
        grid=arguments.grid,
        sigma_min=arguments.sigma_min,
        sigma_max=arguments.sigma_max,
        final=arguments.final,
        guidance=arguments.guidance,
        guidance_rescale=arguments.guidance_rescale or 0.0,
        prompt=arguments.prompt,
        negative_prompt=arguments.negative_prompt,
    )
