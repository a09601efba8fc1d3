r"""Layer 0. Noise as a pure function: of the sample's seed and of where in the run it is used.

Sample i gets the same numbers alone and in any batch, at any batch size, on any device and on a
resume: they come from a counter-based generator (Philox, keyed by seed and index) on the CPU, in
float64, and are moved to where they are needed. Nothing here keeps a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_INITIAL = 0
_FIRST_ROW = 2
_SEED_LIMIT = 2**63


class Noise(Protocol):
    """Where a sampler takes its random numbers from."""

    def __call__(self, row: int) -> Tensor:
        """Standard normal noise for a row of a tableau (-1: for its start), float64 on the CPU."""
        ...


@dataclass(frozen=True)
class RowNoise:
    """Noise that is independent from row to row and from sample to sample.

    seeds: one whole number in [0, 2^63) for each sample of the batch.
    shape: the shape of one sample.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def __call__(self, row: int) -> Tensor:
        return _batch(self.seeds, _FIRST_ROW + row, self.shape)


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal starting noise of shape ``[len(seeds), *shape]``, float64 on the CPU."""
    check_seeds(seeds)
    return _batch(seeds, _INITIAL, shape)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError unless there is at least one seed and all are in [0, 2^63)."""
    wrong = [seed for seed in seeds if not 0 <= seed < _SEED_LIMIT]
    if wrong or not len(seeds):
        raise ValueError(
            "Seeds must be whole numbers from 0 to 2^63 - 1, one for each sample; "
            f"got {wrong[:3] or 'none'}."
        )


def _batch(seeds: Sequence[int], index: int, shape: Sequence[int]) -> Tensor:
    return torch.stack([_normal(seed, index, shape) for seed in seeds])


def _normal(seed: int, index: int, shape: Sequence[int]) -> Tensor:
    key = np.array([seed, index], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return torch.from_numpy(generator.standard_normal(tuple(shape)))
