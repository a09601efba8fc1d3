"""``text2pde train-autoencoder``: an autoencoder of fields on meshes."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.common.errors import is_main_process
from samplers.cli.common.program import Options, argument, changed, command, option
from samplers.cli.common.values import NOT_NEGATIVE, PATH, POSITIVE
from text2pde.cli.common import TrainingOptions, training_failures

_EXAMPLES = """\
Examples:
  text2pde train-autoencoder data/cylinder --output runs/autoencoder
  accelerate launch -m text2pde train-autoencoder data/cylinder --output runs/autoencoder
"""


class ArchitectureOptions(Options, section="Model"):
    """The options of a new autoencoder."""

    channels: int = option("--channels", type=POSITIVE, default=24, help="At full resolution.")
    latent: int = option("--latent", type=POSITIVE, default=8, help="Channels of the latent.")
    columns: int | None = option(
        "--columns", type=POSITIVE, help="Of the latent grid.", show_default="64 for a channel"
    )
    rows: int | None = option(
        "--rows", type=POSITIVE, help="Of the latent grid.", show_default="16 for a channel"
    )


class AutoencoderTrainingOptions(TrainingOptions):
    """How long, how fast, and on what loss."""

    batch_size: int = changed(TrainingOptions, "batch_size", default=2)
    frames: int = option("--frames", type=POSITIVE, default=16, help="Of a training window.")
    kl_weight: float = option(
        "--kl-weight",
        type=NOT_NEGATIVE,
        metavar="W",
        default=1e-5,
        help="Weight of the KL divergence in the loss.",
    )
    every: int = option("--every", type=POSITIVE, default=500, help="Steps between evaluations.")


@command(_EXAMPLES)
def run(
    *,
    clips: Path = argument("CLIPS", type=PATH),
    output: Path = option("--output", type=PATH, required=True, help="Folder of the run."),
    held_out: Path | None = option(
        "--held-out", type=PATH, help="Folder of clips for evaluation (`simulate --held-out`)."
    ),
    cases: int | None = option(
        "--cases", type=POSITIVE, help="Train on the first N clips.", show_default="all"
    ),
    model: ArchitectureOptions,
    training: AutoencoderTrainingOptions,
) -> int:
    """Train an autoencoder of fields on meshes.

    CLIPS is a folder of `text2pde simulate`. After an interruption the same command resumes.
    """
    from text2pde.autoencoder.training import Architecture, AutoencoderData, train_autoencoder

    with training_failures(output, "take a smaller --batch-size or fewer --frames"):
        result = train_autoencoder(
            AutoencoderData(clips, held_out, cases, training.frames),
            output,
            Architecture(**vars(model)),
            training.config(),
            kl_weight=training.kl_weight,
            evaluate_every=training.every,
        )
    if is_main_process():
        for name, errors in result.errors.items():
            print(
                f"relative error on {name} clips: {errors.overall:.3f} of all fields, "
                f"{errors.transverse:.3f} of the transverse velocity"
            )
        print(f"compression by a factor of {result.compression:.1f} -> {result.path}")
    return 0
