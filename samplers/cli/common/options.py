"""The groups of options that commands share, see :mod:`.program`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, get_args

from click import Choice

from samplers.checkpoint.index import check_samples
from samplers.choices import (
    CONFIG_SPACINGS,
    DEFAULT_SAMPLER,
    DEFAULT_SPACING,
    INVERSE_PROBLEM_SPACING,
    ConfigSpacing,
    Final,
    NoiseKind,
)
from samplers.cli.common.output import check_places, check_png
from samplers.cli.common.program import Options, argument, changed, option
from samplers.cli.common.values import (
    DEVICE,
    FINITE,
    GRID,
    IMAGE_COUNT,
    INTERVAL,
    LABELS,
    NOT_NEGATIVE,
    OUTPUT,
    PATH,
    POSITIVE,
    POSITIVE_NUMBER,
    SAMPLER,
    SEEDS,
    SPACING,
    UPDATES,
    WHOLE,
)

STEPS, TOLERANCE, MAX_NFE = 20, 0.01, 500
NUM_IMAGES = 16
INVERSE_SAMPLER, INVERSE_STEPS = "ancestral", 50
NUM_SAMPLES = 6
"""Images that are sampled for one measurement."""

ABOUT_SAMPLES = """\
Two numbers are printed, root mean squares over pixels from -1 to 1: the error of the measurement,
and the deviation of the samples from each other in what was not measured."""

DTYPES = ("float16", "bfloat16", "float32", "float64")
_SAMPLER = "Sampler, see `samplers list`; or the file of a tuned one, NAME.json."
_SPACING = (
    f"Spacing of the time grid: {', '.join(CONFIG_SPACINGS)}; config is what the checkpoint's "
    "scheduler says. Parameters follow a colon, as in karras:5 and beta:0.5,0.7."
)

_CARRIED = "the checkpoint's SamplerScheduler names one"

Labels = tuple[int, ...] | str | None


class ComputeOptions(Options, section="Computation"):
    """Precision and device."""

    dtype: str = option(type=Choice(DTYPES), help="Precision of the network.", default="float32")
    device: str = option(
        type=DEVICE, help="cpu, cuda or cuda:N; auto is the GPU, if any.", default="auto"
    )


class ModelOptions(ComputeOptions, section="Computation"):
    """A checkpoint with a model, and how it is loaded."""

    checkpoint: Path = argument("CHECKPOINT", type=PATH, help="Folder that diffusers saved.")
    null_label: int | None = option(
        type=WHOLE,
        help="Null label of guidance, which stands for 'no class'.",
        show_default="as the checkpoint says",
    )
    allow_pickle: bool = option(
        is_flag=True,
        help="Read weights from a pickle where there are no safetensors (tensors only).",
    )

    def check_checkpoint(self) -> None:
        """Raise CheckpointError unless there is a checkpoint that can be sampled; loads nothing."""
        check_samples(self.checkpoint)


class ConditionOptions(Options, section="Conditions"):
    """What the model is conditioned on; without a label, on every class in turn."""

    every_class: ClassVar[bool] = True

    label: Labels = option(
        type=LABELS, help="Classes; several are taken in turn.", show_default="all in turn"
    )
    guidance: float | None = option(
        type=FINITE,
        help="Scale of classifier-free guidance; 1 means none, at half the cost.",
        metavar="W",
        show_default="1, unless a pipeline has its own",
    )
    guidance_rescale: float | None = option(
        type=FINITE,
        help="Share of the guided prediction that is rescaled to the standard deviation of the "
        "conditional one, 0 to 1.",
        metavar="R",
        default=0.0,
    )
    guidance_interval: tuple[float, float] | None = option(
        type=INTERVAL,
        help="Noise levels between which there is guidance, in units of sigma/alpha; outside, the "
        "network is evaluated once instead of twice.",
        show_default="all",
    )


class NoClassOptions(ConditionOptions):
    """The same; without a label, on none, if the model has a label for 'no class'."""

    every_class: ClassVar[bool] = False

    label: Labels = changed(
        ConditionOptions, "label", show_default="the null label, if the model has one"
    )


class PromptOptions(Options, section="Conditions"):
    """The prompt of a pipeline with a text encoder."""

    prompt: str | None = option(help="Prompt, for a model with a text encoder.", metavar="TEXT")
    negative_prompt: str | None = option(
        help="Negative prompt of classifier-free guidance.", metavar="TEXT"
    )


class SeedOptions(Options, section="Seeds"):
    """The seeds of the noise."""

    seed: int = option(type=WHOLE, help="Seed of the first image.", default=0)
    seeds: tuple[int, ...] | None = option(
        type=SEEDS, help="A seed for each image: 0,1,2 or 0-15 or both.", excludes=["--seed"]
    )


class ImageOptions(SeedOptions, section="Seeds"):
    """How many images are sampled, and with which seeds."""

    num_images: int | None = option(
        type=IMAGE_COUNT, help="Images to sample.", show_default="as --seeds"
    )

    def chosen_seeds(self, count: int) -> tuple[int, ...]:
        """The seed of each image; ``count`` is how many there are if nothing is given."""
        if self.seeds is None:
            return tuple(self.seed + i for i in range(self.num_images or count))
        if self.num_images not in (None, len(self.seeds)):
            raise ValueError(
                f"--num-images is {self.num_images}, but --seeds lists {len(self.seeds)}; give "
                "only one."
            )
        return self.seeds


class NoiseLevelOptions(Options, section="Noise levels"):
    """Between which noise levels a sampler runs."""

    sigma_min: float | None = option(
        type=FINITE,
        help="Lowest positive noise level, in units of sigma/alpha.",
        metavar="S",
        show_default="the lowest in training",
    )
    sigma_max: float | None = option(
        type=FINITE,
        help="Highest noise level, in units of sigma/alpha.",
        metavar="S",
        show_default="the highest in training",
    )


class GridOptions(NoiseLevelOptions, section="Noise levels"):
    """The time grid of a sampler of fixed steps."""

    grid: str | None = option(
        type=GRID,
        help=f"{_SPACING} Or the file of a fitted grid, NAME.json.",
        show_default=f"{DEFAULT_SPACING}, unless {_CARRIED}; config for flow matching, distilled "
        "networks, and schedulers with Karras, exponential or Lu levels",
    )
    final: Final | None = option(
        type=Choice(get_args(Final)),
        help="Where the last step ends: at sigma = 0, or at the lowest positive noise level.",
        show_default="as the checkpoint says, else zero",
    )


class SchedulerOptions(Options, section="Sampler"):
    """What takes the place of the sampler in a checkpoint's scheduler."""

    sampler: str | None = option(type=SAMPLER, help=_SAMPLER, show_default="the checkpoint's own")
    steps: int | None = option(
        type=POSITIVE, help="Number of steps.", show_default=f"{STEPS}; those of a tuned sampler"
    )
    options: tuple[str, ...] = option(
        "--option",
        help="Option of the sampler, such as eta=0.5; repeatable (see `samplers show NAME`).",
        metavar="NAME=VALUE",
        multiple=True,
    )
    grid: ConfigSpacing | None = option(
        type=SPACING,
        help=_SPACING,
        show_default="the checkpoint's own",
    )


