"""Meshes as the autoencoder takes them: node features, and edges to and from the latent grid.

What does not depend on time is computed once for a mesh. A batch of meshes is one graph with
separate components, so that nothing is padded and no mesh depends on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from text2pde.autoencoder.grid import LatentGrid
from text2pde.mesh import FloatArray, IntArray, Mesh, NodeKind

NEIGHBOURS = 4
"""The fewest that a point has."""
FEATURES = len(NodeKind) + 1
"""Of a node: its kind, one-hot, and its distance from walls."""


class EdgeTensors(NamedTuple):
    """Edges with their geometry.

    Attributes:
        target, source: indices of points [E].
        offset: of the source from the target, in radii of the neighbourhood [E, 2].
        share: quadrature weights of the sources, which add up to 1 for each target [E].
    """

    target: Tensor
    source: Tensor
    offset: Tensor
    share: Tensor

    def to(self, like: Tensor) -> EdgeTensors:
        """On the device of a tensor, with its dtype for offsets and shares."""
        indices = (self.target.to(like.device), self.source.to(like.device))
        return EdgeTensors(*indices, self.offset.to(like), self.share.to(like))


class MeshBatch(NamedTuple):
    """A batch of meshes as one graph.

    Attributes:
        sizes: the number of nodes of each mesh.
        features: of the nodes [N, FEATURES].
        moving: 0 where the no-slip condition holds, else 1 [N].
        inwards: edges from nodes to latent points.
        outwards: edges from latent points to nodes.
    """

    sizes: tuple[int, ...]
    features: Tensor
    moving: Tensor
    inwards: EdgeTensors
    outwards: EdgeTensors

    def to(self, like: Tensor) -> MeshBatch:
        """On the device of a tensor, with its dtype for all but indices."""
        edges = (self.inwards.to(like), self.outwards.to(like))
        return MeshBatch(self.sizes, self.features.to(like), self.moving.to(like), *edges)


def prepare_mesh(mesh: Mesh, grid: LatentGrid, radius: float) -> MeshBatch:
    """A batch of one mesh.

    Args:
        radius: of neighbourhoods, in spacings of the grid.
    """
    reach = radius * grid.spacing
    points = grid.points
    inwards = find_edges(points, mesh.nodes, reach, NEIGHBOURS)
    outwards = find_edges(mesh.nodes, points, reach, NEIGHBOURS)
    fixed = np.isin(mesh.kinds, (NodeKind.WALL, NodeKind.CYLINDER))
    return MeshBatch(
        (len(mesh.nodes),),
        torch.from_numpy(_features(mesh, reach)).float(),
        torch.from_numpy(~fixed).float(),
        _edge_tensors(inwards, points, mesh.nodes, mesh.node_areas, reach),
        _edge_tensors(outwards, mesh.nodes, points, np.ones(len(points)), reach),
    )


def join_batches(batches: Sequence[MeshBatch], grid: LatentGrid) -> MeshBatch:
    """Several batches as one."""
    nodes = np.cumsum([0, *(sum(batch.sizes) for batch in batches)]).tolist()
    points = np.cumsum([0, *(len(batch.sizes) * len(grid.points) for batch in batches)]).tolist()
    return MeshBatch(
        tuple(size for batch in batches for size in batch.sizes),
        torch.cat([batch.features for batch in batches]),
        torch.cat([batch.moving for batch in batches]),
        _joined([b.inwards for b in batches], points, nodes),
        _joined([b.outwards for b in batches], nodes, points),
    )


def _joined(
    every: Sequence[EdgeTensors], targets: Sequence[int], sources: Sequence[int]
) -> EdgeTensors:
    """Edges whose indices are shifted by the points before them."""
    return EdgeTensors(
        torch.cat([e.target + first for e, first in zip(every, targets, strict=False)]),
        torch.cat([e.source + first for e, first in zip(every, sources, strict=False)]),
        torch.cat([e.offset for e in every]),
        torch.cat([e.share for e in every]),
    )


def _edge_tensors(
    edges: Edges, targets: FloatArray, sources: FloatArray, areas: FloatArray, reach: float
) -> EdgeTensors:
    offset = (sources[edges.source] - targets[edges.target]) / reach
    weight = areas[edges.source]
    total = np.bincount(edges.target, weight, minlength=len(targets))
    return EdgeTensors(
        torch.from_numpy(edges.target),
        torch.from_numpy(edges.source),
        torch.from_numpy(offset).float(),
        torch.from_numpy(weight / total[edges.target]).float(),
    )


def _features(mesh: Mesh, reach: float) -> FloatArray:
    """The kind of each node, and its distance from walls and cylinder in radii, up to 4."""
    kinds = np.eye(len(NodeKind))[mesh.kinds]
    solid = mesh.nodes[np.isin(mesh.kinds, (NodeKind.WALL, NodeKind.CYLINDER))]
    distance, _ = cKDTree(solid).query(mesh.nodes)
    return np.concatenate([kinds, np.minimum(distance / reach, 4)[:, None]], axis=1)


# ------------------------------------------------------------------------------- neighbourhoods


class Edges(NamedTuple):
    """Pairs of a target and one of its sources, as indices [E], sorted by target."""

    target: IntArray
    source: IntArray


def find_edges(targets: FloatArray, sources: FloatArray, radius: float, least: int) -> Edges:
    """The sources within the radius of each target, or its ``least`` nearest if they are fewer.

    So no target is without sources, however coarse the mesh is.

    Raises:
        ValueError: if there are fewer than ``least`` sources.
    """
    if len(sources) < least:
        raise ValueError(f"{len(sources)} points are too few to have {least} neighbours each.")
    tree = cKDTree(sources)
    within = tree.query_ball_point(targets, radius, return_sorted=True)
    counts = np.array([len(found) for found in within])
    few = np.flatnonzero(counts < least)
    if len(few):
        _, nearest = tree.query(targets[few], k=least)
        for row, found in zip(few, nearest.reshape(len(few), least), strict=True):
            within[row] = sorted(found)
            counts[row] = least
    target = np.repeat(np.arange(len(targets)), counts)
    source = np.concatenate([np.asarray(found, dtype=np.int64) for found in within])
    return Edges(target.astype(np.int64), source)
