"""Ranges of parameters, and points that fill them evenly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[float, float]
HELD_OUT_SEED = 2**20
"""The offset from the seeds of training data to those of held-out data."""


def sobol_points(dimensions: int, count: int, seed: int) -> list[list[float]]:
    """Points of a scrambled Sobol sequence in the unit cube."""
    import torch  # which takes a second to import, and the ranges alone don't need it

    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)
    points: list[list[float]] = engine.draw(count, dtype=torch.float64).tolist()
    return points


def scaled(shares: Iterable[float], ranges: Sequence[Range]) -> list[float]:
    """Numbers from 0 to 1, each mapped to its range."""
    return [low + share * (high - low) for share, (low, high) in zip(shares, ranges, strict=True)]


def outside(whole: Range, held_out: Range | None, share: float) -> float:
    """A number from 0 to 1, mapped to the part of a range that is not held out."""
    low, high = whole
    start, end = held_out or (high, high)
    found = low + share * (high - low - (end - start))
    return found if found < start else found + end - start
