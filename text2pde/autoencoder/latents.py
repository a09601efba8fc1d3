"""The latents of many clips, encoded once and kept on disk, standardised channel by channel.

The file is in the format of safetensors: ``values`` [M, Z, F, rows, columns], ``mean`` and ``std``
[Z], ``clip`` and ``first`` [M], with the flows of the clips in its metadata, in JSON.
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
from text2pde.autoencoder.clips import Prepared
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.channel import Flow, flow_from


class Latents(NamedTuple):
    """Latents of windows of clips.

    values: with mean 0 and deviation 1 in each channel, [M, Z, F, rows, columns].
    mean, std: of the channels as the autoencoder has them [Z].
    clip: which clip a window is of [M]; first: the frame that it begins at [M].
    flows: of the clips.
    """

    values: Tensor
    mean: Tensor
    std: Tensor
    clip: Tensor
    first: Tensor
    flows: tuple[Flow, ...]

    def restored(self, values: Tensor) -> Tensor:
        """Standardised values as the autoencoder knows them."""
        return values * _channels(self.std, values) + _channels(self.mean, values)


def encode_clips(
    model: MeshAutoencoder,
    clips: Sequence[Prepared],
    frames: int,
    stride: int,
    tick: Callable[[], object] = lambda: None,
) -> Latents:
    """The means of the latents of all windows of so many frames, ``stride`` apart, on the CPU.

    Windows of one clip begin at other phases of its vortices. Raises ValueError if a clip is
    shorter than a window, or there are fewer than two windows.
    """
    values, places, device = [], [], next(model.parameters()).device
    for number, clip in enumerate(clips):
        starts = range(0, len(clip.fields) - frames + 1, stride)
        if not starts:
            raise ValueError(
                f"Clip {number} has {len(clip.fields)} frames, less than the {frames} of a window."
            )
        fields, mesh = clip.fields.to(device), clip.mesh.to(device)
        for first in starts:
            values.append(model.encode(fields[first : first + frames], mesh).mean.cpu())
            places.append((number, first))
        tick()
    if len(values) < 2:
        raise ValueError("One window has no deviation; give more clips, or a smaller stride.")
    every = torch.cat(values)
    std, mean = torch.std_mean(every, dim=(0, 2, 3, 4))
    std = std.clamp(min=1e-6)
    scaled = (every - _channels(mean, every)) / _channels(std, every)
    of, begins = torch.tensor(places).unbind(dim=1)
    return Latents(scaled, mean, std, of, begins, tuple(clip.flow for clip in clips))


def save_latents(latents: Latents, path: Path) -> None:
    """Write the file in one rename."""
    *tensors, flows = latents
    named = dict(zip(Latents._fields, tensors, strict=False))
    kept = {name: value.detach().cpu().contiguous() for name, value in named.items()}
    with replacing(path) as part:
        part.write_bytes(save(kept, {"flows": json.dumps([asdict(flow) for flow in flows])}))


def load_latents(path: Path) -> Latents:
    """Read latents; ValueError if the file is torn, or holds something else."""
    try:
        with safe_open(path, "pt") as file:
            values, mean, std, clip, first = map(file.get_tensor, Latents._fields[:-1])
            flows = [flow_from(numbers) for numbers in json.loads(file.metadata()["flows"])]
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path} holds no latents, or is torn ({error}); encode again.") from error
    return Latents(values, mean, std, clip, first, tuple(flows))


def _channels(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.to(like)[None, :, None, None, None]
