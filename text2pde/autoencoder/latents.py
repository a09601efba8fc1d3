"""The latents of many clips, encoded once and kept on disk, standardised channel by channel.

The file is in the format of safetensors: ``values`` [M, Z, F, rows, columns], ``frame`` [M, Z,
rows, columns], ``mean`` and ``std`` [Z], ``clip`` and ``first`` [M], with the flows of the clips
and the time between their frames in its metadata, in JSON.
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

from samplers.files import replacing
from text2pde.autoencoder.batch import MeshBatch
from text2pde.autoencoder.clips import Prepared
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.digests import digest
from text2pde.scene import Scene, scene_from


class Scales(NamedTuple):
    """The mean and deviation of the channels of latents, as the autoencoder has them [Z]."""

    mean: Tensor
    std: Tensor

    def standardised(self, values: Tensor) -> Tensor:
        """Latents [B, Z, ...] of the autoencoder with mean 0 and deviation 1 in each channel."""
        return (values - _channels(self.mean, values)) / _channels(self.std, values)

    def restored(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`standardised`."""
        return values * _channels(self.std, values) + _channels(self.mean, values)


class Latents(NamedTuple):
    """Latents of windows of clips, standardised.

    Attributes:
        values: [M, Z, F, rows, columns]. frame: of the first frame alone, see :func:`encode_frame`,
            [M, Z, rows, columns].
        scales: of the channels.
        clip: which clip a window is of [M]; first: the frame that it begins at [M].
        flows: of the clips.
        interval: between frames, in units of the flows' clocks.
        encoder: the digest of the autoencoder that they are of.
    """

    values: Tensor
    frame: Tensor
    scales: Scales
    clip: Tensor
    first: Tensor
    flows: tuple[Scene, ...]
    interval: float
    encoder: str

    def rescaled(self, scales: Scales) -> Latents:
        """The same by other scales, such as those of a model that learned other flows."""
        values, frame = (
            scales.standardised(self.scales.restored(each)) for each in (self.values, self.frame)
        )
        return self._replace(values=values, frame=frame, scales=scales)


def encode_frame(model: MeshAutoencoder, fields: Tensor, meshes: MeshBatch) -> Tensor:
    """The mean of the latent of flows [1, N, 3] that stand still, [B, Z, rows, columns].

    So one frame is told by the same encoder as a clip is.
    """
    return _still(model, model.on_grid(fields, meshes))


def encode_clips(
    model: MeshAutoencoder,
    clips: Sequence[Prepared],
    frames: int,
    stride: int,
    tick: Callable[[], object] = lambda: None,
) -> Latents:
    """The means of the latents of all windows of so many frames, ``stride`` apart, on the CPU.

    Windows of one clip begin at other phases of its vortices. Raises ValueError if a clip is
    shorter than a window, clips differ in the time between frames, or there are fewer than two
    windows.
    """
    interval = _interval(clips)
    values, still, places, like = [], [], [], next(model.parameters())
    for number, clip in enumerate(clips):
        starts = range(0, len(clip.fields) - frames + 1, stride)
        if not starts:
            raise ValueError(
                f"Clip {number} has {len(clip.fields)} frames, less than the {frames} of a window; "
                "ask for fewer."
            )
        grid = model.on_grid(clip.fields.to(like), clip.mesh.to(like))  # once for all windows
        for first in starts:
            values.append(model.posterior(grid[:, :, first : first + frames]).mean.cpu())
            still.append(_still(model, grid[:, :, first : first + 1]).cpu())
            places.append((number, first))
        tick()
    if len(values) < 2:
        raise ValueError("One window has no deviation; give more clips, or a smaller stride.")
    every = torch.cat(values)
    std, mean = torch.std_mean(every, dim=(0, 2, 3, 4))
    scales = Scales(mean, std.clamp(min=1e-6))
    of, begins = torch.tensor(places).unbind(dim=1)
    return Latents(
        scales.standardised(every),
        scales.standardised(torch.cat(still)),
        scales,
        of,
        begins,
        tuple(clip.flow for clip in clips),
        interval,
        digest(model.state_dict()),
    )


def _still(model: MeshAutoencoder, grid: Tensor) -> Tensor:
    """Of one frame on the grid [B, C, 1, rows, columns], as often as it takes."""
    frames = grid.expand(-1, -1, 2**model.config.halvings, -1, -1)
    return model.posterior(frames).mean.squeeze(2)


def save_latents(latents: Latents, path: Path) -> None:
    """Write the file in one rename."""
    values, frame, scales, clip, first, flows, interval, encoder = latents
    tensors = {"values": values, "frame": frame, "clip": clip, "first": first, **scales._asdict()}
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {
        "flows": [asdict(flow) for flow in flows],
        "interval": interval,
        "encoder": encoder,
    }
    with replacing(path) as part:
        part.write_bytes(save(kept, {name: json.dumps(value) for name, value in about.items()}))


def load_latents(path: Path) -> Latents:
    """Read latents; ValueError if the file is torn, or holds something else."""
    try:
        with safe_open(path, "pt") as file:
            values, frame, mean, std, clip, first = map(
                file.get_tensor, ("values", "frame", "mean", "std", "clip", "first")
            )
            about = {name: json.loads(text) for name, text in file.metadata().items()}
            flows = tuple(scene_from(numbers) for numbers in about["flows"])
            interval, encoder = float(about["interval"]), str(about["encoder"])
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path} holds no latents, or is torn ({error}); encode again.") from error
    return Latents(values, frame, Scales(mean, std), clip, first, flows, interval, encoder)


def _interval(clips: Sequence[Prepared]) -> float:
    """Between the frames of all clips, in units of their clocks."""
    first, *others = (clip.interval for clip in clips)
    for other in others:
        if not abs(other - first) <= 1e-6 * first:
            raise ValueError(
                f"The frames of clips are {first:g} and {other:g} apart; encode together "
                "only clips of one interval."
            )
    return first


def _channels(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.to(like).reshape(-1, *[1] * (like.ndim - 2))
