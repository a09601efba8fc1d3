"""The parameter space of rising smoke, and samples of it."""

from __future__ import annotations

from dataclasses import dataclass

from text2pde.subject.ranges import HELD_OUT_SEED, Range, outside, scaled, sobol_points
from text2pde.subject.smoke.plume import Plume


@dataclass(frozen=True)
class SmokeFamily:
    """Plumes whose parameters lie in these ranges, in metres and m/s^2.

    Attributes:
        held_out: buoyancies that training data omit, to test interpolation.
    """

    buoyancy: Range = (0.2, 0.5)
    radius: Range = (3.0, 5.0)
    x: Range = (10.0, 22.0)
    y: Range = (6.0, 12.0)
    held_out: Range = (0.32, 0.38)

    @property
    def ranges(self) -> dict[str, Range]:
        """By the names of :attr:`Plume.parameters`."""
        return {"buoyancy": self.buoyancy, "radius": self.radius, "x": self.x, "y": self.y}


def sample_plumes(family: SmokeFamily, count: int, seed: int = 0) -> list[Plume]:
    """Plumes that fill the family evenly (a scrambled Sobol sequence), without those held out.

    A longer sequence begins with a shorter one.
    """
    return [
        _plume(family, others, outside(family.buoyancy, family.held_out, share))
        for share, *others in sobol_points(4, count, seed)
    ]


def sample_held_out_plumes(family: SmokeFamily, count: int, seed: int = 0) -> list[Plume]:
    """Plumes of held-out buoyancies."""
    low, high = family.held_out
    return [
        _plume(family, others, low + share * (high - low))
        for share, *others in sobol_points(4, count, seed + HELD_OUT_SEED)
    ]


def _plume(family: SmokeFamily, shares: list[float], buoyancy: float) -> Plume:
    radius, x, y = scaled(shares, (family.radius, family.x, family.y))
    return Plume(x, y, radius, buoyancy)
