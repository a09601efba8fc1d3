"""``text2pde train-autoencoder``: the autoencoder of flows on meshes."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.failure import Failure
from samplers.cli.processes import is_main_process
from samplers.cli.values import not_negative, positive, positive_number, whole

_EPILOG = """\
examples:
  text2pde train-autoencoder data/cylinder --output runs/autoencoder
  accelerate launch -m text2pde train-autoencoder data/cylinder --output runs/autoencoder

After an interruption the same command goes on where it stopped. Every so many steps the relative
error on held-out clips is printed, if there are any (`text2pde simulate --held-out`).
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``train-autoencoder``."""
    parser = add_command(
        commands, "train-autoencoder", "learn latents of flows on any mesh", _EPILOG
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder of `text2pde simulate`")
    parser.add_argument("--held-out", type=Path, metavar="CLIPS", help="folder to measure on")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="of the run and its result"
    )
    parser.add_argument(
        "--cases", type=positive, metavar="N", help="learn from the first so many [all]"
    )
    group = parser.add_argument_group("model")
    group.add_argument("--channels", type=positive, default=24, metavar="N", help="[24]")
    group.add_argument(
        "--latent", type=positive, default=8, metavar="N", help="channels of the latent [8]"
    )
    group.add_argument(
        "--columns", type=positive, metavar="N", help="of the latent grid [64 of a channel]"
    )
    group.add_argument("--rows", type=positive, metavar="N", help="of it [16 of a channel]")
    group = parser.add_argument_group("training")
    group.add_argument("--steps", type=positive, default=4000, metavar="N", help="[4000]")
    group.add_argument("--batch-size", type=positive, default=2, metavar="N", help="clips [2]")
    group.add_argument(
        "--frames", type=positive, default=16, metavar="N", help="of a clip, at once [16]"
    )
    group.add_argument(
        "--learning-rate", type=positive_number, default=1e-3, metavar="R", help="[0.001]"
    )
    group.add_argument(
        "--kl-weight",
        type=not_negative,
        default=1e-5,
        metavar="W",
        help="of the latent's law [0.00001]",
    )
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="[0]")
    group.add_argument(
        "--every", type=positive, default=500, metavar="N", help="steps between measurements [500]"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    import torch

    from samplers.training import TrainingConfig
    from text2pde.autoencoder.run import Architecture, train_autoencoder

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
    architecture = Architecture(
        arguments.channels, arguments.latent, arguments.columns, arguments.rows
    )
    try:
        outcome = train_autoencoder(
            arguments.clips,
            arguments.held_out,
            arguments.output,
            architecture,
            config,
            frames=arguments.frames,
            kl_weight=arguments.kl_weight,
            every=arguments.every,
            most=arguments.cases,
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
            "The device ran out of memory; take a smaller --batch-size or fewer --frames."
        ) from error
    if is_main_process():
        for name, errors in outcome.errors.items():
            print(f"{name}: {errors.overall:.3f} of all fields, {errors.across:.3f} across")
        print(f"{outcome.compression:.1f} numbers of a clip to one of its latent -> {outcome.path}")
    return 0
