"""Layer 6. What configs say of distilled networks: their sampler, and the times of distillation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from samplers.grid import make_grid
from samplers.schedule import Schedule

DISTILLED_FOR: dict[str, str] = {
    "LCMScheduler": "lcm",
    "FlowMatchLCMScheduler": "lcm",
    "TCDScheduler": "tcd",
    "CMStochasticIterativeScheduler": "consistency",
}
"""The sampler that the networks of a scheduler class are distilled for."""


class DistilledTimes(NamedTuple):
    """The times at which a network was distilled, noisiest first; a grid consists of some of them.

    Attributes:
        whole_stride: whether a grid takes every k-th of them, k being rounded down; else they are
            spread over the whole range.
    """

    times: Tensor
    whole_stride: bool

    def select(self, steps: int, latest: float) -> Tensor:
        """The times of a grid of ``steps`` steps, none of which is above ``latest``.

        Raises ValueError if there are fewer.
        """
        times = self.times[self.times <= latest + 1e-9]
        if not 1 <= steps <= len(times):
            raise ValueError(
                f"{steps} steps were asked for, but the network was distilled at {len(times)} "
                "times; take from one to that many, or name a grid."
            )
        index, stride = torch.arange(steps), len(times) // steps
        return times[index * stride if self.whole_stride else index * len(times) // steps]

    def within(self, strength: float) -> DistilledTimes:
        """The cleanest of them, as many as a share ``strength``."""
        if not 0 <= strength <= 1:
            raise ValueError(f"The strength is {strength}; it must be from 0 to 1.")
        return self._replace(times=self.times[len(self.times) - int(len(self.times) * strength) :])


def every_kth(trained: int, count: int) -> DistilledTimes:
    """LCM's: the trained steps k - 1, 2k - 1, … with k = trained // count."""
    if not 1 <= count <= trained:
        raise ValueError(
            f"original_inference_steps is {count}; it must be from 1 to the number of trained "
            f"steps, {trained}."
        )
    times = torch.arange(count, 0, -1, dtype=torch.float64) * (trained // count) - 1
    return DistilledTimes(times, whole_stride=False)


def karras(schedule: Schedule, count: int) -> DistilledTimes:
    """A consistency model's: a Karras grid of ``count`` points."""
    grid = make_grid(schedule, count - 1, "karras", final="sigma_min")
    return DistilledTimes(grid.points.t, whole_stride=True)
