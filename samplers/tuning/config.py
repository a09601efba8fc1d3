"""The settings of tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from samplers.choices import DistanceName

Part = Literal["grid", "times", "weights"]
"""What is learned of a sampler: the noise levels, the times that the network is given, and the
weights of the predictions."""

PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class TuningConfig:
    """Settings of :func:`samplers.tune`.

    ====================================  =================================  ==============
    published method                      learn                              memory
    ====================================  =================================  ==============
    Align Your Steps (arXiv:2404.14507)   ``("grid",)``                      any
    LD3 (arXiv:2405.15506)                ``("grid", "times")``              any
    S4S (arXiv:2502.17423)                ``("weights",)``                   3
    S4S-Alt (arXiv:2502.17423)            ``("grid", "times", "weights")``   3
    Bespoke Non-Stationary                ``("grid", "weights")``            None
    (arXiv:2403.01329)
    ====================================  =================================  ==============

    Attributes:
        learn: the parts that are learned, of ``grid``, ``times`` and ``weights``.
        memory: how many predictions a row uses at most, if weights are learned; None for all.
            Weights that are not learned are those of the untuned sampler on the moving levels.
        distance: between samples and their targets x: the logarithm of the relative error
            ``|x' - x| / |x|`` (``log``), the squared error (``rms``), or the mean of the first and
            of the logarithm of the batch's root mean square (``balanced``).
        radius: of the relaxed objective (S4S, LD3): each training noise may move by this share of
            its root mean square towards where the sampler reaches the target; 0 for none.
        held_out: the last samples, which are not trained on: they choose the iterate and give the
            scores.
        iterations: updates of the numbers.
        batch_size: samples of an update, and of every evaluation of the network.
        learning_rate: the peak of Adam's, after a warmup of a tenth of the iterations; a cosine
            falls from there to zero. A step of size 1 moves the samples by their typical error at
            the start.
        seed: of the order of the samples.
        check_every: iterations between two evaluations of the held-out samples, each of which
            also saves the state of the run.
        teacher: the sampler of the targets, and its steps on a log-SNR grid.
        teacher_steps: of these.
        teacher_tolerance: the most by which targets may differ, relatively, from those of twice
            as many steps.

    Raises ValueError for a setting out of its range.
    """

    learn: tuple[Part, ...] = PARTS
    memory: int | None = None
    distance: DistanceName = "balanced"
    radius: float = 0.0
    held_out: int = 64
    iterations: int = 200
    batch_size: int = 32
    learning_rate: float = 0.4
    seed: int = 0
    check_every: int = 10
    teacher: str = "dpmpp-3m"
    teacher_steps: int = 100
    teacher_tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not self.learn or not set(self.learn) <= set(PARTS):
            raise ValueError(
                f"What is learned is {self.learn!r}; give one or more of {', '.join(PARTS)}."
            )
        whole = ("held_out", "iterations", "batch_size", "check_every", "teacher_steps")
        for name in whole:
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.memory is None or self.memory >= 1, "memory", self.memory, "None or from 1")
        _require(
            self.distance in get_args(DistanceName),
            "distance",
            self.distance,
            f"one of {', '.join(get_args(DistanceName))}",
        )
        _require(0 <= self.radius < math.inf, "radius", self.radius, "zero or positive")
        _require(self.seed >= 0, "seed", self.seed, "zero or positive")
        if self.learn == ("weights",) and self.memory == 1:
            raise ValueError(
                "Of a memory of 1 the weights are 1, so there is nothing to learn; take a longer "
                "memory, or learn the grid too."
            )
        for name in ("learning_rate", "teacher_tolerance"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive")


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"The tuning setting {name} is {value!r}; it must be {allowed}.")
