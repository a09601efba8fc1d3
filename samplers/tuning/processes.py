"""The processes of ``accelerate launch`` that share the work of a tuning; else a single one.

Each computes with its own samples, and all know the results of all, so that every process holds the
same sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def rank_and_count() -> tuple[int, int]:
    """Which process this is, of how many."""
    if not distributed.is_available() or not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return rank_and_count()[0] == 0


def own_rows(count: int) -> Tensor:
    """The rows of this process, of ``count``."""
    rank, processes = rank_and_count()
    return torch.arange(rank, count, processes)


def gathered(own: Tensor, count: int) -> Tensor:
    """The rows [count, ...] of all processes; ``own`` are those of :func:`own_rows`."""
    _, processes = rank_and_count()
    if processes == 1:
        return own
    whole = own.new_empty(count, *own.shape[1:])
    for rank, part in enumerate(_from_all(own.detach().cpu(), processes)):
        whole[rank::processes] = part.to(own)
    return whole


def summed(values: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The sum of each over the processes, in the order of their ranks."""
    _, processes = rank_and_count()
    if processes == 1:
        return list(values)
    local = [None if value is None else value.cpu() for value in values]
    of_each = zip(values, *_from_all(local, processes), strict=True)
    return [None if value is None else sum(parts).to(value) for value, *parts in of_each]


def _from_all(value: T, processes: int) -> list[T]:
    found: list[T] = [value] * processes
    distributed.all_gather_object(found, value)
    return found
