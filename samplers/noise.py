r"""Layer 0. Noise as a pure function: of the sample's seed and of where in the run it is used.

Sample i gets the same numbers alone and in any batch, at any batch size, on any device and on a
resume: they come from a counter-based generator (Philox, keyed by seed and index) on the CPU, in
float64, and are moved to where they are needed. A draw is the same whenever and however often it
is asked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchsde import BrownianInterval

_INITIAL = 0
_FIRST_ROW = 2
_PROBES = 2**32
_UNIFORM = 2**33
_SEED_LIMIT = 2**63
_PATH_END = 2.0**40
_PATH_BITS = 40


class Noise(Protocol):
    """Where a sampler takes its random numbers from."""

    def __call__(self, row: int) -> Tensor:
        """Standard normal noise for a row of a tableau (-1: for its start), float64 on the CPU."""
        ...


@dataclass(frozen=True)
class RowNoise:
    """Noise that is independent from row to row and from sample to sample.

    Attributes:
        seeds: one whole number in [0, 2^63) for each sample of the batch.
        shape: the shape of one sample.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def __call__(self, row: int) -> Tensor:
        return _batch(self.seeds, _FIRST_ROW + row, self.shape)


@dataclass(frozen=True)
class BrownianNoise:
    r"""Noise of each row as the increment of one Brownian path for each sample.

    .. math:: z = (W(b) - W(a)) / \sqrt{b - a}

    The path depends on the seed alone: a grid of more steps sees more of the same path, so that
    the sample converges (strongly) as the steps shrink.

    Attributes:
        seeds, shape: as in :class:`RowNoise`.
        intervals: for each row from where to where the clock of its method runs, either way; None
            for a row that draws nothing.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    intervals: tuple[tuple[float, float] | None, ...]

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        times = [abs(time) for interval in self.intervals if interval for time in interval]
        if not all(time <= _PATH_END for time in times):
            raise ValueError(
                f"A Brownian path was asked for at {max(times):.3g} of its method's clock, beyond "
                f"its end at {_PATH_END:.3g}; take a smaller sigma_max or a larger sigma_min."
            )

    def __call__(self, row: int) -> Tensor:
        interval = self.intervals[row]
        if row < 0 or interval is None:
            raise ValueError(f"Row {row} has no interval on the Brownian path.")
        low, high = sorted(_rounded(time) for time in interval)
        increments = [path(low, high) for path in self._paths]
        return torch.stack(increments) / math.sqrt(high - low)

    @cached_property
    def _paths(self) -> list[BrownianInterval]:
        return [_path(seed, self.shape) for seed in self.seeds]


def _path(seed: int, shape: Sequence[int]) -> BrownianInterval:
    """A path for any clock, halved until a query is met, so that it ignores the queries' order."""
    from torchsde import BrownianInterval  # brings scipy, which takes a second to import

    return BrownianInterval(
        t0=-_PATH_END,
        t1=_PATH_END,
        size=tuple(shape),
        dtype=torch.float64,
        entropy=seed,
        halfway_tree=True,
        tol=1e-300,  # none: what is asked for is a dyadic fraction of the whole, met exactly
        cache_size=128,
    )


def _rounded(time: float) -> float:
    """The time to a relative 1e-12, which saves the path the halvings that nobody sees."""
    mantissa, exponent = math.frexp(time)
    return math.ldexp(round(math.ldexp(mantissa, _PATH_BITS)), exponent - _PATH_BITS)


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal starting noise of shape ``[len(seeds), *shape]``, float64 on the CPU."""
    check_seeds(seeds)
    return _batch(seeds, _INITIAL, shape)


def hashed_seed(data: bytes) -> int:
    """A seed that stands for ``data``: 63 bits of its BLAKE2 hash."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def probe_noise(seeds: Sequence[int], probe: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for the given probe of a stochastic estimate, of its own stream."""
    check_seeds(seeds)
    return _batch(seeds, _PROBES + probe, shape)


def uniform_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Numbers uniform in [0, 1) of shape ``[len(seeds), *shape]``, float64 on the CPU."""
    check_seeds(seeds)
    draws = [_generator(seed, _UNIFORM).random(tuple(shape)) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError unless there is at least one seed and all are whole, in [0, 2^63)."""
    if isinstance(seeds, int | np.integer):
        raise ValueError(
            f"The seeds are {seeds}; give one whole number for each sample, such as range({seeds})."
        )
    wrong = [s for s in seeds if not isinstance(s, int | np.integer) or not 0 <= s < _SEED_LIMIT]
    if wrong or not len(seeds):
        raise ValueError(
            "Seeds must be whole numbers from 0 to 2^63 - 1, one for each sample; "
            f"got {wrong[:3] or 'none'}."
        )


def _batch(seeds: Sequence[int], index: int, shape: Sequence[int]) -> Tensor:
    return torch.stack([_normal(seed, index, shape) for seed in seeds])


def _normal(seed: int, index: int, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(_generator(seed, index).standard_normal(tuple(shape)))


def _generator(seed: int, index: int) -> np.random.Generator:
    key = np.array([seed, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
