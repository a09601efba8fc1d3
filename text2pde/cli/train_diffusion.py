"""``text2pde train-diffusion``: a transformer over the latents of flows."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process
from samplers.cli.values import positive, positive_number, whole
from text2pde.diffusion.presets import PRESETS

_EPILOG = """\
examples:
  text2pde train-diffusion runs/latents.safetensors --autoencoder runs/autoencoder/autoencoder \\
      --output runs/diffusion
  accelerate launch -m text2pde train-diffusion runs/latents.safetensors \\
      --autoencoder runs/autoencoder/autoencoder --preset small --output runs/diffusion

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
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="tiny",
        help="tiny trains on two cores; small, medium and large are those of the paper [tiny]",
    )
    group.add_argument(
        "--text-encoder",
        metavar="NAME",
        help="a folder, or a name on the hub [all-MiniLM-L6-v2, of the extra text]",
    )
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=positive, default=4000, metavar="N", help="[4000]")
    group.add_argument("--batch-size", type=positive, default=16, metavar="N", help="windows [16]")
    group.add_argument(
        "--learning-rate", type=positive_number, default=1e-3, metavar="R", help="[0.001]"
    )
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="[0]")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    import torch

    from samplers.training import TrainingConfig
    from text2pde.diffusion.run import train_diffusion

    config = TrainingConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        warmup=min(100, arguments.steps // 10),
        average_decay=0.999,
        seed=arguments.seed,
        log_every=10,
        checkpoint_every=100,
    )
    try:
        path = train_diffusion(
            arguments.latents,
            arguments.autoencoder,
            arguments.output,
            PRESETS[arguments.preset],
            config,
            encoder=arguments.text_encoder,
        )
    except KeyboardInterrupt:
        raise Failure(
            f"Interrupted. {arguments.output} keeps the last checkpoint, from which the same "
            "command goes on.",
            130,
        ) from None
    except ArithmeticError as error:
        raise Failure(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise Failure(
            "The device ran out of memory; take a smaller --batch-size or --preset."
        ) from error
    if is_main_process():
        print(f"a pipeline for `text2pde generate --checkpoint {path}`")
    return 0
