"""Data sets of latents: clips encoded once, standardised channel by channel, kept on disk.

The file is in the format of safetensors: ``values`` [M, Z, F, rows, columns], ``frame`` [M, Z,
rows, columns], ``mean`` and ``std`` [Z], ``clip`` and ``first`` [M]; its metadata, in JSON, has the
scenes of the clips and the time between their frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from samplers.files import parse_json, refuse_special, replacing, with_sorted_metadata
from text2pde.autoencoder.batch import MeshBatch
from text2pde.autoencoder.clips import PreparedClip
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.data.digests import digest
from text2pde.subject import Scene, scene_from


class LatentScales(NamedTuple):
    """The mean and standard deviation of each channel of the autoencoder's latents [Z]."""

    mean: Tensor
    std: Tensor

    def standardised(self, values: Tensor) -> Tensor:
        """Latents [B, Z, ...] with mean 0 and deviation 1 in each channel."""
        return (values - _channels(self.mean, values)) / _channels(self.std, values)

    def restored(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`standardised`."""
        return values * _channels(self.std, values) + _channels(self.mean, values)


class Latents(NamedTuple):
    """Standardised latents of M windows of clips.

    Attributes:
        values: [M, Z, F, rows, columns].
        frame: the latent of each window's first frame, see :func:`encode_frame`, [M, Z, rows,
            columns].
        scales: by which they are standardised.
        clip: the index of each window's clip [M].
        first: the frame at which each window starts [M].
        scenes: of the clips.
        interval: between frames, in units of the scenes' ``time_unit``.
        encoder: the digest of the autoencoder.
    """

    values: Tensor
    frame: Tensor
    scales: LatentScales
    clip: Tensor
    first: Tensor
    scenes: tuple[Scene, ...]
    interval: float
    encoder: str

    def rescaled(self, scales: LatentScales) -> Latents:
        """The same latents, standardised by other scales, such as those of a trained model."""
        values, frame = (
            scales.standardised(self.scales.restored(each)) for each in (self.values, self.frame)
        )
        return self._replace(values=values, frame=frame, scales=scales)


def encode_frame(model: MeshAutoencoder, fields: Tensor, meshes: MeshBatch) -> Tensor:
    """The latent of single frames [1, N, 3], [B, Z, rows, columns].

    It is the posterior mean of a clip that repeats the frame, so that the same encoder serves both.
    """
    return _repeated(model, model.on_grid(fields, meshes))


def encode_clips(
    model: MeshAutoencoder,
    clips: Sequence[PreparedClip],
    frames: int,
    stride: int,
    tick: Callable[[], object] = lambda: None,
) -> Latents:
    """The posterior means of all windows of the clips, on the CPU.

    Args:
        frames: of a window.
        stride: frames between the starts of windows, which so differ in the phase of vortices.
        tick: called after every clip.

    Raises:
        ValueError: if a clip is shorter than a window, clips differ in the time between frames, or
            there are fewer than two windows.
    """
    interval = _interval(clips)
    values, stills, places, like = [], [], [], next(model.parameters())
    for number, clip in enumerate(clips):
        starts = range(0, len(clip.fields) - frames + 1, stride)
        if not starts:
            raise ValueError(
                f"Clip {number} has {len(clip.fields)} frames, fewer than the {frames} of a "
                "window; take a shorter window."
            )
        grid = model.on_grid(clip.fields.to(like), clip.mesh.to(like))  # once for all windows
        for first in starts:
            values.append(model.posterior(grid[:, :, first : first + frames]).mean.cpu())
            stills.append(_repeated(model, grid[:, :, first : first + 1]).cpu())
            places.append((number, first))
        tick()
    if len(values) < 2:
        raise ValueError(
            "One window has no standard deviation; give more clips, or a smaller stride."
        )
    every = torch.cat(values)
    std, mean = torch.std_mean(every, dim=(0, 2, 3, 4))
    scales = LatentScales(mean, std.clamp(min=1e-6))
    clip_indices, starts_at = torch.tensor(places).unbind(dim=1)
    return Latents(
        scales.standardised(every),
        scales.standardised(torch.cat(stills)),
        scales,
        clip_indices,
        starts_at,
        tuple(clip.scene for clip in clips),
        interval,
        digest(model.state_dict()),
    )


def _repeated(model: MeshAutoencoder, grid: Tensor) -> Tensor:
    """The latent of one frame on the grid [B, C, 1, rows, columns], repeated to be downsampled."""
    frames = grid.expand(-1, -1, 2**model.config.halvings, -1, -1)
    return model.posterior(frames).mean.squeeze(2)


def save_latents(latents: Latents, path: Path | str) -> None:
    """Write latents, atomically."""
    values, frame, scales, clip, first, scenes, interval, encoder = latents
    tensors = {"values": values, "frame": frame, "clip": clip, "first": first, **scales._asdict()}
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "flows": json.dumps([asdict(scene) for scene in scenes]),
        "interval": json.dumps(interval),
        "encoder": json.dumps(encoder),
    }
    with replacing(Path(path)) as part:
        part.write_bytes(with_sorted_metadata(save(contiguous, about)))


def load_latents(path: Path | str) -> Latents:
    """Read latents.

    Raises:
        ValueError: if the file is truncated, or holds something else.
    """
    try:
        refuse_special(Path(path))
        with safe_open(path, "pt") as file:
            values, frame, mean, std, clip, first = map(
                file.get_tensor, ("values", "frame", "mean", "std", "clip", "first")
            )
            about = {name: parse_json(text) for name, text in file.metadata().items()}
            scenes = tuple(scene_from(values) for values in about["flows"])
            interval, encoder = float(about["interval"]), str(about["encoder"])
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} holds no latents, or is truncated ({error}); run `text2pde encode`."
        ) from error
    return Latents(values, frame, LatentScales(mean, std), clip, first, scenes, interval, encoder)


def _interval(clips: Sequence[PreparedClip]) -> float:
    """The time between frames, which all clips must share."""
    first, *others = (clip.interval for clip in clips)
    for other in others:
        if not abs(other - first) <= 1e-6 * first:
            raise ValueError(
                f"The frames of clips are {first:g} and {other:g} time units apart; encode only "
                "clips of one interval together."
            )
    return first


def _channels(values: Tensor, like: Tensor) -> Tensor:
    """Values of channels [Z], shaped to broadcast over latents [B, Z, ...]."""
    return values.to(like).reshape(-1, *[1] * (like.ndim - 2))
