r"""Layer 0. Noise as a pure function of a sample's seed and of the position in the run.

A sample gets the same numbers alone and in any batch, on any device and after a resume: they come
from a counter-based generator (Philox, keyed by seed and index) on the CPU, in float64, and are
then moved to the device. A repeated call returns the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchsde import BrownianInterval

_INITIAL = 0
_FIRST_ROW = 2
_PROBES = 2**32
_UNIFORM = 2**33
_CLEANEST = 2**34
_SEED_LIMIT = 2**63
_PATH_END = 2.0**40
_PATH_BITS = 40


Generators = torch.Generator | Sequence[torch.Generator]


class Noise(Protocol):
    """The interface of a source of noise."""

    def __call__(self, row: int) -> Tensor:
        """Standard normal noise for a row of a tableau (-1: its first point), float64 on the
        CPU."""
        ...


@dataclass(frozen=True)
class RowNoise:
    """Noise that is independent from row to row and from sample to sample.

    Attributes:
        seeds: one integer in [0, 2^63) for each sample of the batch.
        shape: the shape of one sample.
        first: the index of row 0 in the whole run, of which this may be a later part.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    first: int = 0

    def __post_init__(self) -> None:
        check_seeds(self.seeds)

    def __call__(self, row: int) -> Tensor:
        return _batch(self.seeds, _FIRST_ROW + self.first + row, self.shape)


@dataclass(frozen=True)
class BrownianNoise:
    r"""Noise of each row as the increment of one Brownian path for each sample.

    .. math:: z = (W(b) - W(a)) / \sqrt{b - a}

    The path depends on the seed alone: a finer grid resolves the same path more finely, so that the
    sample converges (strongly) as the steps shrink.

    Attributes:
        seeds, shape: as in :class:`RowNoise`.
        intervals: for each row the interval of its method's time variable, in either direction;
            None for a row without noise.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, ...]
    intervals: tuple[tuple[float, float] | None, ...]

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        times = [abs(time) for interval in self.intervals if interval for time in interval]
        if not all(time <= _PATH_END for time in times):
            raise ValueError(
                f"The Brownian path is needed at the time {max(times):.3g}, beyond its end at "
                f"{_PATH_END:.3g}; take a smaller sigma_max or a larger sigma_min."
            )

    def __call__(self, row: int) -> Tensor:
        interval = self.intervals[row]
        if row < 0 or interval is None:
            raise ValueError(f"Row {row} has no interval on the Brownian path.")
        low, high = sorted(_rounded(time) for time in interval)
        increments = [path(low, high) for path in self._paths]
        return torch.stack(increments) / math.sqrt(high - low)

    def __getstate__(self) -> dict[str, Any]:
        """Without the paths, which cannot be pickled and follow from the seeds."""
        return {name: value for name, value in vars(self).items() if name != "_paths"}

    @cached_property
    def _paths(self) -> list[BrownianInterval]:
        return [_path(seed, self.shape) for seed in self.seeds]


def _path(seed: int, shape: Sequence[int]) -> BrownianInterval:
    """A Brownian path, bisected at fixed times, so that the order of queries does not matter."""
    from torchsde import BrownianInterval  # imports scipy, which takes a second

    return BrownianInterval(
        t0=-_PATH_END,
        t1=_PATH_END,
        size=tuple(shape),
        dtype=torch.float64,
        entropy=seed,
        halfway_tree=True,
        tol=1e-300,  # none: every query is a dyadic fraction of the whole, met exactly
        cache_size=128,
    )


def _rounded(time: float) -> float:
    """The time rounded to a relative 1e-12, which saves bisections of no effect."""
    mantissa, exponent = math.frexp(time)
    return math.ldexp(round(math.ldexp(mantissa, _PATH_BITS)), exponent - _PATH_BITS)


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal initial noise of shape ``[len(seeds), *shape]``, float64 on the CPU."""
    check_seeds(seeds)
    return _batch(seeds, _INITIAL, shape)


def hashed_seed(data: bytes) -> int:
    """A seed made from bytes: 63 bits of their BLAKE2 hash."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def sample_seeds(sample: Tensor, generator: Generators | None = None) -> tuple[int, ...]:
    """A seed for each sample, the same alone and in a batch.

    With one generator per sample the seed is a hash of its state; with a shared generator, of its
    state and the sample's index. A pipeline that passes none to the scheduler (Stable Diffusion 3,
    Flux) has sampled the initial latents with it, so the seed is a hash of their values, rounded to
    float32.
    """
    if generator is None:
        values = sample.detach().cpu().float() + 0.0  # which makes 0 of -0
        return tuple(hashed_seed(_bytes(row)) for row in values)
    if isinstance(generator, torch.Generator):
        state = _bytes(generator.get_state())
        places = (b"" if i == 0 else i.to_bytes(8, "little") for i in range(len(sample)))
        return tuple(hashed_seed(state + place) for place in places)
    if len(generator) != len(sample):
        raise ValueError(
            f"{len(generator)} generators came for {len(sample)} samples; give one for each."
        )
    return tuple(hashed_seed(_bytes(own.get_state())) for own in generator)


def probe_noise(seeds: Sequence[int], probe: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for a probe of a stochastic estimate, independent of other noise."""
    check_seeds(seeds)
    return _batch(seeds, _PROBES + probe, shape)


def uniform_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Numbers uniform in [0, 1) of shape ``[len(seeds), *shape]``, float64 on the CPU."""
    check_seeds(seeds)
    draws = [generator.random(tuple(shape)) for generator in _generators(seeds, _UNIFORM)]
    return torch.from_numpy(np.stack(draws))


def cleanest_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise of the cleanest level, independent of the initial noise."""
    check_seeds(seeds)
    return _batch(seeds, _CLEANEST, shape)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError unless there is at least one seed and all are integers in [0, 2^63)."""
    if isinstance(seeds, int | np.integer):
        raise ValueError(
            f"The seeds are {seeds}; give one integer for each sample, such as range({seeds})."
        )
    wrong = [s for s in seeds if not isinstance(s, int | np.integer) or not 0 <= s < _SEED_LIMIT]
    if wrong or not len(seeds):
        raise ValueError(
            "Seeds must be whole numbers from 0 to 2^63 - 1, one for each sample; "
            f"got {wrong[:3] or 'none'}."
        )


def _batch(seeds: Sequence[int], index: int, shape: Sequence[int]) -> Tensor:
    numbers = np.empty((len(seeds), math.prod(shape)))
    for row, generator in zip(numbers, _generators(seeds, index), strict=True):
        generator.standard_normal(out=row)
    return torch.from_numpy(numbers).reshape(len(seeds), *shape)


def _generators(seeds: Sequence[int], index: int) -> Iterator[np.random.Generator]:
    """The generator of each seed in turn: one object with another key, since making one is slow."""
    bits = np.random.Philox(key=0)
    generator, state = np.random.Generator(bits), bits.state
    key = state["state"]["key"]
    for seed in seeds:
        key[:] = seed, index
        bits.state = state
        yield generator


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
