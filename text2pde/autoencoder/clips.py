"""Clips as the autoencoder takes them: dimensionless, with the graph of their mesh.

Velocities are divided by the mean inlet velocity and pressures by its square, so that the model
sees only the Reynolds number and the geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2pde.autoencoder.batch import MeshBatch, prepare_mesh
from text2pde.autoencoder.grid import LatentGrid
from text2pde.data.clip import Clip, load_clip
from text2pde.subject import Scene


class PreparedClip(NamedTuple):
    """A dimensionless clip.

    Attributes:
        fields: such as u / U and p / U^2, [F, N, 3] in float32.
        mesh: a batch of one.
        areas: of the nodes, normalised to sum 1 [N].
        interval: between frames, in units of the scene's ``time_unit``; 0 for a single frame.
    """

    scene: Scene
    fields: Tensor
    mesh: MeshBatch
    areas: Tensor
    interval: float


def nondimensionalise(fields: NDArray[np.float32], scene: Scene) -> Tensor:
    """Fields [F, N, 3] in SI units, divided by the scales of the scene."""
    return torch.from_numpy(fields / _units(scene))


def redimensionalise(fields: Tensor, scene: Scene) -> NDArray[np.float32]:
    """The inverse of :func:`nondimensionalise`."""
    found: NDArray[np.float32] = fields.detach().cpu().numpy() * _units(scene)
    return found


def _units(scene: Scene) -> NDArray[np.float32]:
    return np.array(scene.units, dtype=np.float32)


def prepare_clip(clip: Clip, grid: LatentGrid, radius: float) -> PreparedClip:
    """Prepare a clip for a model.

    Args:
        radius: of neighbourhoods, in spacings of the grid.

    Raises:
        ValueError: if the domain of the clip is not that of the grid.
    """
    length, height = clip.scene.size
    if (length, height) != (grid.length, grid.height):
        raise ValueError(
            f"The domain of the clip is {length:g} x {height:g} m, and that of the model "
            f"{grid.length:g} x {grid.height:g} m; they must be the same."
        )
    mesh, own = prepare_mesh(clip.mesh, grid, radius), clip.mesh.node_areas
    areas = torch.from_numpy(own / own.sum()).float()
    fields = nondimensionalise(clip.fields, clip.scene)
    return PreparedClip(clip.scene, fields, mesh, areas, clip.interval)


def unchanged(clip: Clip) -> Clip:
    return clip


def read_clips(
    paths: Sequence[Path],
    grid: LatentGrid,
    radius: float,
    tick: Callable[[], object] = lambda: None,
    transform: Callable[[Clip], Clip] = unchanged,
) -> list[PreparedClip]:
    """Read, transform and prepare clips.

    Raises:
        ValueError: as :func:`load_clip` and :func:`prepare_clip` do.
    """
    found = []
    for path in paths:
        found.append(prepare_clip(transform(load_clip(path)), grid, radius))
        tick()
    return found
