"""``samplers tune``: samplers of few evaluations, learned for a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from click import Choice

from samplers.choices import DistanceName
from samplers.cli.common.errors import (
    Failure,
    named_failures,
    printed_warnings,
    smaller_batches,
    writing,
)
from samplers.cli.common.options import ConditionOptions, ModelOptions, OverwriteOptions
from samplers.cli.common.output import check_folder, prepare_folder, refuse_existing
from samplers.cli.common.program import command, option
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
    from samplers.checkpoint import NetworkCheckpoint
    from samplers.tuning import Purpose, TunedSampler, TuningConfig

RUN = "run"
"""The folder of converged samples and states, in that of the output."""

_EXAMPLES = """
Example:
  samplers tune assets/digits --nfe 5,8 --output tuned/
  samplers sample assets/digits --sampler tuned/digits-5.json --output digits.png

A command that was interrupted continues when it is repeated, to the same file.
"""


class TuneOptions(ConditionOptions, ModelOptions, OverwriteOptions, section="Tuning"):
    nfe: tuple[int, ...] = option(
        type=COUNTS,
        help="Numbers of network evaluations, from 2; a sampler for each.",
        required=True,
    )
    samples: int = option(type=IMAGE_COUNT, help="Samples to train on.", default=192)
    held_out: int = option(
        type=IMAGE_COUNT,
        help="Samples that are not trained on; they choose the result and measure it.",
        default=64,
    )
    seed: int = option(type=WHOLE, help="Seed of the first sample.", default=0)
    iterations: int = option(type=UPDATES, help="Updates of the sampler.", default=100)
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
    batch_size: int = option(type=IMAGE_COUNT, help="Batch size.", default=32)
    licence: str = option(help="Licence of the files.", metavar="NAME", default="CC0-1.0")
    output: Path = option(
        type=PATH, help="Folder for the tuned samplers.", metavar="FOLDER", required=True
    )

    def path(self, nfe: int) -> Path:
        return self.output / f"{self.checkpoint.resolve().name}-{nfe}.json"

    def check(self) -> None:
        """Raise what can be seen to be wrong without loading anything."""
        check_folder(self.output)
        if not self.overwrite:
            finished = (nfe for nfe in self.nfe if not self._state(nfe).exists())
            refuse_existing(map(self.path, finished))
        self.check_checkpoint()

    def _state(self, nfe: int) -> Path:
        return self.output / RUN / f"state-{nfe}.pt"


@command(_EXAMPLES, single_process=True)
def run(options: TuneOptions) -> None:
    """Learn samplers of few network evaluations for a checkpoint."""
    options.check()
    from samplers.cli.common.checkpoints import labels_in_turn, open_network, recipe_from
    from samplers.tuning import tune_family

    config = _config(options)
    checkpoint = open_network(options)
    recipe = checkpoint.settle(recipe_from(options))
    count = options.samples + options.held_out
    turn = labels_in_turn(options, checkpoint, count)
    labels = None if turn is None else [turn[i % len(turn)] for i in range(count)]
    seeds = range(options.seed, options.seed + count)
    guidance = 1.0 if recipe.guidance is None else recipe.guidance
    prepare_folder(options.output)
    with named_failures(smaller_batches(options.batch_size)), printed_warnings():
        found = tune_family(
            checkpoint.guided(recipe),
            checkpoint.start(checkpoint.settings.schedule.noisiest, seeds),
            options.nfe,
            conditions=checkpoint.conditions(labels),
            config=config,
            purpose=_purpose(options, checkpoint, guidance, turn),
            folder=options.output / RUN,
            progress=sys.stderr.isatty(),
        )
    if not found:
        raise Failure("No sampler was better than the untuned ones; nothing was written.")
    for nfe, tuned in found.items():
        with writing(options.path(nfe)):
            tuned.save(options.path(nfe))
        print(_report(tuned, options.path(nfe)))


def _config(options: TuneOptions) -> TuningConfig:
    from samplers.tuning import TuningConfig

    return TuningConfig(
        learn=options.learn,  # type: ignore[arg-type]  # checked there
        memory=options.memory,
        distance=options.distance,
        held_out=options.held_out,
        iterations=options.iterations,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        teacher_steps=options.teacher_steps,
    )


def _purpose(
    options: TuneOptions,
    checkpoint: NetworkCheckpoint,
    guidance: float,
    turn: tuple[int, ...] | None,
) -> Purpose:
    from samplers.tuning import Purpose

    classes = "none" if turn is None else f"classes {', '.join(map(str, turn))}"
    return Purpose(checkpoint.weights_hash, guidance, classes, options.licence)


def _report(tuned: TunedSampler, path: Path) -> str:
    about = tuned.about
    before, after = about["before"], about["after"]
    return (
        f"{counted(tuned.nfe, 'network evaluation')}: relative error {after['geometric_mean']:.3g} "
        f"(root mean square {after['rms']:.3g}) on {about['held_out']} held-out samples; "
        f"{about['base']}: {before['geometric_mean']:.3g} ({before['rms']:.3g}) -> {path}"
    )
