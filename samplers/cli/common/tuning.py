"""What the commands ``tune`` share: how a sampler is learned, and where it is written.

The sampler itself is learned by :mod:`samplers.tuning`; each command says on which samples.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from click import Choice

from samplers.choices import DistanceName
from samplers.cli.common.errors import (
    Failure,
    is_main_process,
    named_failures,
    printed_warnings,
    smaller_batches,
    writing,
)
from samplers.cli.common.options import OverwriteOptions
from samplers.cli.common.output import check_folder, held, refuse_existing
from samplers.cli.common.program import option
from samplers.cli.common.text import counted
from samplers.cli.common.values import (
    COUNTS,
    IMAGE_COUNT,
    PATH,
    POSITIVE,
    POSITIVE_NUMBER,
    UPDATES,
    WHOLE,
    Value,
    listed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from samplers.denoiser import Denoiser
    from samplers.tuning import Purpose, TunedSampler, TuningConfig


class TuningOptions(OverwriteOptions, section="Tuning"):
    """How samplers are learned, and where they go."""

    nfe: tuple[int, ...] = option(
        type=COUNTS,
        help="Numbers of network evaluations, from 2; a sampler for each.",
        required=True,
    )
    samples: int = option(type=IMAGE_COUNT, help="Samples to train on.", default=128)
    held_out: int = option(
        type=IMAGE_COUNT,
        help="Samples that are not trained on; they choose the result and measure it.",
        default=32,
    )
    seed: int = option(type=WHOLE, help="Seed of the first sample.", default=0)
    iterations: int = option(type=UPDATES, help="Updates of the sampler.", default=60)
    learn: tuple[str, ...] = option(
        type=Value("PART,PART,…", listed(str)),
        help="What is learned: noise levels (grid), the levels that the network is given (times), "
        "weights of its predictions (weights).",
        default="grid,times,weights",
    )
    memory: int | None = option(
        type=POSITIVE, help="Predictions that a step combines, at most.", show_default="all"
    )
    distance: DistanceName = option(
        type=Choice(get_args(DistanceName)),
        help="Between samples and converged ones: log of the relative errors, squared error (rms), "
        "or the mean of the first and the logarithm of the second.",
        default="balanced",
    )
    learning_rate: float = option(
        type=POSITIVE_NUMBER, help="Peak of the learning rate.", default=0.4
    )
    teacher_steps: int = option(type=POSITIVE, help="Steps of the converged samples.", default=60)
    batch_size: int = option(type=IMAGE_COUNT, help="Batch size.", default=16)
    licence: str = option(help="Licence of the files.", metavar="NAME", default="CC0-1.0")
    output: Path = option(
        type=PATH,
        help="Folder for the tuned samplers.",
        metavar="FOLDER",
        required=True,
        section="Output",
    )

    @property
    def count(self) -> int:
        """All samples, those that are held out included."""
        return self.samples + self.held_out

    @property
    def seeds(self) -> range:
        """The seed of each sample."""
        return range(self.seed, self.seed + self.count)

    def path(self, checkpoint: Path, nfe: int) -> Path:
        """The file of a sampler."""
        return self.output / f"{checkpoint.resolve().name}-{nfe}.json"

    def check_output(self, checkpoint: Path) -> None:
        """Raise what can be seen to be wrong with the output; makes nothing."""
        check_folder(self.output)
        if not self.overwrite:
            states = self.states(checkpoint)
            finished = (nfe for nfe, state in states.items() if not state.exists())
            refuse_existing(self.path(checkpoint, nfe) for nfe in finished)

    def run(self, checkpoint: Path) -> Path:
        """The folder of converged samples and states."""
        return self.output / "run" / checkpoint.resolve().name

    def states(self, checkpoint: Path) -> dict[int, Path]:
        """The file of the state of each run, which is there until all have ended."""
        return {nfe: self.run(checkpoint) / f"state-{nfe}.pt" for nfe in self.nfe}

    def config(self) -> TuningConfig:
        """The settings of the library; ValueError for impossible ones."""
        from samplers.tuning import TuningConfig, check_nfe

        check_nfe(self.nfe)
        return TuningConfig(
            learn=self.learn,  # type: ignore[arg-type]  # checked there
            memory=self.memory,
            distance=self.distance,
            held_out=self.held_out,
            iterations=self.iterations,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            teacher_steps=self.teacher_steps,
        )


class Subject(NamedTuple):
    """What samplers are tuned for: a model, initial noise [N, ...] with conditions, in words."""

    model: Denoiser
    noise: Tensor
    conditions: dict[str, Any]
    purpose: Purpose


def write_tuned(
    options: TuningOptions, config: TuningConfig, checkpoint: Path, subject: Subject
) -> None:
    """Learn the samplers of the options, write each, and print how well it does."""
    from samplers.tuning import tune_family

    with (
        held(options.output),
        named_failures(smaller_batches(options.batch_size)),
        printed_warnings(),
        _named_by_options(),
    ):
        found = tune_family(
            subject.model,
            subject.noise,
            options.nfe,
            conditions=subject.conditions,
            config=config,
            purpose=subject.purpose,
            folder=options.run(checkpoint),
            progress=sys.stderr.isatty() and is_main_process(),
        )
    if not is_main_process():
        return
    if not found:
        raise Failure("No sampler was better than the untuned ones; nothing was written.")
    for nfe, tuned in found.items():
        path = options.path(checkpoint, nfe)
        with writing(path):
            tuned.save(path)
        print(_report(tuned, path))
    for state in options.states(checkpoint).values():  # a run of other settings begins anew
        state.unlink()


@contextmanager
def _named_by_options() -> Iterator[None]:
    """A context in which an error that asks for another setting names its option."""
    try:
        yield
    except ValueError as error:
        if _MORE_STEPS not in str(error):
            raise
        text = str(error).replace(_MORE_STEPS, "more --teacher-steps")
        raise ValueError(text.replace(", or another teacher", "")) from error


_MORE_STEPS = "more teacher steps"


def _report(tuned: TunedSampler, path: Path) -> str:
    about = tuned.about
    before, after = about["before"], about["after"]
    return (
        f"{counted(tuned.nfe, 'network evaluation')}: relative error {after['geometric_mean']:.3g} "
        f"(root mean square {after['rms']:.3g}) on {about['held_out']} held-out samples; "
        f"{about['base']}: {before['geometric_mean']:.3g} ({before['rms']:.3g}) -> {path}"
    )
