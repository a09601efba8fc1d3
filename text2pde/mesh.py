"""Meshes of triangles in the plane, and what their nodes are."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]


class Kind(IntEnum):
    """Where a node lies."""

    INTERIOR = 0
    INLET = 1
    OUTLET = 2
    WALL = 3
    CYLINDER = 4


class Mesh(NamedTuple):
    """Triangles in the plane.

    Attributes:
        nodes: places [N, 2], in metres.
        triangles: the three nodes of each [T, 3], counterclockwise.
        kinds: of the nodes [N], values of :class:`Kind`.
    """

    nodes: Numbers
    triangles: Integers
    kinds: Integers

    @property
    def corners(self) -> Numbers:
        """The places of the nodes of each triangle, [T, 3, 2]."""
        corners: Numbers = self.nodes[self.triangles]
        return corners

    @property
    def areas(self) -> Numbers:
        """Of the triangles [T]; positive where their nodes run counterclockwise."""
        a, b = (self.corners[:, i] - self.corners[:, 0] for i in (1, 2))
        areas: Numbers = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
        return areas

    @property
    def heights(self) -> Numbers:
        """The least height of each triangle [T], which limits explicit steps in time."""
        edges = self.corners - np.roll(self.corners, 1, axis=1)
        heights: Numbers = 2 * self.areas / np.linalg.norm(edges, axis=2).max(axis=1)
        return heights

    @property
    def node_areas(self) -> Numbers:
        """A third of the triangles around each node [N]; they add up to the whole."""
        shares = np.repeat(self.areas / 3, 3)
        return np.bincount(self.triangles.ravel(), shares, len(self.nodes)).astype(np.float64)


def trimmed(places: Numbers, corners: Integers) -> tuple[Numbers, Integers]:
    """The places that triangles have as corners, and the triangles by these, counterclockwise.

    Args:
        places: [P, 2]; corners: rows of them, in threes.
    """
    used, flat = np.unique(corners, return_inverse=True)
    nodes = np.ascontiguousarray(places[used])
    triangles = flat.reshape(-1, 3).astype(np.int64)
    turned = Mesh(nodes, triangles, np.zeros(len(nodes), dtype=np.int64)).areas < 0
    triangles[turned] = triangles[turned][:, ::-1]
    return nodes, triangles


def bordering(triangles: Integers, count: int) -> NDArray[np.bool_]:
    """Whether each of so many nodes lies on the border: on an edge of one triangle alone.

    Raises ValueError if an edge has more than two triangles.
    """
    sides = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, uses = np.unique(sides, axis=0, return_counts=True)
    if uses.max() > 2:
        raise ValueError("Some triangles lie on each other: an edge belongs to more than two.")
    found = np.zeros(count, dtype=np.bool_)
    found[edges[uses == 1]] = True
    return found


def check_mesh(mesh: Mesh) -> None:
    """Raise ValueError unless the mesh is one of sound triangles in the plane."""
    nodes, triangles, kinds = mesh
    if nodes.ndim != 2 or nodes.shape[1] != 2:
        raise ValueError(f"Nodes have the shape {list(nodes.shape)}; they must lie in the plane.")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"Triangles have the shape {list(triangles.shape)}, not [T, 3].")
    if kinds.shape != (len(nodes),):
        raise ValueError(f"{len(kinds)} kinds came for {len(nodes)} nodes; give one for each.")
    if not np.isin(kinds, list(Kind)).all():
        raise ValueError(f"Kinds of nodes must be from {min(Kind)} to {max(Kind)}.")
    if not np.isfinite(nodes).all():
        raise ValueError("Some nodes lie nowhere: their places are not finite.")
    if triangles.min() < 0 or triangles.max() >= len(nodes):
        raise ValueError(f"Triangles name nodes beyond the {len(nodes)} that there are.")
    if not (mesh.areas > 0).all():
        raise ValueError(f"{int((mesh.areas <= 0).sum())} triangles have no positive area.")
