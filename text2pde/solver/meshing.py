"""Meshes of scenes: triangulations of channels by gmsh, and uniform meshes of boxes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from text2pde.mesh import Mesh, check_mesh, compact
from text2pde.solver.smoke import CELLS, uniform_mesh
from text2pde.subject import Scene
from text2pde.subject.cylinder.channel import Channel
from text2pde.subject.smoke.plume import Plume


class MeshSizes(NamedTuple):
    """Edge lengths.

    Attributes:
        near: on the cylinder, in units of its radius.
        far: the longest, in metres.
        growth: per distance from the cylinder; a sixth of that downstream.
    """

    near: float = 0.24
    far: float = 0.045
    growth: float = 0.3


DEFAULT_SIZES = MeshSizes()
_DOWNSTREAM = 6.0
_GMSH_LOCK = threading.Lock()
"""gmsh holds one model for the whole process."""


def mesh_of(scene: Scene) -> Mesh:
    """The default mesh of a scene."""
    if isinstance(scene, Plume):
        return uniform_mesh(scene, CELLS)
    return triangulate(scene.channel)


def triangulate(channel: Channel, sizes: MeshSizes = DEFAULT_SIZES) -> Mesh:
    """A mesh of the channel, refined at the cylinder and in its wake.

    It is deterministic.

    Raises:
        ValueError: without the package gmsh, and for sizes that are not positive.
    """
    if not all(size > 0 for size in sizes):
        raise ValueError(f"The edge lengths are {tuple(sizes)}; they must be positive.")

    def size(x: float, y: float) -> float:
        ahead = channel.x - x
        distance = float(np.hypot(ahead if ahead > 0 else ahead / _DOWNSTREAM, y - channel.y))
        away = max(0.0, distance - channel.radius)
        return min(sizes.far, sizes.near * channel.radius + sizes.growth * away)

    with _gmsh() as gmsh:
        shape, mesh = gmsh.model.occ, gmsh.model.mesh
        rectangle = shape.addRectangle(0, 0, 0, channel.length, channel.height)
        disk = shape.addDisk(channel.x, channel.y, 0, channel.radius, channel.radius)
        shape.cut([(2, rectangle)], [(2, disk)])
        shape.synchronize()
        mesh.setSizeCallback(lambda dim, tag, x, y, z, default: size(x, y))
        mesh.generate(2)
        tags, points, _ = mesh.getNodes()
        _, triangles = mesh.getElementsByType(2)
        return _mesh_from_gmsh(channel, *map(np.asarray, (tags, points, triangles)))


@contextmanager
def _gmsh() -> Iterator[Any]:
    """The package gmsh, with an empty model, for one thread at a time."""
    try:
        import gmsh
    except ModuleNotFoundError as error:
        raise ValueError(
            "Meshing needs the package gmsh; install it with pip install 'retrograde[pde]'."
        ) from error
    with _GMSH_LOCK:
        yield from _with_empty_model(gmsh)


def _with_empty_model(gmsh: Any) -> Iterator[Any]:
    gmsh.initialize(interruptible=False)
    try:
        options = {"General.Terminal": 0, "General.NumThreads": 1}
        options |= dict.fromkeys(
            (
                "Mesh.MeshSizeExtendFromBoundary",
                "Mesh.MeshSizeFromPoints",
                "Mesh.MeshSizeFromCurvature",
            ),
            0,
        )
        for name, value in options.items():
            gmsh.option.setNumber(name, value)
        gmsh.model.add("channel")
        yield gmsh
    finally:
        gmsh.finalize()


def _mesh_from_gmsh(channel: Channel, tags: Any, points: Any, triangles: Any) -> Mesh:
    """Of the nodes that triangles use; gmsh adds the centre of the cylinder."""
    row = np.zeros(int(tags.max()) + 1, dtype=np.int64)
    row[tags.astype(np.int64)] = np.arange(len(tags))
    nodes, oriented = compact(points.reshape(-1, 3)[:, :2], row[triangles.astype(np.int64)])
    mesh = Mesh(nodes, oriented, channel.kinds(nodes))
    check_mesh(mesh)
    return mesh
