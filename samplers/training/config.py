"""The settings of a training run, and its learning rate and averaging at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of training, which together with model, data and objective determine every weight.

    Attributes:
        steps: updates of the weights.
        batch_size: samples of one update, over all processes and accumulated parts.
        learning_rate: the peak, reached after ``warmup`` steps; a cosine falls from there to zero.
        weight_decay: of AdamW.
        betas: decay rates of AdamW's two moments.
        gradient_clip: maximum norm of the gradient; ``math.inf`` for no clipping.
        average_decay: decay of the moving average of the weights, see :func:`average_decay`.
        accumulation: gradient accumulation: parts of a process's share of a batch.
        precision: of the network's arithmetic; None for that of ``accelerate launch``.
        workers: processes that load data.
        seed: of all random numbers.
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
        _require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "positive")
        _require(self.gradient_clip > 0, "gradient_clip", self.gradient_clip, "positive")
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


# Settings of output and of data loading, which may change when a run is resumed.
FREE = frozenset({"log_every", "checkpoint_every", "workers", "tracker"})


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

    ``min(decay, (1 + k) / (10 + k))``: early on the average extends over a tenth of the run, so
    that the initial weights have no influence.
    """
    return min(config.average_decay, (1 + step) / (10 + step))
