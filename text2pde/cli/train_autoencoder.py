"""``text2pde train-autoencoder``: the autoencoder of flows on meshes."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import Commands, add_command
from samplers.cli.processes import is_main_process
from samplers.cli.values import not_negative, positive
from text2pde.cli.training import add_training_arguments, named_endings, training_config

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
    add_training_arguments(group, 2, "clips")
    group.add_argument(
        "--frames", type=positive, default=16, metavar="N", help="of a clip, at once [16]"
    )
    group.add_argument(
        "--kl-weight",
        type=not_negative,
        default=1e-5,
        metavar="W",
        help="of the latent's law [0.00001]",
    )
    group.add_argument(
        "--every", type=positive, default=500, metavar="N", help="steps between measurements [500]"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, or go on; returns the exit code."""
    # diffusers takes seconds to import, and --help needs nothing of it.
    from text2pde.autoencoder.run import Architecture, train_autoencoder

    architecture = Architecture(
        arguments.channels, arguments.latent, arguments.columns, arguments.rows
    )
    with named_endings(arguments.output, "take a smaller --batch-size or fewer --frames"):
        outcome = train_autoencoder(
            arguments.clips,
            arguments.held_out,
            arguments.output,
            architecture,
            training_config(arguments),
            frames=arguments.frames,
            kl_weight=arguments.kl_weight,
            every=arguments.every,
            most=arguments.cases,
        )
    if is_main_process():
        for name, errors in outcome.errors.items():
            print(f"{name}: {errors.overall:.3f} of all fields, {errors.across:.3f} across")
        print(f"{outcome.compression:.1f} numbers of a clip to one of its latent -> {outcome.path}")
    return 0
