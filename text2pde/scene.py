"""What can be simulated, told in a sentence, and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from text2pde.channel import Channel, Flow, channel_flow_from
from text2pde.mesh import Mesh
from text2pde.plume import Plume

Scene = Flow | Plume


def scene_from(numbers: dict[str, Any]) -> Scene:
    """A scene from the plain values that ``dataclasses.asdict`` makes of one."""
    return channel_flow_from(numbers) if "channel" in numbers else Plume(**numbers)


def check_fits(mesh: Mesh, scene: Scene) -> None:
    """Raise ValueError unless a mesh fills a scene, around its cylinder if there is one."""
    size = np.array(scene.size)
    low, high = mesh.nodes.min(axis=0), mesh.nodes.max(axis=0)
    near = 1e-3 * size.min()
    if np.abs(low).max() > near or np.abs(high - size).max() > near:
        raise ValueError(
            f"The mesh reaches from ({low[0]:.4g}, {low[1]:.4g}) to ({high[0]:.4g}, {high[1]:.4g}) "
            f"m; it must fill {size[0]:g} x {size[1]:g} m from the origin."
        )
    if isinstance(scene, Flow):
        _check_cylinder(mesh, scene.channel)


def _check_cylinder(mesh: Mesh, channel: Channel) -> None:
    distance = np.hypot(*(mesh.nodes - np.array([channel.x, channel.y])).T)
    if abs(distance.min() - channel.radius) > 0.02 * channel.radius:
        raise ValueError(
            f"The node of the mesh that is nearest to ({channel.x:g}, {channel.y:g}) m is "
            f"{distance.min():.4g} m away, where the prompt has a cylinder of radius "
            f"{channel.radius:.4g} m; state what the mesh has, or leave the mesh out."
        )
