"""A flow past a cylinder in a channel: geometry, boundary conditions, parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from text2pde.mesh import BoolArray, FloatArray, IntArray, Mesh, NodeKind, check_extent

_ON_BOUNDARY = 1e-8
"""The tolerance within which a node lies on a boundary, in units of the channel's height."""
_SNAP, _ROUNDED = 1e-3, 0.02
"""The tolerances within which a boundary node of a file is moved onto the channel's boundary, in
units of its height, and onto the cylinder, in units of its radius: prompts round its numbers."""


@dataclass(frozen=True)
class Channel:
    """A plane channel with a cylinder across it; lengths in metres.

    Attributes:
        x, y: the centre of the cylinder, from the lower corner of the inlet.

    Raises:
        ValueError: unless the cylinder leaves half a radius free on all sides.
    """

    x: float
    y: float
    radius: float
    length: float = 1.6
    height: float = 0.41

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise ValueError(f"The radius is {self.radius} m; it must be positive and finite.")
        gap = self.radius / 2
        for name, at, end in (("x", self.x, self.length), ("y", self.y, self.height)):
            least, most = self.radius + gap, end - self.radius - gap
            if not least <= at <= most:
                raise ValueError(
                    f"A cylinder of radius {self.radius:g} m at {name} = {at:g} m does not fit "
                    f"into {end:g} m; {name} must be from {least:g} to {most:g} m."
                )

    def __str__(self) -> str:
        return f"a cylinder of radius {self.radius:.3g} m at ({self.x:.3g}, {self.y:.3g}) m"

    @property
    def diameter(self) -> float:
        return 2 * self.radius

    def kinds(self, nodes: FloatArray) -> IntArray:
        """The kinds of nodes [N, 2] by their coordinates; corners belong to the walls."""
        near = _ON_BOUNDARY * self.height
        x, y = nodes.T
        kinds = np.full(len(nodes), NodeKind.INTERIOR, dtype=np.int64)
        kinds[np.abs(x) < near] = NodeKind.INLET
        kinds[self.at_outlet(nodes)] = NodeKind.OUTLET
        kinds[(np.abs(y) < near) | (np.abs(y - self.height) < near)] = NodeKind.WALL
        kinds[self._distance(nodes) < self.radius * (1 + 1e-6)] = NodeKind.CYLINDER
        return kinds

    def at_outlet(self, nodes: FloatArray) -> BoolArray:
        """Whether nodes [N, 2] lie on the outlet, corners included."""
        found: BoolArray = np.abs(nodes[:, 0] - self.length) < _ON_BOUNDARY * self.height
        return found

    def snapped(self, nodes: FloatArray, boundary: BoolArray) -> FloatArray:
        """Nodes [N, 2] of a file, with boundary nodes moved onto the channel's exact boundary.

        Raises:
            ValueError: if a part of the boundary has no node, or the cylinder fewer than eight.
        """
        found, near = nodes.copy(), _SNAP * self.height
        for axis, end in enumerate((self.length, self.height)):
            for side in (0.0, end):
                found[boundary & (np.abs(found[:, axis] - side) < near), axis] = side
        centre = np.array([self.x, self.y])
        away = found - centre
        distance = np.hypot(*away.T)
        on = boundary & (np.abs(distance - self.radius) < _ROUNDED * self.radius)
        found[on] = centre + away[on] * (self.radius / distance[on])[:, None]
        kinds = self.kinds(found)
        for kind in NodeKind:
            if (kinds == kind).sum() < (8 if kind is NodeKind.CYLINDER else 1):
                raise ValueError(
                    f"The mesh has too few nodes of kind {kind.name.lower()} for {self}; "
                    "state what the mesh has, or leave the mesh out."
                )
        return found

    def check_fits(self, mesh: Mesh) -> None:
        """Raise ValueError unless the mesh fills the channel around the cylinder."""
        check_extent(mesh, (self.length, self.height))
        nearest = self._distance(mesh.nodes).min()
        if abs(nearest - self.radius) > _ROUNDED * self.radius:
            raise ValueError(
                f"The node of the mesh that is nearest to ({self.x:g}, {self.y:g}) m is "
                f"{nearest:.4g} m away, where the prompt has a cylinder of radius "
                f"{self.radius:.4g} m; state what the mesh has, or leave the mesh out."
            )

    def _distance(self, nodes: FloatArray) -> FloatArray:
        """From the centre of the cylinder [N]."""
        found: FloatArray = np.hypot(*(nodes - np.array([self.x, self.y])).T)
        return found


@dataclass(frozen=True)
class CylinderFlow:
    """A flow past the cylinder of a channel, with no slip at walls and a parabolic inlet profile.

    Attributes:
        speed: mean velocity U of the inlet profile, in m/s; its maximum is 3/2 U.
        viscosity: kinematic, in m^2/s.
    """

    channel: Channel
    speed: float
    viscosity: float = 1e-3

    mirror_axis: ClassVar[int] = 1
    """The axis along which the mirror image of a solution is a solution."""
    scalar: ClassVar[str] = "pressure"
    """The third field, after the two components of the velocity."""

    def __post_init__(self) -> None:
        for name in ("speed", "viscosity"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(
                    f"The {name} is {getattr(self, name)}; it must be positive and finite."
                )

    def __str__(self) -> str:
        channel = self.channel
        return (
            f"Re {self.reynolds:.0f}, {self.speed:.3g} m/s past a cylinder of radius "
            f"{channel.radius:.3g} m at ({channel.x:.3g}, {channel.y:.3g}) m"
        )

    @property
    def reynolds(self) -> float:
        """Re = U D / nu, by the mean inlet velocity and the diameter."""
        return self.speed * self.channel.diameter / self.viscosity

    @property
    def size(self) -> tuple[float, float]:
        """Length and height of the channel, in metres."""
        return self.channel.length, self.channel.height

    @property
    def units(self) -> tuple[float, float, float]:
        """The scales U, U, U^2 that make the fields dimensionless."""
        return self.speed, self.speed, self.speed**2

    @property
    def time_unit(self) -> float:
        """The convective time D / U, in seconds."""
        return self.channel.diameter / self.speed

    @property
    def parameters(self) -> dict[str, float]:
        """What a model is conditioned on, by name. The velocity is no parameter: fields are
        dimensionless, and the Reynolds number fixes it."""
        channel = self.channel
        return {"reynolds": self.reynolds, "radius": channel.radius, "x": channel.x, "y": channel.y}

    def inlet(self, y: FloatArray) -> FloatArray:
        """The inlet profile ``6 U y (H - y) / H^2``."""
        height = self.channel.height
        return 6 * self.speed * y * (height - y) / height**2

    def kinds(self, nodes: FloatArray) -> IntArray:
        """See :meth:`Channel.kinds`."""
        return self.channel.kinds(nodes)

    def snapped(self, nodes: FloatArray, boundary: BoolArray) -> FloatArray:
        """See :meth:`Channel.snapped`."""
        return self.channel.snapped(nodes, boundary)

    def check_fits(self, mesh: Mesh) -> None:
        """See :meth:`Channel.check_fits`."""
        self.channel.check_fits(mesh)

    def mirrored(self) -> CylinderFlow:
        """The flow reflected at the channel's centreline."""
        channel = replace(self.channel, y=self.channel.height - self.channel.y)
        return replace(self, channel=channel)


def cylinder_flow_from(values: dict[str, Any]) -> CylinderFlow:
    """The inverse of ``dataclasses.asdict``."""
    rest = {name: value for name, value in values.items() if name != "channel"}
    return CylinderFlow(Channel(**values["channel"]), **rest)
