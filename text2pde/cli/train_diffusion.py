"""``text2pde train-diffusion``: a diffusion transformer over latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from samplers.cli.common.errors import Failure, is_main_process
from samplers.cli.common.program import Options, argument, changed, command, option
from samplers.cli.common.values import PATH, POSITIVE_NUMBER
from text2pde.cli.common import TrainingOptions, training_failures

if TYPE_CHECKING:
    from text2pde.diffusion.transformer import Size
    from text2pde.pipeline import Text2PDEPipeline

_EXAMPLES = """\
Examples:
  text2pde train-diffusion runs/latents.safetensors --autoencoder runs/autoencoder/autoencoder \\
      --output runs/diffusion
  accelerate launch -m text2pde train-diffusion runs/latents.safetensors \\
      --autoencoder runs/autoencoder/autoencoder --preset small --output runs/diffusion
  text2pde train-diffusion runs/own.safetensors --autoencoder assets/cylinder/autoencoder \\
      --start assets/cylinder --learning-rate 3e-4 --output runs/further
"""
_SIZES = ("tiny", "base", "small", "medium", "large")


class TransformerOptions(Options, section="Model"):
    """The transformer before training, and what encodes its prompts."""

    preset: str = option(
        "--preset",
        type=click.Choice(_SIZES),
        default="tiny",
        excludes=["--start"],
        help="Size of a new transformer: tiny trains on two CPU cores; small, medium and large are "
        "those of the paper.",
    )
    start: Path | None = option(
        "--start", type=PATH, help="Pipeline whose transformer is trained further."
    )
    text_encoder: str | None = option(
        "--text-encoder",
        metavar="NAME",
        help="Folder or hub name.",
        show_default="that of --start, or all-MiniLM-L6-v2 of the extra text",
    )

    def initial(self) -> Size | Text2PDEPipeline:
        """The size of a new transformer, or the pipeline to start from."""
        import torch

        from samplers.checkpoint import CheckpointError
        from text2pde.diffusion.transformer import PRESETS
        from text2pde.pipeline import load_text2pde

        if self.start is None:
            return PRESETS[self.preset]
        try:
            return load_text2pde(self.start, torch.device("cpu"))
        except CheckpointError as error:
            raise Failure(str(error)) from error


class DiffusionTrainingOptions(TrainingOptions):
    """How long, how fast, and at which noise levels."""

    batch_size: int = changed(TrainingOptions, "batch_size", default=16)
    time_shift: float = option(
        "--time-shift",
        type=POSITIVE_NUMBER,
        metavar="S",
        default=1.0,
        help="Above 1, train more at high noise levels, which decide the amplitude of velocity "
        "fluctuations.",
    )


@command(_EXAMPLES)
def run(
    *,
    latents: Path = argument("LATENTS", type=PATH),
    autoencoder: Path = option(
        "--autoencoder", type=PATH, required=True, help="Folder of the latents' autoencoder."
    ),
    output: Path = option("--output", type=PATH, required=True, help="Folder of the run."),
    model: TransformerOptions,
    training: DiffusionTrainingOptions,
) -> int:
    """Train a diffusion transformer over latents.

    LATENTS is a file of `text2pde encode`. The result is a pipeline for `text2pde generate
    --checkpoint`. After an interruption the same command resumes.
    """
    from text2pde.training import train_diffusion

    with training_failures(output, "take a smaller --batch-size or --preset"):
        path = train_diffusion(
            latents,
            autoencoder,
            output,
            model.initial(),
            training.config(),
            encoder=model.text_encoder,
            time_shift=training.time_shift,
        )
    if is_main_process():
        print(f"a pipeline for `text2pde generate --checkpoint {path}`")
    return 0
