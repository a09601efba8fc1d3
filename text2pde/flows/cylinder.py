"""The family of flows around a cylinder in a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from text2pde.channel import Channel, Flow

Range = tuple[float, float]
HELD_OUT = 2**20
"""From the seeds of what is learned to those of what is held out."""


@dataclass(frozen=True)
class Family:
    """From where to where the numbers of a flow go; lengths in metres.

    Attributes:
        held_out: Reynolds numbers that no case has, so that it can be asked what a model makes of
            them; none if None.
    """

    reynolds: Range = (40.0, 160.0)
    radius: Range = (0.04, 0.06)
    x: Range = (0.25, 0.40)
    y: Range = (0.17, 0.24)
    viscosity: float = 1e-3
    held_out: Range | None = (100.0, 115.0)

    @property
    def ranges(self) -> dict[str, Range]:
        """By the names of a flow's numbers."""
        return {"reynolds": self.reynolds, "radius": self.radius, "x": self.x, "y": self.y}

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not 0 < low <= high:
                raise ValueError(
                    f"The {name} goes from {low} to {high}; it must rise from above 0."
                )
        if self.held_out is not None and not (
            self.reynolds[0] <= self.held_out[0] <= self.held_out[1] <= self.reynolds[1]
        ):
            raise ValueError(
                f"Reynolds numbers from {self.held_out[0]:g} to {self.held_out[1]:g} are held out "
                f"of {self.reynolds[0]:g} to {self.reynolds[1]:g}; they must lie within."
            )


def draw(family: Family, count: int, seed: int = 0) -> list[Flow]:
    """Flows spread evenly over the family (a scrambled Sobol sequence), without what is held out.

    The first of more flows are those of fewer.
    """
    return [_flow(family, numbers) for numbers in sobol(4, count, seed)]


def draw_held_out(family: Family, count: int, seed: int = 0) -> list[Flow]:
    """The same of Reynolds numbers that are held out, in other channels than :func:`draw` has.

    Raises ValueError if none are held out.
    """
    if family.held_out is None:
        raise ValueError("No Reynolds numbers are held out of this family.")
    inside = Family(family.held_out, family.radius, family.x, family.y, family.viscosity, None)
    return draw(inside, count, seed + HELD_OUT)


def sobol(dimensions: int, count: int, seed: int) -> list[list[float]]:
    """Points from 0 to 1 that are spread evenly, by a scrambled Sobol sequence."""
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)
    numbers: list[list[float]] = engine.draw(count, dtype=torch.float64).tolist()
    return numbers


def left_over(whole: Range, held_out: Range | None, share: float) -> float:
    """A number at a share of those of a range that are not held out."""
    low, high = whole
    start, end = held_out or (high, high)
    found = low + share * (high - low - (end - start))
    return found if found < start else found + end - start


def _flow(family: Family, numbers: Sequence[float]) -> Flow:
    u, *rest = numbers
    reynolds = left_over(family.reynolds, family.held_out, u)
    radius, x, y = (
        low + share * (high - low)
        for share, (low, high) in zip(rest, (family.radius, family.x, family.y), strict=True)
    )
    speed = reynolds * family.viscosity / (2 * radius)
    return Flow(Channel(x, y, radius), speed, family.viscosity)
