"""The random numbers of a run, each stream a function of a seed and a position."""

from __future__ import annotations

import functools

import numpy as np
import torch


def derived_seed(seed: int, *position: int) -> int:
    """A seed of 64 bits for one of many independent streams."""
    return int(np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0])


def seeded(seed: int, *position: int) -> torch.Generator:
    """A generator on the CPU whose stream is a function of the seed and a position alone."""
    return torch.Generator().manual_seed(derived_seed(seed, *position))


# The first word of a position: the purpose of the random numbers.
ORDER, OBJECTIVE, PENALTY, DROPOUT = range(4)


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> list[int]:
    """The sample indices of batch ``step``, consecutive in an endless sequence of shuffled
    epochs."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [_epoch(seed, p // size, size)[p % size] for p in positions]


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, size: int) -> list[int]:
    order: list[int] = torch.randperm(size, generator=seeded(seed, ORDER, epoch)).tolist()
    return order
