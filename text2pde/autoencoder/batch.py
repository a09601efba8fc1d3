"""Meshes as the model takes them: what is known of a mesh, and several meshes as one.

Everything that does not change in time is found once for a mesh. A batch of different meshes is one
larger mesh of separate parts, so nothing is padded and no mesh knows of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.neighbours import Edges, find_edges
from text2pde.mesh import Kind, Mesh, Numbers

NEIGHBOURS = 4
"""That every point has at least."""
FEATURES = len(Kind) + 1
"""Of a node: which kind it is, and how far from a border."""


class EdgeTensors(NamedTuple):
    """Edges, with what the kernel knows of each.

    Attributes:
        target, source: numbers of the points [E].
        offset: of the source from the target, in radii of the neighbourhood [E, 2].
        share: of the source in the mean over its target's sources [E]; they add up to 1.
    """

    target: Tensor
    source: Tensor
    offset: Tensor
    share: Tensor

    def to(self, like: Tensor) -> EdgeTensors:
        """The same on the device of a tensor, and offsets and shares in its type."""
        places = (self.target.to(like.device), self.source.to(like.device))
        return EdgeTensors(*places, self.offset.to(like), self.share.to(like))


class MeshBatch(NamedTuple):
    """Meshes, one after the other.

    Attributes:
        sizes: nodes of each.
        features: of the nodes [N, FEATURES].
        moving: 0 where fluid rests, on walls and cylinder, else 1 [N].
        inwards: edges from nodes to points of the grid; outwards: from these to nodes.
    """

    sizes: tuple[int, ...]
    features: Tensor
    moving: Tensor
    inwards: EdgeTensors
    outwards: EdgeTensors

    def to(self, like: Tensor) -> MeshBatch:
        """The same on the device of a tensor, and what is no number of a point in its type."""
        edges = (self.inwards.to(like), self.outwards.to(like))
        return MeshBatch(self.sizes, self.features.to(like), self.moving.to(like), *edges)


def prepare(mesh: Mesh, grid: LatentGrid, radius: float) -> MeshBatch:
    """A batch of one mesh; radius: of neighbourhoods, in spacings of the grid."""
    reach = radius * grid.spacing
    points = grid.points
    inwards = find_edges(points, mesh.nodes, reach, NEIGHBOURS)
    outwards = find_edges(mesh.nodes, points, reach, NEIGHBOURS)
    still = np.isin(mesh.kinds, (Kind.WALL, Kind.CYLINDER))
    return MeshBatch(
        (len(mesh.nodes),),
        torch.from_numpy(_features(mesh, reach)).float(),
        torch.from_numpy(~still).float(),
        _tensors(inwards, points, mesh.nodes, mesh.node_areas, reach),
        _tensors(outwards, mesh.nodes, points, np.ones(len(points)), reach),
    )


def join(batches: Sequence[MeshBatch], grid: LatentGrid) -> MeshBatch:
    """Several batches as one."""
    nodes = np.cumsum([0, *(sum(batch.sizes) for batch in batches)]).tolist()
    points = np.cumsum([0, *(len(batch.sizes) * len(grid.points) for batch in batches)]).tolist()
    inwards = [b.inwards for b in batches]
    outwards = [b.outwards for b in batches]
    return MeshBatch(
        tuple(size for batch in batches for size in batch.sizes),
        torch.cat([batch.features for batch in batches]),
        torch.cat([batch.moving for batch in batches]),
        _joined(inwards, points, nodes),
        _joined(outwards, nodes, points),
    )


def _joined(
    every: Sequence[EdgeTensors], targets: Sequence[int], sources: Sequence[int]
) -> EdgeTensors:
    return EdgeTensors(
        torch.cat([e.target + first for e, first in zip(every, targets, strict=False)]),
        torch.cat([e.source + first for e, first in zip(every, sources, strict=False)]),
        torch.cat([e.offset for e in every]),
        torch.cat([e.share for e in every]),
    )


def _tensors(
    edges: Edges, targets: Numbers, sources: Numbers, areas: Numbers, reach: float
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


def _features(mesh: Mesh, reach: float) -> Numbers:
    """Which kind a node is, and how far it is from what it can't pass, in radii, up to 4."""
    kinds = np.eye(len(Kind))[mesh.kinds]
    border = mesh.nodes[np.isin(mesh.kinds, (Kind.WALL, Kind.CYLINDER))]
    distance, _ = cKDTree(border).query(mesh.nodes)
    return np.concatenate([kinds, np.minimum(distance / reach, 4)[:, None]], axis=1)
