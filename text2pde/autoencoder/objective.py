"""The loss of the autoencoder, and the errors of its reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from samplers.training import Objective
from text2pde.autoencoder.batch import join_batches
from text2pde.autoencoder.clips import PreparedClip
from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.model import MeshAutoencoder


class Indices:
    """The indices 0, 1, …, as a data set: clips on different meshes can't be stacked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.tensor(index)


def reconstruction_loss(
    clips: Sequence[PreparedClip], grid: LatentGrid, frames: int, kl_weight: float
) -> Objective:
    r"""The loss of a VAE, :math:`E |x - D(z)|^2 + w \, KL`, on batches of clip indices.

    The square is the mean over frames, fields and area, so that refined parts of a mesh weigh no
    more than others.

    Args:
        frames: of the windows that are cut at random; no clip may be shorter.
    """

    def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        chosen = [clips[index] for index in batch.tolist()]
        device = batch.device
        windows = []
        for clip in chosen:
            first = int(torch.randint(len(clip.fields) - frames + 1, (), generator=generator))
            windows.append(clip.fields[first : first + frames])
        x = torch.cat(windows, dim=1).to(device)
        meshes = join_batches([clip.mesh for clip in chosen], grid).to(x)
        weights = torch.cat([clip.areas for clip in chosen]).to(device) / len(chosen)
        found, posterior = model(x, meshes, generator)
        square = ((found - x).square().mean(dim=(0, 2)) * weights).sum()
        loss: Tensor = square + kl_weight * posterior.kl
        return loss

    return objective


class RelativeErrors(NamedTuple):
    """Of all fields, and of the transverse velocity."""

    overall: float
    transverse: float


def relative_errors(found: Tensor, x: Tensor, areas: Tensor) -> RelativeErrors:
    """``|found - x| / |x|`` of dimensionless fields [F, N, 3], in L2 over area and time."""

    def norm(values: Tensor) -> float:
        return float((values.square() * areas[None, :, None]).sum().sqrt())

    return RelativeErrors(
        norm(found - x) / norm(x), norm(found[..., 1:2] - x[..., 1:2]) / norm(x[..., 1:2])
    )


def reconstruction_errors(
    model: MeshAutoencoder, clip: PreparedClip, frames: int
) -> RelativeErrors:
    """Of the first frames of a clip, decoded from the posterior mean."""
    x = clip.fields[:frames].to(next(model.parameters()))
    mesh = clip.mesh.to(x)
    found = model.decode(model.encode(x, mesh).mean, mesh)
    return relative_errors(found, x, clip.areas.to(x))


def mean_errors(errors: Sequence[RelativeErrors]) -> RelativeErrors:
    """The mean over clips."""
    return RelativeErrors(*(sum(values) / len(errors) for values in zip(*errors, strict=True)))
