"""The arguments that the commands share which draw flows by a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path

from samplers.cli.arguments import add_method_arguments
from samplers.cli.values import finite, whole

BUNDLED = Path("assets/cylinder")


def add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which sampler, and where."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=BUNDLED,
        metavar="FOLDER",
        help=f"of `text2pde train-diffusion` [{BUNDLED}]",
    )
    group = add_method_arguments(parser, 20)
    group.add_argument(
        "--guidance",
        type=finite,
        default=1.0,
        metavar="W",
        help="how strongly the sentence and its numbers lead away from what is drawn without; 1 is "
        "not at all [1]",
    )
    group.add_argument(
        "--text-encoder",
        metavar="NAME",
        help="where the encoder is that the model was trained with, if it has moved",
    )
    group = parser.add_argument_group("how to run")
    group.add_argument("--seed", type=whole, default=0, metavar="N", help="[0]")
    group.add_argument(
        "--device", default="auto", help="cpu, cuda or cuda:N [auto: the GPU, if there is one]"
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a flow goes."""
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="NAME.SUFFIX",
        help="vtu for ParaView, safetensors for a clip, gif or mp4 for a film, png for a strip",
    )
    parser.add_argument(
        "--animation", type=Path, metavar="NAME.SUFFIX", help="a second output, such as a film"
    )
