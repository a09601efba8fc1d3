"""``text2pde train-diffusion``: a transformer over the latents of flows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process
from samplers.cli.values import positive_number
from text2pde.cli.training import add_training_arguments, named_endings, training_config
from text2pde.diffusion.presets import PRESETS, Size

if TYPE_CHECKING:
    from text2pde.pipeline import Text2PDEPipeline

_EPILOG = """\
examples:
  text2pde train-diffusion runs/latents.safetensors --autoencoder runs/autoencoder/autoencoder \\
      --output runs/diffusion
  accelerate launch -m text2pde train-diffusion runs/latents.safetensors \\
      --autoencoder runs/autoencoder/autoencoder --preset small --output runs/diffusion

  text2pde train-diffusion runs/own.safetensors --autoencoder assets/cylinder/autoencoder \\
      --start assets/cylinder --learning-rate 3e-4 --output runs/further

The result is a folder for `text2pde generate --checkpoint`. After an interruption the same command
goes on where it stopped. Sentences are encoded once, and kept beside the run.
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``train-diffusion``."""
    parser = add_command(
        commands, "train-diffusion", "learn to draw latents from sentences", _EPILOG
    )
    parser.add_argument("latents", type=Path, metavar="LATENTS", help="file of `text2pde encode`")
    parser.add_argument(
        "--autoencoder", type=Path, required=True, metavar="MODEL", help="that they are of"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="of the run and its result"
    )
    group = parser.add_argument_group("model")
    begun = group.add_mutually_exclusive_group()
    begun.add_argument(
        "--preset",
        choices=PRESETS,
        default="tiny",
        help="a new one; tiny trains on two cores, small, medium and large are those of the paper "
        "[tiny]",
    )
    begun.add_argument(
        "--start", type=Path, metavar="CHECKPOINT", help="a pipeline that is trained further"
    )
    group.add_argument(
        "--text-encoder",
        metavar="NAME",
        help="a folder, or a name on the hub [that of --start, or all-MiniLM-L6-v2, of the extra "
        "text]",
    )
    group = parser.add_argument_group("training")
    add_training_arguments(group, 16, "windows")
    group.add_argument(
        "--time-shift",
        type=positive_number,
        default=1.0,
        metavar="S",
        help="above 1 trains more where there is much noise, which decides how a flow moves as a "
        "whole [1]",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    from text2pde.pipeline_training import train_diffusion

    with named_endings(arguments.output, "take a smaller --batch-size or --preset"):
        path = train_diffusion(
            arguments.latents,
            arguments.autoencoder,
            arguments.output,
            _start(arguments),
            training_config(arguments),
            encoder=arguments.text_encoder,
            time_shift=arguments.time_shift,
        )
    if is_main_process():
        print(f"a pipeline for `text2pde generate --checkpoint {path}`")
    return 0


def _start(arguments: argparse.Namespace) -> Size | Text2PDEPipeline:
    import torch

    from samplers.checkpoint import CheckpointError
    from text2pde.pipeline import load_text2pde

    if arguments.start is None:
        return PRESETS[arguments.preset]
    try:
        return load_text2pde(arguments.start, torch.device("cpu"))
    except CheckpointError as error:
        raise Failure(str(error)) from error
