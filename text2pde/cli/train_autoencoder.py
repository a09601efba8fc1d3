"""``text2pde train-autoencoder``: an autoencoder of fields on meshes."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.errors import is_main_process
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.values import IMAGE_COUNT, NOT_NEGATIVE, PATH, POSITIVE, UPDATES
from text2pde.cli.common import TrainingOptions, training_failures

_EXAMPLES = """\
Examples:
  text2pde train-autoencoder data/cylinder --output runs/autoencoder
  accelerate launch -m text2pde train-autoencoder data/cylinder --output runs/autoencoder
"""


class AutoencoderOptions(TrainingOptions, section="Data"):
    """An autoencoder, and what it is trained on."""

    clips: Path = argument("CLIPS", type=PATH, help="Folder of training clips.")
    held_out: Path | None = option(type=PATH, help="Folder of clips for evaluation.")
    cases: int | None = option(
        type=IMAGE_COUNT, help="Train on the first N clips.", show_default="all"
    )
    channels: int = option(
        type=POSITIVE, help="Channels at full resolution.", default=24, section="Model"
    )
    latent: int = option(type=POSITIVE, help="Channels of the latent.", default=8, section="Model")
    columns: int | None = option(
        type=POSITIVE,
        help="Columns of the latent grid.",
        show_default="64 for a channel",
        section="Model",
    )
    rows: int | None = option(
        type=POSITIVE,
        help="Rows of the latent grid.",
        show_default="16 for a channel",
        section="Model",
    )
    batch_size: int = changed(TrainingOptions, "batch_size", default=2)
    frames: int = option(type=POSITIVE, help="Frames of a window.", default=16, section="Training")
    kl_weight: float = option(
        type=NOT_NEGATIVE,
        help="Weight of the KL divergence in the loss.",
        default=1e-5,
        section="Training",
    )
    every: int = option(
        type=UPDATES, help="Steps between evaluations.", default=500, section="Training"
    )


@command(_EXAMPLES)
def run(options: AutoencoderOptions) -> None:
    """Train an autoencoder of fields on meshes.

    CLIPS is a folder of `text2pde simulate`. After an interruption the same command resumes.
    """
    from text2pde.autoencoder.training import Architecture, AutoencoderData, train_autoencoder

    own = options
    with training_failures(own.output, "take a smaller --batch-size or fewer --frames"):
        result = train_autoencoder(
            AutoencoderData(own.clips, own.held_out, own.cases, own.frames),
            own.output,
            Architecture(own.channels, own.latent, own.columns, own.rows),
            own.config(),
            kl_weight=own.kl_weight,
            evaluate_every=own.every,
            overwrite=own.overwrite,
        )
    if is_main_process():
        for name, errors in result.errors.items():
            print(
                f"relative error on {name} clips: {errors.overall:.3f} of all fields, "
                f"{errors.transverse:.3f} of the transverse velocity"
            )
        print(f"compression by a factor of {result.compression:.1f} -> {result.path}")