class SamplerOptions(
    ConditionOptions, PromptOptions, ImageOptions, GridOptions, ModelOptions, section="Sampler"
):
    """A model, and how it is sampled with fixed steps or adaptive step sizes."""

    sampler: str | None = option(
        type=SAMPLER,
        help=_SAMPLER,
        show_default=f"{DEFAULT_SAMPLER}, unless {_CARRIED}; of a distilled network its own",
    )
    steps: int | None = option(
        type=POSITIVE,
        help="Number of steps.",
        show_default=f"{STEPS}; those of a tuned sampler or a fitted grid",
    )
    options: tuple[str, ...] = changed(SchedulerOptions, "options")
    noise: NoiseKind | None = option(
        type=Choice(get_args(NoiseKind)),
        help="Of stochastic samplers: independent in each step, or along a Brownian path, on which "
        "more steps converge to one image for each seed.",
        show_default="independent",
    )
    tolerance: float | None = option(
        type=POSITIVE_NUMBER,
        help="Of adaptive methods, in place of --steps: tolerance of the error of a step, relative "
        "and absolute.",
        show_default=f"{TOLERANCE:g}",
    )
    max_nfe: int | None = option(
        type=UPDATES,
        help="Of adaptive methods: maximum number of network evaluations of an image.",
        show_default=f"{MAX_NFE}",
    )
    num_images: int | None = changed(
        ImageOptions, "num_images", show_default=f"{NUM_IMAGES}, or as --seeds"
    )
    batch_size: int = option(
        type=IMAGE_COUNT,
        help="Batch size; it changes the images of samplers NAME+langevin only.",
        default=16,
    )


