"""A cloud of smoke that rises in a closed box: geometry, boundary conditions, parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from text2pde.mesh import BoolArray, FloatArray, IntArray, Mesh, NodeKind, check_extent


@dataclass(frozen=True)
class Plume:
    """Smoke in a square box, initially at rest; lengths in metres.

    Attributes:
        x, y: the initial centre of the cloud, from the lower left corner of the box.
        radius: of the cloud, inside which the density is initially about 1.
        buoyancy: upward acceleration of smoke of density 1, in m/s^2.
        viscosity: kinematic, in m^2/s.

    Raises:
        ValueError: unless the cloud lies within the box.
    """

    x: float
    y: float
    radius: float
    buoyancy: float
    viscosity: float = 0.01
    side: float = 32.0

    mirror_axis: ClassVar[int] = 0
    """The axis along which the mirror image of a solution is a solution."""
    scalar: ClassVar[str] = "density"
    """The third field, after the two components of the velocity."""

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

    def __str__(self) -> str:
        return (
            f"smoke of buoyancy {self.buoyancy:.3g} m/s^2 and radius {self.radius:.3g} m at "
            f"({self.x:.3g}, {self.y:.3g}) m"
        )

    @property
    def size(self) -> tuple[float, float]:
        """Length and height of the box, in metres."""
        return self.side, self.side

    @property
    def units(self) -> tuple[float, float, float]:
        """The scales by which a model divides velocity and density."""
        return 1.0, 1.0, 1.0

    @property
    def time_unit(self) -> float:
        """In seconds."""
        return 1.0

    @property
    def parameters(self) -> dict[str, float]:
        """What a model is conditioned on, by name."""
        return {"buoyancy": self.buoyancy, "radius": self.radius, "x": self.x, "y": self.y}

    def kinds(self, nodes: FloatArray) -> IntArray:
        """The kinds of nodes [N, 2] by their coordinates."""
        near = 1e-8 * self.side
        on_wall = ((nodes < near) | (nodes > self.side - near)).any(axis=1)
        return np.where(on_wall, NodeKind.WALL, NodeKind.INTERIOR).astype(np.int64)

    def snapped(self, nodes: FloatArray, boundary: BoolArray) -> FloatArray:
        """Nodes [N, 2] of a file, with boundary nodes moved onto the walls exactly."""
        found = nodes.copy()
        for wall in (0.0, self.side):
            found[boundary[:, None] & (np.abs(found - wall) < 1e-3 * self.side)] = wall
        return found

    def check_fits(self, mesh: Mesh) -> None:
        """Raise ValueError unless the mesh fills the box."""
        check_extent(mesh, self.size)

    def mirrored(self) -> Plume:
        """The plume with left and right exchanged."""
        return replace(self, x=self.side - self.x)
