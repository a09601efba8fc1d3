"""The autoencoder: fields at the nodes of meshes to a latent grid in space and time, and back."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Generator, Tensor, nn

from text2pde.autoencoder.batch import FEATURES, MeshBatch
from text2pde.autoencoder.grid import LatentGrid
from text2pde.autoencoder.kernel import KernelSum

FIELDS = 3
"""Two of velocity, and pressure or density."""


class Posterior(NamedTuple):
    """A normal law of the latent, [B, Z, frames, rows, columns] each."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """A latent, of standard normal noise."""
        return self.mean + (self.log_variance / 2).exp() * noise

    @property
    def divergence(self) -> Tensor:
        """KL from the standard normal law, in the mean over the numbers of the latent."""
        found = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return found.mean() / 2


class MeshAutoencoder(ModelMixin, ConfigMixin):
    """Flows on any meshes as latents of one size.

    Args:
        channels: at full resolution, doubled at each halving. latent: channels of the latent.
        halvings: of frames, rows and columns. radius: of neighbourhoods, in spacings of the grid.
        columns, rows, length, height: of the :class:`~text2pde.autoencoder.grid.LatentGrid`.

    Fields are in units in which they have a standard deviation of about 1.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        channels: int = 24,
        latent: int = 8,
        halvings: int = 2,
        radius: float = 1.6,
        columns: int = 64,
        rows: int = 16,
        length: float = 1.6,
        height: float = 0.41,
    ) -> None:
        super().__init__()
        self.grid = LatentGrid(columns, rows, length, height)
        _check_divisible(self.grid, halvings)
        widths = [channels * 2**level for level in range(halvings + 1)]
        self.lift = nn.Linear(FIELDS + FEATURES, channels)
        self.gather = KernelSum(channels, FEATURES)
        self.down = nn.Sequential(
            *(Halving(a, b) for a, b in pairwise(widths)),
            Block(widths[-1]),
        )
        self.to_latent = nn.Conv3d(widths[-1], 2 * latent, 1)
        self.from_latent = nn.Conv3d(latent, widths[-1], 1)
        self.up = nn.Sequential(
            Block(widths[-1]),
            *(Doubling(b, a) for a, b in reversed(list(pairwise(widths)))),
        )
        self.scatter = KernelSum(channels, FEATURES)
        self.project = nn.Sequential(
            nn.Linear(channels + FEATURES, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, FIELDS)
        )

    def forward(
        self, fields: Tensor, meshes: MeshBatch, generator: Generator
    ) -> tuple[Tensor, Posterior]:
        """What comes back of fields through a random latent, and its law."""
        law = self.encode(fields, meshes)
        noise = torch.randn(law.mean.shape, generator=generator).to(law.mean)
        return self.decode(law.draw(noise), meshes), law

    def encode(self, fields: Tensor, meshes: MeshBatch) -> Posterior:
        """The latent of fields at the nodes of all meshes, one after the other, [F, N, 3].

        Raises ValueError for another number of nodes than the meshes have, and for frames that
        can't be halved as often as they must.
        """
        return self.posterior(self.on_grid(fields, meshes))

    def on_grid(self, fields: Tensor, meshes: MeshBatch) -> Tensor:
        """Fields [F, N, 3] gathered on the grid, each frame for itself, [B, C, F, rows, columns].

        Raises ValueError for another number of nodes than the meshes have.
        """
        self._check_nodes(fields, meshes)
        features = meshes.features.expand(len(fields), -1, -1)
        lifted = self.lift(torch.cat([fields, features], dim=2))
        edges = meshes.inwards
        points = len(meshes.sizes) * self.grid.rows * self.grid.columns
        found = self.gather(lifted, edges, meshes.features[edges.source], points)
        return self._as_grid(found, meshes)

    def posterior(self, grid: Tensor) -> Posterior:
        """The latent of what :meth:`on_grid` gathered.

        Raises ValueError for frames that can't be halved as often as they must.
        """
        self._check_halves(grid.shape[2])
        mean, log_variance = self.to_latent(self.down(grid)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-20, 10))

    def decode(self, latent: Tensor, meshes: MeshBatch) -> Tensor:
        """Fields [F, N, 3] at the nodes of meshes, which need not be those that were encoded.

        Fluid rests on walls and cylinders exactly.
        """
        grid = self.up(self.from_latent(latent))
        values = rearrange(grid, "b c f rows columns -> f (b rows columns) c")
        edges, nodes = meshes.outwards, len(meshes.features)
        found = self.scatter(values, edges, meshes.features[edges.target], nodes)
        features = meshes.features.expand(len(found), -1, -1)
        fields: Tensor = self.project(torch.cat([found, features], dim=2))
        moving = torch.stack([meshes.moving, meshes.moving, torch.ones_like(meshes.moving)], dim=1)
        return fields * moving

    def latent_shape(self, frames: int) -> tuple[int, int, int, int]:
        """Of one clip of so many frames: channels, frames, rows, columns."""
        config, share = self.config, 2**self.config.halvings
        return (config.latent, frames // share, config.rows // share, config.columns // share)

    def check_frames(self, frames: int, shortest: int, name: str) -> None:
        """Raise ValueError unless so many frames can be encoded, and clips have as many."""
        share = 2**self.config.halvings
        if frames % share:
            raise ValueError(f"{frames} frames were asked for; take a multiple of {share}.")
        if shortest < frames:
            raise ValueError(
                f"The shortest clip that is {name} has {shortest} frames, less than the {frames} "
                "that are asked for; take fewer, or simulate more."
            )

    def _as_grid(self, values: Tensor, meshes: MeshBatch) -> Tensor:
        """[F, B * rows * columns, C] as [B, C, F, rows, columns]."""
        sizes = {"b": len(meshes.sizes), "rows": self.grid.rows, "columns": self.grid.columns}
        return rearrange(values, "f (b rows columns) c -> b c f rows columns", **sizes)

    def _check_nodes(self, fields: Tensor, meshes: MeshBatch) -> None:
        if fields.ndim != 3 or fields.shape[1:] != (sum(meshes.sizes), FIELDS):
            raise ValueError(
                f"Fields have the shape {list(fields.shape)}; they must be [frames, "
                f"{sum(meshes.sizes)}, {FIELDS}] for these meshes."
            )

    def _check_halves(self, frames: int) -> None:
        share = 2**self.config.halvings
        if frames % share:
            raise ValueError(f"{frames} frames came; their number must be a multiple of {share}.")


def load_autoencoder(folder: Path) -> MeshAutoencoder:
    """The model in a folder, in evaluation mode; ValueError if there is none, or it is broken."""
    try:
        config = MeshAutoencoder.load_config(folder, local_files_only=True)
        if config["_class_name"] != MeshAutoencoder.__name__:
            raise ValueError(f"it holds a {config['_class_name']}")
        found: MeshAutoencoder = MeshAutoencoder.from_pretrained(folder, local_files_only=True)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        inside = folder / "autoencoder"
        hint = f"; {inside} may be meant" if inside.is_dir() else ", or is broken"
        raise ValueError(f"{folder} holds no autoencoder of flows{hint}.") from error
    found.eval()
    return found


def _check_divisible(grid: LatentGrid, halvings: int) -> None:
    share = 2**halvings
    if grid.columns % share or grid.rows % share:
        raise ValueError(
            f"A grid of {grid.columns} x {grid.rows} can't be halved {halvings} times; take "
            f"multiples of {share}."
        )


class Block(nn.Module):
    """Two convolutions, added to what came."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_groups(channels), channels), nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(_groups(channels), channels), nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.layers(x)
        return changed


class Halving(nn.Sequential):
    """A block at one resolution, and half of that."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(Block(before), nn.Conv3d(before, after, 4, stride=2, padding=1))


class Doubling(nn.Sequential):
    """Twice the resolution, and a block at that."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2), nn.Conv3d(before, after, 3, padding=1), Block(after)
        )


def _groups(channels: int) -> int:
    return 8 if channels % 8 == 0 else 1
