"""``text2pde train-diffusion``: a diffusion transformer over latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from click import Choice

from samplers.cli.common.errors import is_main_process
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.values import PATH, POSITIVE_NUMBER
from text2pde.cli.common import TrainingOptions, load_pipeline, training_failures

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


class DiffusionOptions(TrainingOptions, section="Data"):
    """A transformer, and what it is trained on."""

    latents: Path = argument("LATENTS", type=PATH, help="File of latents.")
    autoencoder: Path = option(type=PATH, help="Folder of the latents' autoencoder.", required=True)
    preset: str = option(
        type=Choice(_SIZES),
        help="Size of a new transformer: tiny trains on two CPU cores; small, medium and large are "
        "those of the paper.",
        default="tiny",
        section="Model",
        excludes=["--start"],
    )
    start: Path | None = option(
        type=PATH, help="Pipeline whose transformer is trained further.", section="Model"
    )
    text_encoder: str | None = option(
        help="Folder or hub name of the text encoder.",
        metavar="NAME",
        show_default="that of --start, or all-MiniLM-L6-v2 of the extra text",
        section="Model",
    )
    batch_size: int = changed(TrainingOptions, "batch_size", default=16)
    time_shift: float = option(
        type=POSITIVE_NUMBER,
        help="Above 1, train more at high noise levels, which decide the amplitude of velocity "
        "fluctuations.",
        default=1.0,
        section="Training",
    )


@command(_EXAMPLES)
def run(options: DiffusionOptions) -> None:
    """Train a diffusion transformer over latents.

    LATENTS is a file of `text2pde encode`. The result is a pipeline for `text2pde generate
    --checkpoint`. After an interruption the same command resumes.
    """
    from text2pde.training import train_diffusion

    with training_failures(options.output, "take a smaller --batch-size or --preset"):
        path = train_diffusion(
            options.latents,
            options.autoencoder,
            options.output,
            _initial(options),
            options.config(),
            encoder=options.text_encoder,
            time_shift=options.time_shift,
            overwrite=options.overwrite,
        )
    if is_main_process():
        print(f"a pipeline for `text2pde generate --checkpoint {path}`")


def _initial(options: DiffusionOptions) -> Size | Text2PDEPipeline:
    import torch

    from text2pde.diffusion.transformer import PRESETS

    if options.start is None:
        return PRESETS[options.preset]
    return load_pipeline(options.start, torch.device("cpu"))
