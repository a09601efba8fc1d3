"""Clips as the autoencoder takes them: without units, and with their neighbourhoods.

Flows that differ in speed alone are one flow: velocities are divided by the mean speed at the inlet
and pressures by its square, so that the model sees only the Reynolds number and the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2pde.autoencoder.batch import MeshBatch, prepare
from text2pde.autoencoder.grid import LatentGrid
from text2pde.flows.clip import SUFFIX, Clip, load_clip
from text2pde.scene import Scene


class Prepared(NamedTuple):
    """A clip without units.

    Attributes:
        fields: by their units, such as u / U and p / U^2, [F, N, 3] in float32.
        mesh: of it alone. areas: of its nodes, which add up to 1 [N].
        interval: between frames, in units of the flow's clock; 0 if there is but one.
    """

    flow: Scene
    fields: Tensor
    mesh: MeshBatch
    areas: Tensor
    interval: float


def without_units(fields: NDArray[np.float32], flow: Scene) -> Tensor:
    """u / U and p / U^2, of fields [F, N, 3] in SI units."""
    return torch.from_numpy(fields / _units(flow))


def with_units(fields: Tensor, flow: Scene) -> NDArray[np.float32]:
    """The inverse of :func:`without_units`."""
    found: NDArray[np.float32] = fields.detach().cpu().numpy() * _units(flow)
    return found


def _units(flow: Scene) -> NDArray[np.float32]:
    return np.array(flow.units, dtype=np.float32)


def prepare_clip(clip: Clip, grid: LatentGrid, radius: float) -> Prepared:
    """A clip of the size of the grid; ValueError for another."""
    length, height = clip.flow.size
    if (length, height) != (grid.length, grid.height):
        raise ValueError(
            f"A clip is of {length:g} x {height:g} m, and the model of {grid.length:g} x "
            f"{grid.height:g} m; they must be the same."
        )
    mesh, own = prepare(clip.mesh, grid, radius), clip.mesh.node_areas
    areas = torch.from_numpy(own / own.sum()).float()
    fields = without_units(clip.fields, clip.flow)
    return Prepared(clip.flow, fields, mesh, areas, clip.interval)


def as_it_is(clip: Clip) -> Clip:
    return clip


def read_clips(
    paths: Sequence[Path],
    grid: LatentGrid,
    radius: float,
    tick: Callable[[], object] = lambda: None,
    change: Callable[[Clip], Clip] = as_it_is,
) -> list[Prepared]:
    """The clips of files, or what ``change`` makes of them; ValueError if one can't be used."""
    found = []
    for path in paths:
        found.append(prepare_clip(change(load_clip(path)), grid, radius))
        tick()
    return found


def clip_paths(folder: Path) -> list[Path]:
    """The files of clips in a folder, in the order of their names; ValueError if there are none."""
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"There are no clips in {folder}; make some by `text2pde simulate`.")
    return paths
