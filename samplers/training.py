r"""Layer 6. The one training loop: denoisers, classifiers and autoencoders are trained by it alike.

A run is a pure function of its settings. The order of the data, the noise, the times, the dropout,
the learning rate and the decay of the average at a step follow from ``(seed, step)``, so the state
of a run is its step, its weights, their average and the moments of its optimiser: one file,
replaced in one rename. A run killed at any moment goes on from that file, bit for bit as if it had
never stopped (with as many processes, on the same kind of machine, where its kernels are
deterministic).

What is learned is an :data:`Objective`; :mod:`samplers.denoising` has that of a diffusion model.
Processes, devices and mixed precision are the business of ``accelerate``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedType, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from samplers.files import replacing

Objective = Callable[[nn.Module, Any, torch.Generator], Tensor]
"""``objective(model, batch, generator) -> scalar``; all that it draws, it draws from the generator,
which lives on the CPU, so that the draws are the same on every device."""

Precision = Literal["no", "fp16", "bf16"]

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


# -------------------------------------------------------------------------------- the settings


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; together with model, data and objective it determines every weight.

    Attributes:
        steps: updates of the weights.
        batch_size: samples of one update, over all processes and accumulated parts.
        learning_rate: the peak, reached after ``warmup`` steps; a cosine falls from there to zero.
        weight_decay: of AdamW.
        betas: decay rates of AdamW's two moments.
        gradient_clip: longest gradient; ``math.inf`` to leave it as it is.
        average_decay: decay of the moving average of the weights, see :func:`average_decay`.
        accumulation: parts in which a process takes its share of a batch.
        precision: of the network's arithmetic; None for what ``accelerate launch`` was told.
        workers: processes that load data.
        seed: of everything that is drawn.
        log_every: steps between two lines of the log.
        checkpoint_every: steps between two checkpoints, a multiple of ``log_every``.
        tracker: one of accelerate's trackers that gets the log as well, such as ``tensorboard``.

    Raises:
        ValueError: if a setting is out of its range.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float = 1.0
    average_decay: float = 0.999
    accumulation: int = 1
    precision: Precision | None = None
    workers: int = 0
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    tracker: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "log_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("weight_decay", "workers", "seed"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "zero or positive")
        for name in ("learning_rate", "gradient_clip"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")
        _require(0 <= self.average_decay < 1, "average_decay", self.average_decay, "in [0, 1)")
        _require(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        _require(
            0 <= self.warmup < self.steps, "warmup", self.warmup, f"less than {self.steps} steps"
        )
        _require(
            self.checkpoint_every % self.log_every == 0,
            "checkpoint_every",
            self.checkpoint_every,
            f"a multiple of log_every, {self.log_every}",
        )
        _require(
            self.precision in (None, "no", "fp16", "bf16"),
            "precision",
            self.precision,
            "None, 'no', 'fp16' or 'bf16'",
        )


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"The training setting {name} is {value!r}; it must be {allowed}.")


# Settings that say what is written how often, or how data is loaded: free to change on resume.
_FREE = frozenset({"log_every", "checkpoint_every", "workers", "tracker"})


def learning_rate(config: TrainingConfig, step: int) -> float:
    r"""The learning rate of update ``step`` (from 0): a linear warmup to the peak, then a cosine.

    ``peak (k + 1) / w`` for k < w, then ``peak (1 + cos(pi (k - w) / (n - w))) / 2``.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / (config.steps - config.warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def average_decay(config: TrainingConfig, step: int) -> float:
    """The decay d_k of ``average <- d_k average + (1 - d_k) weights`` after update ``step``.

    ``min(decay, (1 + k) / (10 + k))``: early on the average looks back over a tenth of the run,
    so that it forgets the initial weights.
    """
    return min(config.average_decay, (1 + step) / (10 + step))


# ------------------------------------------------------------------------------- what is drawn


def derived_seed(seed: int, *position: int) -> int:
    """A seed of 64 bits for one of many streams that have nothing to do with each other."""
    return int(np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0])


