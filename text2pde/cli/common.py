"""What several commands share: groups of options, and the steps of generation and training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samplers.cli.common.errors import Failure, named_failures
from samplers.cli.common.options import SchedulerOptions
from samplers.cli.common.output import check_places, prepare_folder
from samplers.cli.common.processes import join
from samplers.cli.common.program import Options, option
from samplers.cli.common.values import FINITE, PATH, POSITIVE, POSITIVE_NUMBER, WHOLE

if TYPE_CHECKING:
    import torch

    from samplers.training import TrainingConfig
    from text2pde.data.clip import Clip
    from text2pde.pipeline import Request, Text2PDEPipeline

BUNDLED = Path("assets/cylinder")
FORMATS = "vtu (for ParaView), safetensors (a clip), gif or mp4 (a film), png (a figure)"


def device_option() -> Any:
    """Where a command computes."""
    return option(
        "--device",
        section="Computation",
        metavar="NAME",
        default="auto",
        help="cpu, cuda or cuda:N; auto is the first GPU, if there is one.",
    )


# ----------------------------------------------------------------------------------- generation


class GenerationOptions(SchedulerOptions):
    """Which model, with which sampler, where."""

    guidance: float = option(
        "--guidance",
        type=FINITE,
        metavar="W",
        default=1.0,
        help="Scale of classifier-free guidance; 1 is none.",
    )
    seed: int = option("--seed", type=WHOLE, default=0, help="Seed of the initial noise.")
    checkpoint: Path = option(
        "--checkpoint",
        section="Model",
        type=PATH,
        default=BUNDLED,
        help="Folder of a pipeline, such as one of `text2pde train-diffusion`.",
    )
    text_encoder: str | None = option(
        "--text-encoder",
        section="Model",
        metavar="NAME",
        help="Folder or hub name of the text encoder that the model was trained with.",
        show_default="as the checkpoint says",
    )
    device: str = device_option()


class OutputOptions(Options, section="Output"):
    """The files of a clip."""

    output: Path = option(
        "--output", type=PATH, required=True, help=f"File, in the format of its suffix: {FORMATS}."
    )
    animation: Path | None = option("--animation", type=PATH, help="A second file, such as a film.")

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.output, self.animation) if path is not None]

    def check(self) -> None:
        """Raise ValueError unless a clip can be written to the files."""
        from text2pde.export import check_format

        for path in self.paths:
            check_format(path)
        check_places(self.paths)


def open_pipeline(options: GenerationOptions, device: torch.device) -> Text2PDEPipeline:
    """Load the pipeline, with the sampler of the options.

    Raises:
        Failure: if it can't be loaded.
    """
    from samplers.checkpoint import CheckpointError
    from samplers.cli.common.checkpoints import changed_scheduler
    from text2pde.pipeline import load_text2pde

    try:
        pipe = load_text2pde(options.checkpoint, device)
    except CheckpointError as error:
        hint = " Run this in a clone of the repository, or pass --checkpoint."
        raise Failure(f"{error}{hint if options.checkpoint == BUNDLED else ''}") from error
    if options.text_encoder is not None:
        pipe.register_to_config(text_encoder=options.text_encoder)
    pipe.scheduler = changed_scheduler(pipe.scheduler, options)
    return pipe


def generate_clips(
    pipe: Text2PDEPipeline,
    requests: Sequence[Request],
    seeds: Sequence[int],
    options: GenerationOptions,
) -> list[Clip]:
    """A clip for each request, with a bar of the network evaluations in a terminal."""
    import torch

    progress = sys.stderr.isatty()
    with torch.no_grad(), named_failures("take --device cpu"):
        return pipe.generate(requests, seeds, options.steps, options.guidance, progress=progress)


def generate_one(
    options: GenerationOptions,
    output: OutputOptions,
    source: dict[str, str],
    make_request: Callable[[Text2PDEPipeline], Request],
) -> int:
    """Generate one clip, write it, and print what it is; returns the exit code.

    Args:
        source: what was given, noted in the files.
    """
    from text2pde.export import export_clip

    output.check()
    processes = join(options.device)
    pipe = open_pipeline(options, processes.device)
    request = make_request(pipe)
    if not processes.main:
        return 0  # one process generates one clip
    for path in output.paths:
        prepare_folder(path.parent)
    started = time.perf_counter()
    (clip,) = generate_clips(pipe, [request], [options.seed], options)
    seconds = time.perf_counter() - started
    made_by = {**source, **_settings(pipe, options)}
    where = [str(export_clip(clip, path, made_by)) for path in output.paths]
    print(
        f"{clip.scene}: {len(clip.times)} frames over {clip.times[-1]:.3g} s on "
        f"{len(clip.mesh.nodes)} nodes, generated in {seconds:.1f} s"
    )
    print(*_measurements(clip, request), f"-> {', '.join(where)}", sep="\n")
    return 0


def _settings(pipe: Text2PDEPipeline, options: GenerationOptions) -> dict[str, str]:
    config = pipe.scheduler.config
    return {
        "checkpoint": str(options.checkpoint),
        "sampler": f"{config.sampler}, {config.sampler_options}, grid {config.grid}",
        "steps": str(options.steps),
        "guidance": str(options.guidance),
        "seed": str(options.seed),
    }


def _measurements(clip: Clip, request: Request) -> Iterator[str]:
    """What can be measured of a generated clip, in sentences."""
    from text2pde.data.statistics import STEADY, wake_statistics

    if clip.scene.scalar == "pressure":
        found = wake_statistics(clip)
        shedding = found.fluctuation > STEADY
        rate = f", vortex shedding at {found.frequency:.3g} Hz" if shedding else ""
        yield f"wake: transverse velocity fluctuation v' = {found.fluctuation:.3f} U (rms){rate}"
    if request.first is not None and len(request.first.times) > 1:
        yield _comparison(clip, request.first)


def _comparison(found: Clip, truth: Clip) -> str:
    """The error of a generated clip against the clip whose first frame it had."""
    import numpy as np

    from text2pde.data.statistics import relative_error

    count = min(len(found.times), len(truth.times))
    if count < 2:
        return "the clip has no later frame to compare with"
    ours, theirs = ((clip.times - clip.times[0])[:count] for clip in (found, truth))
    if np.abs(ours - theirs).max() > 0.1 * ours[1]:
        return "its frames are at other times than those of the clip, so they are not compared"
    real = truth.window(0, count)
    error = relative_error(found.fields[:count], real)
    still = relative_error(truth.fields[:1].repeat(count, axis=0), real)
    return (
        f"relative error over {count} frames: {error:.3f} (of the first frame, held constant: "
        f"{still:.3f})"
    )


# ------------------------------------------------------------------------------------- training


class TrainingOptions(Options, section="Training"):
    """How long and how fast."""

    steps: int = option("--steps", type=POSITIVE, default=4000, help="Updates of the weights.")
    batch_size: int = option("--batch-size", type=POSITIVE, default=1, help="Samples of an update.")
    learning_rate: float = option(
        "--learning-rate",
        type=POSITIVE_NUMBER,
        metavar="R",
        default=1e-3,
        help="Its peak; it warms up, and falls to zero as a cosine.",
    )
    seed: int = option("--seed", type=WHOLE, default=0, help="Seed of the run.")

    def config(self) -> TrainingConfig:
        from samplers.training import TrainingConfig

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
    import torch

    from samplers.training import CHECKPOINT

    try:
        yield
    except KeyboardInterrupt:
        exists = (output / CHECKPOINT).exists()
        where = "has the last checkpoint" if exists else "has no checkpoint yet"
        raise Failure(f"Interrupted. {output} {where}; the same command resumes.", 130) from None
    except ArithmeticError as error:
        raise Failure(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise Failure(f"The device ran out of memory; {remedy}.") from error