class FlowOptions(NoClassOptions, NoiseLevelOptions, ModelOptions, section="Probability flow"):
    """A network, and how its probability-flow ODE is integrated."""

    tolerance: float = option(
        type=POSITIVE_NUMBER,
        help="Tolerance of the error of a step, relative and absolute.",
        default=1e-4,
    )
    max_nfe: int = option(
        type=UPDATES, help="Maximum number of network evaluations of an image.", default=2000
    )
    batch_size: int = option(type=IMAGE_COUNT, help="Batch size.", default=16)


class OverwriteOptions(Options, section="Output"):
    """Whether a command may replace what exists."""

    overwrite: bool = option(is_flag=True, help="Replace files that exist.")


REPLACE_RUN = "Replace another run in the output folder, and other files in the way."
"""Help of ``--overwrite`` where the output is the folder of a run."""


class TemperatureOptions(Options, section="Output"):
    """What is done to latent codes before they are decoded."""

    temperature: float = option(
        type=NOT_NEGATIVE,
        help="Variance that the codes are scaled to; below 1, images get more typical.",
        default=1.0,
    )


class InverseProblemOptions(
    NoClassOptions, ImageOptions, GridOptions, ModelOptions, OverwriteOptions, section="Method"
):
    """How images are sampled that satisfy a measurement."""

    method: Literal["guidance", "replacement"] = option(
        type=Choice(("guidance", "replacement")),
        help="guidance: by the gradient of the measurement's likelihood; replacement: the measured "
        "part is replaced before every step, which costs less and satisfies the measurement "
        "exactly, but the image is less consistent.",
        default="guidance",
    )
    visits: int | None = option(
        type=POSITIVE,
        help="Of replacement: how often each step is taken, which improves consistency and "
        "multiplies the cost.",
        show_default="1",
    )
    noise_std: float = option(
        type=NOT_NEGATIVE,
        help="Standard deviation of the noise in the measurement, for pixels from -1 to 1.",
        default=0.0,
    )
    sampler: str | None = option(
        type=SAMPLER, help=_SAMPLER, show_default=f"{INVERSE_SAMPLER}, unless {_CARRIED}"
    )
    steps: int | None = option(
        type=POSITIVE,
        help="Number of steps.",
        show_default=f"{INVERSE_STEPS}; those of a tuned sampler",
    )
    options: tuple[str, ...] = changed(SchedulerOptions, "options")
    batch_size: int = option(type=IMAGE_COUNT, help="Batch size.", default=16)
    grid: str | None = changed(
        GridOptions, "grid", show_default=f"{INVERSE_PROBLEM_SPACING}, unless {_CARRIED}"
    )
    num_images: int | None = changed(
        ImageOptions, "num_images", show_default=f"{NUM_SAMPLES}, or as --seeds"
    )
    output: Path = option(
        type=OUTPUT,
        help="Figure to write.",
        metavar="NAME.png",
        required=True,
        section="Output",
    )

    def check(self, given: Sequence[Path]) -> None:
        """Raise what can be seen to be wrong without loading anything; ``given`` are read."""
        check_png(self.output, "the result")
        check_places([self.output], given)
        if self.method != "replacement" and self.visits is not None:
            raise ValueError(
                "--visits is for --method replacement; guidance takes every step once."
            )
        self.check_checkpoint()
