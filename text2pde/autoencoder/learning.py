"""What the autoencoder learns: to give back clips through a latent that is near a normal one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from samplers.training import Objective
from text2pde.autoencoder.batch import join
from text2pde.autoencoder.clips import Prepared
from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.model import MeshAutoencoder


class CaseIndices:
    """The places of clips in a list, as a data set; clips of different meshes can't be stacked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.tensor(index)


def reconstruction_loss(
    clips: Sequence[Prepared], grid: LatentGrid, frames: int, kl_weight: float
) -> Objective:
    r"""``E |x - D(z)|^2 + w KL``, of windows of so many frames, on batches of places of clips.

    The square is the mean over frames, fields and the area, so that fine parts of a mesh weigh no
    more than others. No clip may be shorter than a window.
    """

    def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        chosen = [clips[number] for number in batch.tolist()]
        device = batch.device
        windows = []
        for clip in chosen:
            first = int(torch.randint(len(clip.fields) - frames + 1, (), generator=generator))
            windows.append(clip.fields[first : first + frames])
        x = torch.cat(windows, dim=1).to(device)
        meshes = join([clip.mesh for clip in chosen], grid).to(x)
        weights = torch.cat([clip.areas for clip in chosen]).to(device) / len(chosen)
        found, law = model(x, meshes, generator)
        square = ((found - x).square().mean(dim=(0, 2)) * weights).sum()
        loss: Tensor = square + kl_weight * law.divergence
        return loss

    return objective


class Errors(NamedTuple):
    """Relative errors of a reconstruction: of all fields, and of the velocity across."""

    overall: float
    across: float


def relative_errors(found: Tensor, x: Tensor, areas: Tensor) -> Errors:
    """``|found - x| / |x|`` of fields [F, N, 3] without units, in the norm of L2 over the area."""

    def norm(values: Tensor) -> float:
        return float((values.square() * areas[None, :, None]).sum().sqrt())

    return Errors(
        norm(found - x) / norm(x), norm(found[..., 1:2] - x[..., 1:2]) / norm(x[..., 1:2])
    )


def reconstruction_errors(model: MeshAutoencoder, clip: Prepared, frames: int) -> Errors:
    """Of the first frames of a clip, through the mean of its latent."""
    x = clip.fields[:frames].to(next(model.parameters()))
    mesh = clip.mesh.to(x)
    found = model.decode(model.encode(x, mesh).mean, mesh)
    return relative_errors(found, x, clip.areas.to(x))


def mean_errors(errors: Sequence[Errors]) -> Errors:
    """In the mean over clips."""
    return Errors(*(sum(values) / len(errors) for values in zip(*errors, strict=True)))
