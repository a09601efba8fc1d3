"""Triangular meshes in the plane."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_NEAR = 1e-3
"""How far from the edge of a domain a mesh may end, in units of the domain's shorter side."""


class NodeKind(IntEnum):
    """Where a node lies, which decides its boundary condition."""

    INTERIOR = 0
    INLET = 1
    OUTLET = 2
    WALL = 3
    CYLINDER = 4


class Mesh(NamedTuple):
    """A triangular mesh.

    Attributes:
        nodes: coordinates [N, 2], in metres.
        triangles: node indices [T, 3], counterclockwise.
        kinds: of the nodes [N], values of :class:`NodeKind`.
    """

    nodes: FloatArray
    triangles: IntArray
    kinds: IntArray

    @property
    def vertices(self) -> FloatArray:
        """The coordinates of the vertices of each triangle, [T, 3, 2]."""
        vertices: FloatArray = self.nodes[self.triangles]
        return vertices

    @property
    def areas(self) -> FloatArray:
        """The signed areas of the triangles [T], positive for counterclockwise ones."""
        a, b = (self.vertices[:, i] - self.vertices[:, 0] for i in (1, 2))
        areas: FloatArray = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
        return areas

    @property
    def heights(self) -> FloatArray:
        """The shortest altitude of each triangle [T], which limits explicit time steps."""
        edges = self.vertices - np.roll(self.vertices, 1, axis=1)
        heights: FloatArray = 2 * self.areas / np.linalg.norm(edges, axis=2).max(axis=1)
        return heights

    @property
    def gradients(self) -> FloatArray:
        """The gradients of the three hat functions on each triangle, [T, 3, 2]."""
        opposite = np.roll(self.vertices, -2, axis=1) - np.roll(self.vertices, -1, axis=1)
        normals = np.stack([-opposite[..., 1], opposite[..., 0]], axis=-1)
        gradients: FloatArray = normals / (2 * self.areas)[:, None, None]
        return gradients

    @property
    def node_areas(self) -> FloatArray:
        """A third of the area of the triangles around each node [N] (the lumped mass matrix)."""
        shares = np.repeat(self.areas / 3, 3)
        return np.bincount(self.triangles.ravel(), shares, len(self.nodes)).astype(np.float64)


def compact(points: FloatArray, triangles: IntArray) -> tuple[FloatArray, IntArray]:
    """Drop points that no triangle uses, and orient all triangles counterclockwise.

    Args:
        points: coordinates [P, 2].
        triangles: point indices, three for each triangle, in any shape.
    """
    used, flat = np.unique(triangles, return_inverse=True)
    nodes = np.ascontiguousarray(points[used])
    oriented = flat.reshape(-1, 3).astype(np.int64)
    clockwise = Mesh(nodes, oriented, np.zeros(len(nodes), dtype=np.int64)).areas < 0
    oriented[clockwise] = oriented[clockwise][:, ::-1]
    return nodes, oriented


def boundary_nodes(triangles: IntArray, count: int) -> BoolArray:
    """Whether each of ``count`` nodes lies on the boundary, on an edge of a single triangle.

    Raises:
        ValueError: if an edge belongs to more than two triangles.
    """
    sides = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, uses = np.unique(sides, axis=0, return_counts=True)
    if uses.max() > 2:
        raise ValueError(
            "Some triangles lie on each other: an edge belongs to more than two triangles; "
            "remesh the domain without overlaps."
        )
    found = np.zeros(count, dtype=np.bool_)
    found[edges[uses == 1]] = True
    return found


def check_mesh(mesh: Mesh) -> None:
    """Raise ValueError unless the mesh consists of valid triangles in the plane."""
    nodes, triangles, kinds = mesh
    if nodes.ndim != 2 or nodes.shape[1] != 2:
        raise ValueError(f"The nodes have shape {list(nodes.shape)}; they must have [N, 2].")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"The triangles have shape {list(triangles.shape)}, not [T, 3].")
    if kinds.shape != (len(nodes),):
        raise ValueError(f"{len(kinds)} kinds came for {len(nodes)} nodes; give one for each.")
    if not np.isin(kinds, list(NodeKind)).all():
        raise ValueError(f"Kinds of nodes must be from {min(NodeKind)} to {max(NodeKind)}.")
    if not np.isfinite(nodes).all():
        raise ValueError("Some coordinates of nodes are not finite.")
    if triangles.min() < 0 or triangles.max() >= len(nodes):
        raise ValueError(f"Some triangles name nodes beyond the {len(nodes)} of the mesh.")
    if not (mesh.areas > 0).all():
        raise ValueError(f"{int((mesh.areas <= 0).sum())} triangles have no positive area.")


def check_extent(mesh: Mesh, size: tuple[float, float]) -> None:
    """Raise ValueError unless the mesh fills a rectangle of this size from the origin."""
    low, high = mesh.nodes.min(axis=0), mesh.nodes.max(axis=0)
    near = _NEAR * min(size)
    if np.abs(low).max() > near or np.abs(high - np.array(size)).max() > near:
        raise ValueError(
            f"The mesh reaches from ({low[0]:.4g}, {low[1]:.4g}) to ({high[0]:.4g}, {high[1]:.4g}) "
            f"m; it must fill {size[0]:g} x {size[1]:g} m from the origin."
        )
