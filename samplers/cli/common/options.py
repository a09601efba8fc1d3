"""The groups of options that commands share: frozen dataclasses, see :mod:`.program`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click

from samplers.choices import SPACINGS, Final, Spacing
from samplers.cli.common.program import argument, option
from samplers.cli.common.values import (
    FINITE,
    IMAGE_COUNT,
    LABELS,
    PATH,
    POSITIVE,
    POSITIVE_NUMBER,
    SAMPLER,
    SEEDS,
    WHOLE,
)

DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """In which precision, and on which device."""

    section: ClassVar[str] = "Computation"

    dtype: str = option(
        "--dtype", type=click.Choice(DTYPES), default="float32", help="Precision of the network."
    )
    device: str = option(
        "--device",
        metavar="NAME",
        default="auto",
        help="cpu, cuda or cuda:N; auto is the first GPU, if there is one.",
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ComputeOptions):
    """A checkpoint of a model, and how it is loaded."""

    checkpoint: Path = argument("CHECKPOINT", type=PATH, help="Folder that diffusers saved.")
    null_label: int | None = option(
        "--null-label",
        type=WHOLE,
        help="Class that stands for 'no class'.",
        show_default="as the checkpoint says",
    )
    allow_pickle: bool = option(
        "--allow-pickle",
        is_flag=True,
        help="Read weights from a pickle where there are no safetensors (tensors only).",
    )


@dataclass(frozen=True, kw_only=True)
class ConditionOptions:
    """What a network of classes is conditioned on; without a label, on every class in turn."""

    section: ClassVar[str] = "Conditions"

    label: tuple[int, ...] | str | None = option(
        "--label",
        type=LABELS,
        help="Classes to condition on; several are taken in turn.",
        show_default="all in turn",
    )
    guidance: float | None = option(
        "--guidance",
        type=FINITE,
        metavar="W",
        help="Scale of classifier-free guidance; 1 is none, and costs half.",
        show_default="1, unless a pipeline has its own",
    )
    guidance_rescale: float = option(
        "--guidance-rescale",
        type=FINITE,
        metavar="R",
        default=0.0,
        help="Share of the guided prediction that is rescaled to the contrast of the unguided, "
        "0 to 1.",
    )


@dataclass(frozen=True, kw_only=True)
class NoClassOptions(ConditionOptions):
    """The same; without a label, on none, if the network knows a label for that."""

    label: tuple[int, ...] | str | None = option(
        "--label",
        type=LABELS,
        help="Classes to condition on; several are taken in turn.",
        show_default="no class, if the model knows one",
    )


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """The seed of each sample."""

    section: ClassVar[str] = "Seeds"

    seed: int = option(
        "--seed", type=WHOLE, default=0, excludes=["--seeds"], help="Seed of the first image."
    )
    seeds: tuple[int, ...] | None = option(
        "--seeds", type=SEEDS, help="A seed for each image: 0,1,2 or 0-15 or both."
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SeedOptions):
    """How many images are sampled, and with which seeds."""

    num_images: int | None = option("--num-images", type=IMAGE_COUNT, help="Images to sample.")

    def chosen(self, count: int) -> tuple[int, ...]:
        """The seed of each image; ``count`` is how many there are if nothing is given."""
        if self.seeds is None:
            return tuple(self.seed + i for i in range(self.num_images or count))
        if self.num_images not in (None, len(self.seeds)):
            raise ValueError(
                f"--num-images is {self.num_images}, but --seeds lists {len(self.seeds)}; give "
                "only one."
            )
        return self.seeds


@dataclass(frozen=True, kw_only=True)
class NoiseLevelOptions:
    """Where a grid or a flow begins and ends."""

    sigma_min: float | None = option(
        "--sigma-min",
        type=FINITE,
        metavar="S",
        help="Lowest positive noise level, in units of sigma/alpha.",
        show_default="the lowest that was trained",
    )
    sigma_max: float | None = option(
        "--sigma-max",
        type=FINITE,
        metavar="S",
        help="Highest noise level, in units of sigma/alpha.",
        show_default="the highest that was trained",
    )


@dataclass(frozen=True, kw_only=True)
class GridOptions(NoiseLevelOptions):
    """The time grid of a sampler of fixed steps."""

    section: ClassVar[str] = "Time grid"

    grid: Spacing | None = option(
        "--grid",
        type=click.Choice(SPACINGS),
        help="Spacing of the timesteps.",
        show_default="trailing for discrete timesteps and flow matching, else log-snr; a "
        "pipeline's own",
    )
    final: Final | None = option(
        "--final",
        type=click.Choice(("zero", "sigma_min")),
        help="Where the last step ends: at sigma = 0, or at the lowest positive noise level.",
        show_default="as the checkpoint says, else zero",
    )


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """What takes the place of the sampler that a checkpoint names."""

    section: ClassVar[str] = "Sampler"

    sampler: str | None = option(
        "--sampler", type=SAMPLER, help="See `samplers list`.", show_default="the checkpoint's own"
    )
    steps: int = option("--steps", type=POSITIVE, default=20, help="Steps of the sampler.")
    options: tuple[str, ...] = option(
        "--option",
        metavar="NAME=VALUE",
        multiple=True,
        help="Option of the sampler, such as eta=0.5; repeatable (`samplers show NAME` lists all).",
    )
    grid: Spacing | None = option(
        "--grid",
        type=click.Choice(SPACINGS),
        help="Spacing of the timesteps.",
        show_default="the checkpoint's own",
    )


@dataclass(frozen=True, kw_only=True)
class FlowOptions(NoiseLevelOptions):
    """How the probability-flow ODE is integrated."""

    section: ClassVar[str] = "Probability flow"

    tolerance: float = option(
        "--tolerance",
        type=POSITIVE_NUMBER,
        metavar="E",
        default=1e-4,
        help="Error that a step may make, relative and absolute.",
    )
    max_nfe: int = option(
        "--max-nfe", type=POSITIVE, default=2000, help="Most network evaluations of an image."
    )
    batch_size: int = option("--batch-size", type=POSITIVE, default=16, help="Images at once.")
