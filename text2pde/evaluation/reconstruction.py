"""The autoencoder alone: what comes back of clips of channels that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator, RegularGridInterpolator

from text2pde.autoencoder.clips import Prepared, prepare_clip
from text2pde.autoencoder.learning import (
    Errors,
    mean_errors,
    reconstruction_errors,
    relative_errors,
)
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.flows.clip import Clip
from text2pde.mesh import Numbers

_SIDE = 32


class Reconstruction(NamedTuple):
    """Relative errors, in the mean over clips.

    Attributes:
        coded: of what comes back through the latent. interpolated: through values on a grid of 32 x
            32, linearly. compression: numbers of a clip to one of its latent.
    """

    coded: Errors
    interpolated: Errors
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


def _interpolated(clip: Clip, prepared: Prepared, frames: int) -> Errors:
    """From the nodes to a regular grid over the channel, and back."""
    x = prepared.fields[:frames]
    nodes, values = clip.mesh.nodes, rearrange(x, "f n c -> n (f c)").numpy()
    ends = nodes.max(axis=0)
    axes = tuple(np.linspace(0, end, _SIDE) for end in ends)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    on_grid = spread(nodes, values.astype(np.float64), grid.reshape(-1, 2))
    back = RegularGridInterpolator(axes, on_grid.reshape(_SIDE, _SIDE, -1))(nodes)
    found = rearrange(torch.from_numpy(back).float(), "n (f c) -> f n c", f=len(x))
    return relative_errors(found, x, prepared.areas)


def spread(nodes: Numbers, values: Numbers, places: Numbers) -> Numbers:
    """Values [N, K] at nodes as values at other places, linear between; those of the nearest node
    where no nodes are around."""
    found: Numbers = LinearNDInterpolator(nodes, values)(places)
    beyond = np.isnan(found).any(axis=1)
    if beyond.any():
        found[beyond] = NearestNDInterpolator(nodes, values)(places[beyond])
    return found
