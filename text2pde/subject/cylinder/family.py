"""The parameter space of flows past a cylinder, and samples of it."""

from __future__ import annotations

from dataclasses import dataclass

from text2pde.subject.cylinder.channel import Channel, CylinderFlow
from text2pde.subject.ranges import HELD_OUT_SEED, Range, outside, scaled, sobol_points


@dataclass(frozen=True)
class CylinderFamily:
    """Flows whose parameters lie in these ranges; lengths in metres.

    Attributes:
        held_out: Reynolds numbers that training data omit, to test interpolation; None for none.
    """

    reynolds: Range = (40.0, 160.0)
    radius: Range = (0.04, 0.06)
    x: Range = (0.25, 0.40)
    y: Range = (0.17, 0.24)
    viscosity: float = 1e-3
    held_out: Range | None = (100.0, 115.0)

    @property
    def ranges(self) -> dict[str, Range]:
        """By the names of :attr:`CylinderFlow.parameters`."""
        return {"reynolds": self.reynolds, "radius": self.radius, "x": self.x, "y": self.y}

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not 0 < low <= high:
                raise ValueError(
                    f"The range of {name} is {low} to {high}; it must be positive and ascending."
                )
        if self.held_out is not None and not (
            self.reynolds[0] <= self.held_out[0] <= self.held_out[1] <= self.reynolds[1]
        ):
            raise ValueError(
                f"Reynolds numbers from {self.held_out[0]:g} to {self.held_out[1]:g} are held out "
                f"of {self.reynolds[0]:g} to {self.reynolds[1]:g}; they must lie within."
            )


def sample_flows(family: CylinderFamily, count: int, seed: int = 0) -> list[CylinderFlow]:
    """Flows that fill the family evenly (a scrambled Sobol sequence), without those held out.

    A longer sequence begins with a shorter one.
    """
    return [_flow(family, *point) for point in sobol_points(4, count, seed)]


def sample_held_out_flows(family: CylinderFamily, count: int, seed: int = 0) -> list[CylinderFlow]:
    """Flows at the held-out Reynolds numbers, in other channels than those of training.

    Raises:
        ValueError: if the family holds out none.
    """
    if family.held_out is None:
        raise ValueError("This family holds out no Reynolds numbers; give it a range of them.")
    inside = CylinderFamily(
        family.held_out, family.radius, family.x, family.y, family.viscosity, None
    )
    return sample_flows(inside, count, seed + HELD_OUT_SEED)


def _flow(family: CylinderFamily, share: float, *others: float) -> CylinderFlow:
    reynolds = outside(family.reynolds, family.held_out, share)
    radius, x, y = scaled(others, (family.radius, family.x, family.y))
    speed = reynolds * family.viscosity / (2 * radius)
    return CylinderFlow(Channel(x, y, radius), speed, family.viscosity)
