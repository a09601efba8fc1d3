"""What several commands share: groups of options, and the steps of generation and training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from samplers.cli.common.errors import Failure, evaluating
from samplers.cli.common.options import REPLACE_RUN, OverwriteOptions, SchedulerOptions
from samplers.cli.common.output import check_places, held, prepare_folder, refuse_existing
from samplers.cli.common.processes import find_device
from samplers.cli.common.program import Options, changed, option
from samplers.cli.common.values import (
    DEVICE,
    FINITE,
    IMAGE_COUNT,
    OUTPUT,
    PATH,
    POSITIVE_NUMBER,
    UPDATES,
    WHOLE,
)
from samplers.errors import is_of_memory

if TYPE_CHECKING:
    import torch

    from samplers import TrainingConfig
    from text2pde.data.clip import Clip
    from text2pde.pipeline import Request, Text2PDEPipeline

BUNDLED = Path("assets/cylinder")
FORMATS = """\
File, in the format of its suffix: vtu (for ParaView), safetensors (a clip), gif or mp4 (a film),
png (a figure)."""


class DeviceOptions(Options, section="Computation"):
    """Where a command computes."""

    device: str = option(
        type=DEVICE, help="cpu, cuda or cuda:N; auto is the GPU, if any.", default="auto"
    )


# ----------------------------------------------------------------------------------- generation


class PipelineOptions(DeviceOptions, section="Model"):
    """Which model, with which guidance."""

    guidance: float = option(
        type=FINITE,
        help="Scale of classifier-free guidance; 1 is none.",
        metavar="W",
        default=1.0,
        section="Sampler",
    )
    checkpoint: Path = option(type=PATH, help="Folder of a pipeline of text2pde.", default=BUNDLED)
    text_encoder: str | None = option(
        help="Folder or hub name of the text encoder that the model was trained with.",
        metavar="NAME",
        show_default="as the checkpoint says",
    )


class GenerationOptions(SchedulerOptions, PipelineOptions, section="Sampler"):
    """Which model, with which sampler."""

    seed: int = option(type=WHOLE, help="Seed of the initial noise.", default=0)


class OutputOptions(OverwriteOptions, section="Output"):
    """The files of a clip."""

    output: Path = option(type=OUTPUT, help=FORMATS, required=True)
    animation: Path | None = option(type=OUTPUT, help="A second file, such as a film.")

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.output, self.animation) if path is not None]


def check_clip_output(path: Path, overwrite: bool) -> None:
    """Raise ValueError unless a clip can be written there, and replaces nothing unasked."""
    from text2pde.export import check_format, existing_files

    check_format(path)
    if not overwrite:
        refuse_existing(existing_files(path))


class OneClipOptions(OutputOptions, GenerationOptions):
    """What :func:`generate_one` needs."""


def load_pipeline(folder: Path, device: torch.device) -> Text2PDEPipeline:
    """A pipeline.

    Raises:
        Failure: if it can't be loaded.
    """
    from samplers import CheckpointError
    from text2pde.pipeline import load_text2pde

    try:
        return load_text2pde(folder, device)
    except CheckpointError as error:
        hint = " Run this in a clone of the repository, or pass --checkpoint."
        raise Failure(f"{error}{hint if folder == BUNDLED else ''}") from error


def open_own(options: PipelineOptions, device: torch.device | None = None) -> Text2PDEPipeline:
    """The pipeline of the options, with its own sampler, on their device if none is given.

    Raises:
        Failure: if it can't be loaded.
    """
    pipe = load_pipeline(options.checkpoint, device or find_device(options.device))
    if options.text_encoder is not None:
        pipe.use_text_encoder(options.text_encoder)
    return pipe


def open_pipeline(options: GenerationOptions) -> Text2PDEPipeline:
    """The same with the sampler of the options."""
    from samplers.cli.common.checkpoints import changed_scheduler
    from samplers.cli.common.tuned import check_purpose

    pipe = open_own(options)
    pipe.scheduler = changed_scheduler(pipe.scheduler, options)
    pipe.grid(options.steps)  # raises what is impossible
    check_purpose(pipe.scheduler.config, options.checkpoint, options.guidance)
    return pipe


def generate_clips(
    pipe: Text2PDEPipeline,
    requests: Sequence[Request],
    seeds: Sequence[int],
    options: GenerationOptions,
) -> list[Clip]:
    """A clip for each request, with a bar of the network evaluations in a terminal."""
    progress = sys.stderr.isatty()
    with evaluating("take --device cpu"):
        return pipe.generate(requests, seeds, options.steps, options.guidance, progress=progress)


def generate_one(
    options: OneClipOptions,
    source: dict[str, str],
    make_request: Callable[[Text2PDEPipeline], Request],
) -> Clip:
    """Generate one clip, write it, and print what it is.

    Args:
        source: what was given, noted in the files.
    """
    from text2pde.export import export_clip

    for path in options.paths:
        check_clip_output(path, options.overwrite)
    check_places(options.paths)
    pipe = open_pipeline(options)
    request = make_request(pipe)
    for path in options.paths:
        prepare_folder(path.parent)
    started = time.perf_counter()
    (clip,) = generate_clips(pipe, [request], [options.seed], options)
    seconds = time.perf_counter() - started
    made_by = {**source, **_settings(pipe, options)}
    where = [str(export_clip(clip, path, made_by)) for path in options.paths]
    print(
        f"{clip.scene}: {len(clip.times)} frames over {clip.times[-1]:.3g} s on "
        f"{len(clip.mesh.nodes)} nodes, generated in {seconds:.1f} s -> {', '.join(where)}"
    )
    if pipe.config.subject == "cylinder":
        print(_wake(clip))
    return clip


def _settings(pipe: Text2PDEPipeline, options: GenerationOptions) -> dict[str, str]:
    return {
        "checkpoint": str(options.checkpoint),
        "sampler": _sampler_words(pipe, options),
        "steps": str(pipe.steps(options.steps)),
        "guidance": str(options.guidance),
        "seed": str(options.seed),
    }


def _sampler_words(pipe: Text2PDEPipeline, options: GenerationOptions) -> str:
    from samplers.cli.common.tuned import noted

    config = pipe.scheduler.config
    found = noted(config, options.sampler)
    if "tuned_sha256" in found:
        return f"{found['sampler']}, SHA-256 {found['tuned_sha256']}"
    return f"{config.sampler}, {config.sampler_options}, grid {config.grid}"


def _wake(clip: Clip) -> str:
    from text2pde.data.statistics import STEADY, wake_statistics

    found = wake_statistics(clip)
    shedding = f", vortex shedding at {found.frequency:.3g} Hz"
    return (
        f"wake: transverse velocity fluctuation v' = {found.fluctuation:.3f} U (rms)"
        f"{shedding if found.fluctuation > STEADY else ''}"
    )


# ------------------------------------------------------------------------------------- training


class TrainingOptions(OverwriteOptions, section="Training"):
    """How long and how fast, into which folder."""

    output: Path = option(type=PATH, help="Folder of the run.", required=True, section="Output")
    overwrite: bool = changed(OverwriteOptions, "overwrite", help=REPLACE_RUN)
    steps: int = option(type=UPDATES, help="Updates of the weights.", default=4000)
    batch_size: int = option(type=IMAGE_COUNT, help="Samples of an update.", default=1)
    learning_rate: float = option(
        type=POSITIVE_NUMBER,
        help="Peak of the learning rate, which warms up and falls to zero as a cosine.",
        default=1e-3,
    )
    seed: int = option(type=WHOLE, help="Seed of the run.", default=0)

    def config(self) -> TrainingConfig:
        from samplers import TrainingConfig

        return TrainingConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup=min(100, self.steps // 10),
            average_decay=0.999,
            seed=self.seed,
            log_every=10,
            checkpoint_every=100,
        )


@contextmanager
def training_failures(output: Path, remedy: str) -> Iterator[None]:
    """Around a training: what stops it leaves as a Failure.

    Args:
        remedy: what to do if the device's memory is too small.
    """
    from samplers.training import CHECKPOINT

    try:
        with held(output):
            yield
    except KeyboardInterrupt:
        exists = (output / CHECKPOINT).exists()
        where = "has the last checkpoint" if exists else "has no checkpoint yet"
        raise Failure(f"Interrupted. {output} {where}; the same command resumes.", 130) from None
    except ArithmeticError as error:
        raise Failure(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        raise Failure(f"The device ran out of memory; {remedy}.") from error
