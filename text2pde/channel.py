"""A channel with a cylinder across it: the geometry, and what flows through it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from text2pde.mesh import Integers, Kind, Numbers

_NEAR = 1e-8
"""How far from a border a node may lie that is on it, in units of the channel's height."""


_SNAP, _ROUNDED = 1e-3, 0.02
"""How far from the channel's border a node of a file's border may lie that is on it, in units of
the height; and from the cylinder, whose numbers are rounded in a sentence, of its radius."""


@dataclass(frozen=True)
class Channel:
    """A channel of fluid in the plane, with a cylinder in its way; lengths in metres.

    Attributes:
        x, y: of the cylinder's centre, from the lower corner of the inlet.

    Raises ValueError unless the cylinder leaves room on all sides.
    """

    x: float
    y: float
    radius: float
    length: float = 1.6
    height: float = 0.41

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf:
            raise ValueError(f"The radius is {self.radius} m; it must be positive and finite.")
        room = self.radius / 2
        for name, at, end in (("x", self.x, self.length), ("y", self.y, self.height)):
            least, most = self.radius + room, end - self.radius - room
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

    def kinds(self, nodes: Numbers) -> Integers:
        """What nodes [N, 2] are, by where they lie; corners belong to the walls."""
        near = _NEAR * self.height
        x, y = nodes.T
        distance = np.hypot(x - self.x, y - self.y)
        kinds = np.full(len(nodes), Kind.INTERIOR, dtype=np.int64)
        kinds[np.abs(x) < near] = Kind.INLET
        kinds[self.leaves(nodes)] = Kind.OUTLET
        kinds[(np.abs(y) < near) | (np.abs(y - self.height) < near)] = Kind.WALL
        kinds[distance < self.radius * (1 + 1e-6)] = Kind.CYLINDER
        return kinds

    def snapped(self, nodes: Numbers, border: NDArray[np.bool_]) -> Numbers:
        """Nodes [N, 2] of a file, those of its border that are nearly on the channel's put onto it.

        Raises ValueError if a part of the border has none, or the cylinder fewer than eight.
        """
        found, near = nodes.copy(), _SNAP * self.height
        for axis, end in enumerate((self.length, self.height)):
            for side in (0.0, end):
                found[border & (np.abs(found[:, axis] - side) < near), axis] = side
        centre = np.array([self.x, self.y])
        away = found - centre
        distance = np.hypot(*away.T)
        on = border & (np.abs(distance - self.radius) < _ROUNDED * self.radius)
        found[on] = centre + away[on] * (self.radius / distance[on])[:, None]
        kinds = self.kinds(found)
        for kind in Kind:
            if (kinds == kind).sum() < (8 if kind is Kind.CYLINDER else 1):
                raise ValueError(
                    f"The mesh has no nodes, or too few, that are {kind.name.lower()} of {self}; "
                    "state what the mesh has, or leave the mesh out."
                )
        return found

    def leaves(self, nodes: Numbers) -> NDArray[np.bool_]:
        """Whether nodes lie where the flow leaves the channel, corners included."""
        found: NDArray[np.bool_] = np.abs(nodes[:, 0] - self.length) < _NEAR * self.height
        return found


@dataclass(frozen=True)
class Flow:
    """What flows through a channel.

    Attributes:
        speed: the mean of the inlet's parabola, in m/s; its peak is 3/2 of that.
        viscosity: kinematic, in m^2/s.
    """

    channel: Channel
    speed: float
    viscosity: float = 1e-3

    across: ClassVar[int] = 1
    """The axis along which a mirror image is as much a flow."""

    def __post_init__(self) -> None:
        for name in ("speed", "viscosity"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(
                    f"The {name} is {getattr(self, name)}; it must be positive and finite."
                )

    @property
    def reynolds(self) -> float:
        """Re = U D / nu, of the mean speed and the diameter."""
        return self.speed * self.channel.diameter / self.viscosity

    def kinds(self, nodes: Numbers) -> Integers:
        """What nodes [N, 2] are, see :meth:`Channel.kinds`."""
        return self.channel.kinds(nodes)

    def snapped(self, nodes: Numbers, border: NDArray[np.bool_]) -> Numbers:
        """Nodes of a file, see :meth:`Channel.snapped`."""
        return self.channel.snapped(nodes, border)

    def mirrored(self) -> Flow:
        """The flow upside down."""
        channel = replace(self.channel, y=self.channel.height - self.channel.y)
        return replace(self, channel=channel)

    @property
    def size(self) -> tuple[float, float]:
        """Length and height of the channel."""
        return self.channel.length, self.channel.height

    @property
    def units(self) -> tuple[float, float, float]:
        """Of the fields, velocity and pressure, in which flows that differ in speed alone are
        one."""
        return self.speed, self.speed, self.speed**2

    @property
    def clock(self) -> float:
        """The unit of time, D / U, in seconds: fluid passes the cylinder in it."""
        return self.channel.diameter / self.speed

    @property
    def numbers(self) -> dict[str, float]:
        """What a model is told, by name; the speed follows, and it has no units."""
        channel = self.channel
        return {"reynolds": self.reynolds, "radius": channel.radius, "x": channel.x, "y": channel.y}

    def __str__(self) -> str:
        channel = self.channel
        return (
            f"Re {self.reynolds:.0f}, {self.speed:.3g} m/s past a radius of {channel.radius:.3g} m "
            f"at ({channel.x:.3g}, {channel.y:.3g}) m"
        )

    def inlet(self, y: Numbers) -> Numbers:
        """The speed across the inlet, ``6 U y (H - y) / H^2``."""
        height = self.channel.height
        return 6 * self.speed * y * (height - y) / height**2


def channel_flow_from(numbers: dict[str, Any]) -> Flow:
    """A flow from the plain values that ``dataclasses.asdict`` makes of one."""
    rest = {name: value for name, value in numbers.items() if name != "channel"}
    return Flow(Channel(**numbers["channel"]), **rest)
