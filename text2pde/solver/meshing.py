"""Triangles in a channel, by gmsh."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from text2pde.channel import Channel
from text2pde.mesh import Mesh, check_mesh, trimmed


class Sizes(NamedTuple):
    """Lengths of edges.

    Attributes:
        near: on the cylinder, in units of its radius.
        far: the longest of all, in metres.
        growth: by how much they grow on the way from the cylinder, a sixth of that downstream.
    """

    near: float = 0.24
    far: float = 0.045
    growth: float = 0.3


DEFAULT = Sizes()
_WAKE = 6.0
_ONE_AT_A_TIME = threading.Lock()
"""Of the threads of a process; gmsh holds one model for all."""


def triangulate(channel: Channel, sizes: Sizes = DEFAULT) -> Mesh:
    """Triangles that fill the channel around the cylinder, finer there and in its wake.

    The same channel and sizes give the same mesh. Raises ValueError without the package gmsh, and
    for sizes that are not positive.
    """
    if not all(size > 0 for size in sizes):
        raise ValueError(f"The sizes of edges are {tuple(sizes)}; they must be positive.")

    def size(x: float, y: float) -> float:
        ahead = channel.x - x
        distance = float(np.hypot(ahead if ahead > 0 else ahead / _WAKE, y - channel.y))
        away = max(0.0, distance - channel.radius)
        return min(sizes.far, sizes.near * channel.radius + sizes.growth * away)

    with _gmsh() as gmsh:
        shape, mesh = gmsh.model.occ, gmsh.model.mesh
        whole = shape.addRectangle(0, 0, 0, channel.length, channel.height)
        hole = shape.addDisk(channel.x, channel.y, 0, channel.radius, channel.radius)
        shape.cut([(2, whole)], [(2, hole)])
        shape.synchronize()
        mesh.setSizeCallback(lambda dim, tag, x, y, z, default: size(x, y))
        mesh.generate(2)
        tags, places, _ = mesh.getNodes()
        _, corners = mesh.getElementsByType(2)
        return _built(channel, np.asarray(tags), np.asarray(places), np.asarray(corners))


@contextmanager
def _gmsh() -> Iterator[Any]:
    """The package, which holds one model for the whole process, with an empty one."""
    try:
        import gmsh
    except ModuleNotFoundError as error:
        raise ValueError(
            "Meshes are made by the package gmsh; install it with pip install 'retrograde[pde]'."
        ) from error
    with _ONE_AT_A_TIME:
        yield from _opened(gmsh)


def _opened(gmsh: Any) -> Iterator[Any]:
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


def _built(channel: Channel, tags: Any, places: Any, corners: Any) -> Mesh:
    """A mesh of the nodes that triangles have; gmsh adds the centre of the cylinder."""
    row = np.zeros(int(tags.max()) + 1, dtype=np.int64)
    row[tags.astype(np.int64)] = np.arange(len(tags))
    nodes, triangles = trimmed(places.reshape(-1, 3)[:, :2], row[corners.astype(np.int64)])
    mesh = Mesh(nodes, triangles, channel.kinds(nodes))
    check_mesh(mesh)
    return mesh
