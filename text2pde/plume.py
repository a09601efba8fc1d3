"""A cloud of smoke that rises in a closed box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from text2pde.mesh import Integers, Kind, Numbers


@dataclass(frozen=True)
class Plume:
    """Smoke in the plane, at rest at first; lengths in metres.

    Attributes:
        x, y: of the cloud's middle, from the lower corner of the box.
        radius: of the cloud, within which its density is about 1.
        buoyancy: the acceleration upwards of smoke of density 1, in m/s^2.
        viscosity: kinematic, in m^2/s.

    Raises ValueError unless the cloud leaves room on all sides.
    """

    x: float
    y: float
    radius: float
    buoyancy: float
    viscosity: float = 0.01
    side: float = 32.0

    across: ClassVar[int] = 0
    """The axis along which a mirror image is as much a plume."""

    def __post_init__(self) -> None:
        for name in ("radius", "buoyancy", "viscosity", "side"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(
                    f"The {name} is {getattr(self, name)}; it must be positive and finite."
                )
        for name in ("x", "y"):
            if not self.radius <= getattr(self, name) <= self.side - self.radius:
                raise ValueError(
                    f"A cloud of radius {self.radius:g} m at {name} = {getattr(self, name):g} m "
                    f"does not fit into {self.side:g} m."
                )

    def kinds(self, nodes: Numbers) -> Integers:
        """What nodes [N, 2] are, by where they lie."""
        near = 1e-8 * self.side
        on_wall = ((nodes < near) | (nodes > self.side - near)).any(axis=1)
        return np.where(on_wall, Kind.WALL, Kind.INTERIOR).astype(np.int64)

    def snapped(self, nodes: Numbers, border: NDArray[np.bool_]) -> Numbers:
        """Nodes [N, 2] of a file, those of its border that are nearly on a wall put onto it."""
        found = nodes.copy()
        for wall in (0.0, self.side):
            found[border[:, None] & (np.abs(found - wall) < 1e-3 * self.side)] = wall
        return found

    def mirrored(self) -> Plume:
        """The plume with left and right exchanged."""
        return replace(self, x=self.side - self.x)

    @property
    def size(self) -> tuple[float, float]:
        """Length and height of the box."""
        return self.side, self.side

    @property
    def units(self) -> tuple[float, float, float]:
        """Of the fields, velocity and density, in which models know them."""
        return 1.0, 1.0, 1.0

    @property
    def clock(self) -> float:
        """The unit of time, in seconds."""
        return 1.0

    @property
    def numbers(self) -> dict[str, float]:
        """What a model is told, by name."""
        return {"buoyancy": self.buoyancy, "radius": self.radius, "x": self.x, "y": self.y}

    def __str__(self) -> str:
        return (
            f"smoke of buoyancy {self.buoyancy:.3g} m/s^2 and radius {self.radius:.3g} m at "
            f"({self.x:.3g}, {self.y:.3g}) m"
        )
