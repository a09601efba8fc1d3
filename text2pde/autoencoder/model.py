"""The network: fields on meshes to a latent grid in space and time, and back.

Saved pipelines name this module, and their weights its attributes.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Generator, Tensor, nn

from samplers.checkpoint.index import read_json
from samplers.files import refuse_special
from text2pde.autoencoder.batch import FEATURES, EdgeTensors, MeshBatch
from text2pde.autoencoder.grid import LatentGrid

FIELDS = 3
"""Two components of the velocity, and pressure or density."""


class Posterior(NamedTuple):
    """A diagonal Gaussian over latents; mean and log-variance are [B, Z, frames, rows, columns]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A latent, from standard normal noise."""
        return self.mean + (self.log_variance / 2).exp() * noise

    @property
    def kl(self) -> Tensor:
        """The KL divergence from the standard normal distribution, mean over the latent."""
        found = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return found.mean() / 2


class MeshAutoencoder(ModelMixin, ConfigMixin):
    """A variational autoencoder of fields on meshes, by graph kernels and 3D convolutions.

    Args:
        channels: at full resolution, doubled at each downsampling.
        latent: channels of the latent.
        halvings: of frames, rows and columns by downsampling.
        radius: of neighbourhoods, in spacings of the grid.
        columns, rows, length, height: of the :class:`~text2pde.autoencoder.grid.LatentGrid`.

    Fields are dimensionless, with a standard deviation of about 1.
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
            *(Downsampling(a, b) for a, b in pairwise(widths)),
            ResidualBlock(widths[-1]),
        )
        self.to_latent = nn.Conv3d(widths[-1], 2 * latent, 1)
        self.from_latent = nn.Conv3d(latent, widths[-1], 1)
        self.up = nn.Sequential(
            ResidualBlock(widths[-1]),
            *(Upsampling(b, a) for a, b in reversed(list(pairwise(widths)))),
        )
        self.scatter = KernelSum(channels, FEATURES)
        self.project = nn.Sequential(
            nn.Linear(channels + FEATURES, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, FIELDS)
        )

    def forward(
        self, fields: Tensor, meshes: MeshBatch, generator: Generator
    ) -> tuple[Tensor, Posterior]:
        """The reconstruction from a sampled latent, and the posterior."""
        posterior = self.encode(fields, meshes)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        return self.decode(posterior.sample(noise), meshes), posterior

    def encode(self, fields: Tensor, meshes: MeshBatch) -> Posterior:
        """The posterior of fields [F, N, 3] at the nodes of all meshes, concatenated.

        Raises:
            ValueError: if N is not the number of nodes, or F no multiple of ``2**halvings``.
        """
        return self.posterior(self.on_grid(fields, meshes))

    def on_grid(self, fields: Tensor, meshes: MeshBatch) -> Tensor:
        """Fields [F, N, 3] gathered on the grid frame by frame, [B, C, F, rows, columns].

        Raises:
            ValueError: if N is not the number of nodes.
        """
        self._check_nodes(fields, meshes)
        features = meshes.features.expand(len(fields), -1, -1)
        lifted = self.lift(torch.cat([fields, features], dim=2))
        edges = meshes.inwards
        points = len(meshes.sizes) * self.grid.rows * self.grid.columns
        found = self.gather(lifted, edges, meshes.features[edges.source], points)
        return self._as_grid(found, meshes)

    def posterior(self, grid: Tensor) -> Posterior:
        """The posterior of what :meth:`on_grid` gathered.

        Raises:
            ValueError: if the number of frames is no multiple of ``2**halvings``.
        """
        self._check_halves(grid.shape[2])
        mean, log_variance = self.to_latent(self.down(grid)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-20, 10))

    def decode(self, latent: Tensor, meshes: MeshBatch) -> Tensor:
        """Fields [F, N, 3] at the nodes of meshes, which need not be those that were encoded.

        The no-slip condition on walls and cylinders holds exactly.
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
        """The shape of the latent of one clip: channels, frames, rows, columns."""
        config, share = self.config, 2**self.config.halvings
        return (config.latent, frames // share, config.rows // share, config.columns // share)

    def check_frames(self, frames: int, shortest: int, name: str) -> None:
        """Raise ValueError unless windows of so many frames can be encoded.

        Args:
            shortest: the frames of the shortest clip.
            name: of the data set, for the message.
        """
        share = 2**self.config.halvings
        if frames % share:
            raise ValueError(f"{frames} frames were requested; take a multiple of {share}.")
        if shortest < frames:
            raise ValueError(
                f"The shortest {name} clip has {shortest} frames, fewer than the {frames} "
                "requested; take fewer, or simulate more."
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
            raise ValueError(
                f"There are {frames} frames; their number must be a multiple of {share}."
            )


def load_autoencoder(folder: Path | str) -> MeshAutoencoder:
    """Load an autoencoder in evaluation mode.

    Raises:
        ValueError: if the folder holds none, or is incomplete.
    """
    try:
        refuse_special(Path(folder))
        config = read_json(Path(folder) / "config.json")
        if config["_class_name"] != MeshAutoencoder.__name__:
            raise ValueError(f"it holds a {config['_class_name']}")
        found: MeshAutoencoder = MeshAutoencoder.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # diffusers raises any, for configs with values of wrong types
        inside = Path(folder) / "autoencoder"
        hint = f"; {inside} may be meant" if inside.is_dir() else ", or is incomplete"
        raise ValueError(f"{folder} holds no mesh autoencoder{hint}.") from error
    found.eval()
    return found


def _check_divisible(grid: LatentGrid, halvings: int) -> None:
    share = 2**halvings
    if grid.columns % share or grid.rows % share:
        raise ValueError(
            f"A grid of {grid.columns} x {grid.rows} can't be downsampled {halvings} times; take "
            f"multiples of {share}."
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_groups(channels), channels), nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(_groups(channels), channels), nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.layers(x)
        return output


class Downsampling(nn.Sequential):
    """A residual block, and a convolution that halves the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(ResidualBlock(before), nn.Conv3d(before, after, 4, stride=2, padding=1))


class Upsampling(nn.Sequential):
    """Interpolation and a convolution at twice the resolution, and a residual block."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2),
            nn.Conv3d(before, after, 3, padding=1),
            ResidualBlock(after),
        )


def _groups(channels: int) -> int:
    return 8 if channels % 8 == 0 else 1


class KernelSum(nn.Module):
    r"""A graph kernel network (Li et al. 2020, https://arxiv.org/abs/2003.03485).

    .. math:: g(x) = \sum_{y \in B(x)} w_{xy} \, k_\theta(y - x, a) \odot f(y)

    The weights w are shares of the area, so that the sum is a quadrature of an integral over the
    neighbourhood, whatever the mesh.

    Args:
        channels: of the values.
        features: a, of the points on which the kernel depends; 0 for none.
    """

    def __init__(self, channels: int, features: int, hidden: int = 64) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(2 + features, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, channels),
        )  # fmt: skip

    def forward(self, values: Tensor, edges: EdgeTensors, features: Tensor, count: int) -> Tensor:
        """The values at the targets [F, count, C].

        Args:
            values: at the sources [F, S, C].
            features: of each edge [E, features].
            count: the number of targets.
        """
        weights = self.kernel(torch.cat([edges.offset, features], dim=1)) * edges.share[:, None]
        messages = weights * values[:, edges.source]
        zeros = messages.new_zeros(len(values), count, values.shape[2])
        found: Tensor = zeros.index_add(1, edges.target, messages)
        return found
