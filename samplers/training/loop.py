"""The training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from samplers.training.config import TrainingConfig
from samplers.training.draws import batch_indices
from samplers.training.learner import Learner, Objective
from samplers.training.log import append_line, trim_log

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Samples(Protocol):
    """The interface of a data set: sample i is a function of i; augment it in the objective."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Every:
    """Call ``call(step, average)`` after each ``steps`` updates, on the main process.

    ``average`` is the model with averaged weights, in evaluation mode, for sample images or tests.
    It must not be changed.
    """

    steps: int
    call: Callable[[int, nn.Module], None]

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"A callback every {self.steps} steps; it must be at least 1.")


def train(
    model: nn.Module,
    samples: Samples,
    objective: Objective,
    config: TrainingConfig,
    folder: Path,
    penalty: Objective | None = None,
    callback: Every | None = None,
) -> nn.Module:
    """Train ``model`` with AdamW, or resume from the checkpoint in ``folder``.

    Each part of a batch reseeds PyTorch's global generator, which dropout uses.

    Args:
        model: the network, changed in place.
        samples: the data, collated to batches by PyTorch's default.
        objective: the loss.
        config: the settings.
        folder: receives ``checkpoint.pt``, and ``log.jsonl`` with a line ``{step, loss, penalty,
            learning_rate, grad_norm, samples_per_second}`` every ``log_every`` steps, means over
            these steps.
        penalty: a regulariser, added to the objective and logged separately.
        callback: called at regular steps, see :class:`Every`.

    Parameters that are not trained are not in the checkpoint, and shared by the model and its
    average.

    Returns:
        A copy of the model with averaged weights, in evaluation mode.

    Raises:
        ValueError: if the checkpoint has other settings, a batch can't be divided, or the package
            of the tracker is missing.
        FloatingPointError: if the loss or its gradient is not finite; the checkpoint is unchanged.
    """
    accelerator = _accelerator(config, folder)
    _check_processes(config, accelerator)
    config = dataclasses.replace(config, precision=accelerator.mixed_precision)
    learner = Learner(accelerator, model, objective, penalty, config)
    checkpoint, log = folder / CHECKPOINT, folder / LOG
    start = learner.load(checkpoint) if checkpoint.exists() else 0
    batches = _load_batches(samples, config, start, accelerator)
    main = accelerator.is_main_process
    if main:
        trim_log(log, start)
    progress = tqdm(range(start, config.steps), initial=start, total=config.steps, disable=not main)
    for step in progress:
        learner.update(step, batches)
        done = step + 1
        last = done == config.steps
        if last or done % config.log_every == 0:
            line = learner.measure(done)
            progress.set_postfix(loss=line["loss"])
            accelerator.log(line, step=done)
            if main:
                append_line(log, line)
        # Before the checkpoint: a call that was interrupted is repeated on resume.
        if callback is not None and main and done % callback.steps == 0:
            callback.call(done, learner.average)
        if last or done % config.checkpoint_every == 0:
            learner.save(checkpoint, done)
    for tracker in accelerator.trackers:
        tracker.finish()
    return learner.average


def _accelerator(config: TrainingConfig, folder: Path) -> Accelerator:
    _check_tracker(config.tracker)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulation,
        log_with=config.tracker,
        project_dir=folder,
    )
    if config.tracker is not None:
        accelerator.init_trackers(config.tracker)
    return accelerator


def _check_tracker(name: str | None) -> None:
    if name is None or name in map(str, get_available_trackers()):
        return
    if name not in LOGGER_TYPE_TO_CLASS:
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise ValueError(f"There is no tracker {name!r}; accelerate knows {known}.")
    raise ValueError(f"The tracker {name!r} needs a package of its name; pip install {name}.")


def _check_processes(config: TrainingConfig, accelerator: Accelerator) -> None:
    parts = accelerator.num_processes * config.accumulation
    if config.batch_size % parts:
        raise ValueError(
            f"A batch of {config.batch_size} can't be shared out over {accelerator.num_processes} "
            f"processes in {config.accumulation} parts each; make it a multiple of {parts}."
        )
    sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
    if accelerator.distributed_type in sharded:
        raise ValueError(
            f"accelerate is set up for {accelerator.distributed_type.value}, which splits a model "
            "over processes; this loop keeps it whole: configure plain data parallelism."
        )


def _load_batches(
    samples: Samples, config: TrainingConfig, start: int, accelerator: Accelerator
) -> Iterator[Any]:
    loader = DataLoader(
        cast(Dataset[Any], samples),
        batch_sampler=_Batches(config, len(samples), start, accelerator),
        num_workers=config.workers,
        # Without a generator of its own a loader uses the global one.
        generator=torch.Generator(),
    )
    return iter(loader)


class _Batches(Sampler[list[int]]):
    """The samples of one process for each part of a batch, from step ``start`` on."""

    def __init__(
        self, config: TrainingConfig, size: int, start: int, accelerator: Accelerator
    ) -> None:
        self.config, self.size, self.start = config, size, start
        self.process = accelerator.process_index
        self.parts = accelerator.num_processes * config.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        config = self.config
        length = config.batch_size // self.parts
        first = self.process * config.accumulation
        for step in range(self.start, config.steps):
            batch = batch_indices(config.seed, step, config.batch_size, self.size)
            for part in range(first, first + config.accumulation):
                yield batch[part * length : (part + 1) * length]
