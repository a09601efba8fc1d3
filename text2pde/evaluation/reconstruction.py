"""The autoencoder alone: the reconstruction of clips that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator, RegularGridInterpolator

from text2pde.autoencoder.clips import PreparedClip, prepare_clip
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.autoencoder.objective import (
    RelativeErrors,
    mean_errors,
    reconstruction_errors,
    relative_errors,
)
from text2pde.data.clip import Clip
from text2pde.mesh import FloatArray

_SIDE = 32


class Reconstruction(NamedTuple):
    """Relative errors, mean over clips.

    Attributes:
        model: of the autoencoder.
        interpolated: of linear interpolation to a grid of 32 x 32 and back.
        compression: the numbers of a clip over those of its latent.
    """

    model: RelativeErrors
    interpolated: RelativeErrors
    compression: float


def evaluate_reconstruction(
    model: MeshAutoencoder, clips: Sequence[Clip], frames: int
) -> Reconstruction:
    """Encode and decode the first frames of each clip."""
    prepared = [prepare_clip(clip, model.grid, model.config.radius) for clip in clips]
    coded = [reconstruction_errors(model, clip, frames) for clip in prepared]
    plain = [_interpolated(c, p, frames) for c, p in zip(clips, prepared, strict=True)]
    latent = torch.Size(model.latent_shape(frames)).numel()
    values = np.mean([clip.fields[:frames].size for clip in clips])
    return Reconstruction(mean_errors(coded), mean_errors(plain), float(values) / latent)


def _interpolated(clip: Clip, prepared: PreparedClip, frames: int) -> RelativeErrors:
    """From the nodes to a regular grid over the domain, and back."""
    x = prepared.fields[:frames]
    nodes, values = clip.mesh.nodes, rearrange(x, "f n c -> n (f c)").numpy()
    ends = nodes.max(axis=0)
    axes = tuple(np.linspace(0, end, _SIDE) for end in ends)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    on_grid = interpolate(nodes, values.astype(np.float64), grid.reshape(-1, 2))
    back = RegularGridInterpolator(axes, on_grid.reshape(_SIDE, _SIDE, -1))(nodes)
    found = rearrange(torch.from_numpy(back).float(), "n (f c) -> f n c", f=len(x))
    return relative_errors(found, x, prepared.areas)


def interpolate(nodes: FloatArray, values: FloatArray, points: FloatArray) -> FloatArray:
    """Values [N, K] at nodes, interpolated linearly to points, and from the nearest node outside
    their convex hull."""
    found: FloatArray = LinearNDInterpolator(nodes, values)(points)
    outside = np.isnan(found).any(axis=1)
    if outside.any():
        found[outside] = NearestNDInterpolator(nodes, values)(points[outside])
    return found