def seeded(seed: int, *position: int) -> torch.Generator:
    """A generator on the CPU whose stream is a function of the seed and a position alone."""
    return torch.Generator().manual_seed(derived_seed(seed, *position))


# First word of a position: which kind of draw it is.
_ORDER, _OBJECTIVE, _PENALTY, _DROPOUT = range(4)


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> list[int]:
    """The samples of batch ``step``: consecutive in an endless sequence of shuffled epochs."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_epoch(seed, p // size, size)[p % size] for p in positions]


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, size: int) -> list[int]:
    order: list[int] = torch.randperm(size, generator=seeded(seed, _ORDER, epoch)).tolist()
    return order


class _Batches(Sampler[list[int]]):
    """The samples of each part of a batch that falls to one process, from step ``start`` on."""

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


# ------------------------------------------------------------------------------------- the loop


class Samples(Protocol):
    """A data set: sample i is a function of i alone, random changes belong in the objective."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Every:
    """Call ``call(step, average)`` after each ``steps`` updates, on the main process.

    ``average`` is the model with averaged weights, in evaluation mode: to draw sample pictures
    from, or to test. It must not be changed.
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
    """Train ``model`` with AdamW, or go on from the checkpoint in ``folder``.

    Each part of a batch reseeds PyTorch's global generator, from which dropout draws.

    Args:
        model: the network, changed in place.
        samples: the data, collated to batches by PyTorch's default.
        objective: what is minimised.
        config: how.
        folder: receives ``checkpoint.pt``, and ``log.jsonl`` with a line ``{step, loss, penalty,
            learning_rate, grad_norm, samples_per_second}`` every ``log_every`` steps, means over
            these steps.
        penalty: a regulariser, added to the objective and logged on its own.
        callback: called every so many steps.

    What the model does not train is in no checkpoint, and shared by the model and its average.

    Returns:
        A copy of the model with averaged weights, in evaluation mode.

    Raises:
        ValueError: if the checkpoint belongs to other settings, a batch can't be shared out, or
            the tracker's package is missing.
        FloatingPointError: if the loss or its gradient is not finite; the checkpoint is as it was.
    """
    accelerator = _accelerator(config, folder)
    _check_processes(config, accelerator)
    config = dataclasses.replace(config, precision=accelerator.mixed_precision)
    learner = _Learner(accelerator, model, objective, penalty, config)
    checkpoint, log = folder / CHECKPOINT, folder / LOG
    start = learner.load(checkpoint) if checkpoint.exists() else 0
    batches = _load_batches(samples, config, start, accelerator)
    main = accelerator.is_main_process
    if main:
        _trim_log(log, start)
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
                _append(log, line)
        # Before the checkpoint: a call that a kill cut short is made again.
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
        # Without its own generator a loader draws a number from the global one.
        generator=torch.Generator(),
    )
    return iter(loader)


class _Learner:
    """What changes during a run: the weights, their average and the optimiser."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        objective: Objective,
        penalty: Objective | None,
        config: TrainingConfig,
    ) -> None:
        self.accelerator, self.config = accelerator, config
        self.objective, self.penalty = objective, penalty
        self.bare = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.average = _copied(model).to(accelerator.device)
        optimizer = torch.optim.AdamW(
            self.trained, config.learning_rate, config.betas, weight_decay=config.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(model.train(), optimizer)
        self.measured: list[Tensor] = []
        self.since = time.perf_counter()

    def update(self, step: int, batches: Iterator[Any]) -> None:
        """One update of the weights and of their average."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        for part in range(self.config.accumulation):
            batch = send_to_device(next(batches), self.accelerator.device)
            position = (step, self.accelerator.process_index, part)
            self.measured.append(self._learn(batch, position))
        update_average(self.average, self.bare, average_decay(self.config, step))

    def _learn(self, batch: Any, position: tuple[int, int, int]) -> Tensor:
        """Learn from one part of a batch: loss, penalty, length of the gradient (last part)."""
        seed = self.config.seed
        torch.manual_seed(derived_seed(seed, _DROPOUT, *position))
        with self.accelerator.accumulate(self.model):
            loss = self.objective(self.model, batch, seeded(seed, _OBJECTIVE, *position))
            extra = norm = torch.zeros_like(loss)
            if self.penalty is not None:
                extra = self.penalty(self.model, batch, seeded(seed, _PENALTY, *position))
            self.accelerator.backward(loss + extra)
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.trained, self.config.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return torch.stack([loss.detach(), extra.detach(), norm.to(loss)])

    def measure(self, done: int) -> dict[str, float]:
        """The line of the log after ``done`` updates: means since the line before."""
        updates = len(self.measured) // self.config.accumulation
        total = self.accelerator.reduce(torch.stack(self.measured).sum(dim=0), reduction="mean")
        loss, extra, norm = (total / updates).tolist()
        loss, extra = loss / self.config.accumulation, extra / self.config.accumulation
        self._check_finite(loss + extra, norm, done)
        seconds = time.perf_counter() - self.since
        self.measured, self.since = [], time.perf_counter()
        return {
            "step": done,
            "loss": loss,
            "penalty": extra,
            "learning_rate": learning_rate(self.config, done - 1),
            "grad_norm": norm,
            "samples_per_second": updates * self.config.batch_size / seconds,
        }

    def _check_finite(self, loss: float, norm: float, done: int) -> None:
        # In float16 a gradient may overflow: the loss scaler then skips the update.
        if math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None):
            return
        raise FloatingPointError(
            f"At step {done} the loss is {loss} and the length of its gradient {norm}; the last "
            "checkpoint is kept. Lower the learning rate, and start in a new folder."
        )

    def save(self, path: Path, done: int) -> None:
        """Write the checkpoint in one rename; returns when it is there for all processes."""
        if self.accelerator.is_main_process:
            state = {
                "step": done,
                "config": dataclasses.asdict(self.config),
                "model": trained_state(self.bare),
                "average": _like(self.average.state_dict(), trained_state(self.bare)),
                "optimizer": self.optimizer.state_dict(),
                "scaler": _scaler_state(self.accelerator),
            }
            with replacing(path) as part:
                torch.save(state, part)
        self.accelerator.wait_for_everyone()

    def load(self, path: Path) -> int:
        """Take up the state of a checkpoint; returns the updates done."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_same(state["config"], dataclasses.asdict(self.config), path)
        self.bare.load_state_dict({**self.bare.state_dict(), **state["model"]})
        self.average.load_state_dict({**self.average.state_dict(), **state["average"]})
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return int(state["step"])


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model but for the parameters that are not trained."""
    fixed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in fixed}


def _like(state: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in other}


def _copied(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, not to be trained, that shares what the model does not train."""
    fixed = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, fixed).requires_grad_(False).eval()


def _scaler_state(accelerator: Accelerator) -> dict[str, Any]:
    """The scale of the loss, which only float16 has."""
    return {} if accelerator.scaler is None else accelerator.scaler.state_dict()


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    for name in sorted(new.keys() - _FREE):
        if old.get(name) != new[name]:
            raise ValueError(
                f"The checkpoint {path} was made with {name} = {old.get(name)!r}, this run has "
                f"{new[name]!r}; use the same settings, or another folder for a new run."
            )


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """``average <- decay average + (1 - decay) model``; buffers are copied."""
    for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
        if parameter.requires_grad:
            mean.lerp_(parameter, 1 - decay)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)


def load_average(checkpoint: Path, model: nn.Module) -> int:
    """Give ``model`` the averaged weights of a checkpoint; returns the updates behind them."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict({**model.state_dict(), **state["average"]})
    return int(state["step"])


# ------------------------------------------------------------------------------- what is written


def _append(path: Path, line: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _trim_log(path: Path, done: int) -> None:
    """Drop the lines after step ``done``, and a last one that a kill cut short."""
    whole = [line for line in _read_lines(path) if line.endswith("\n")]
    with replacing(path) as part:
        part.write_text("".join(line for line in whole if json.loads(line)["step"] <= done))


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []
