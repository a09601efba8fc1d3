"""Layer 6. Checkpoints: a diffusers folder on disk as something that draws images from seeds.

Two kinds are told apart by ``model_index.json``. A network without a prompt (``UNet2DModel`` or
``DiTTransformer2DModel``, of classes or not, with an autoencoder or not) runs in the library's own
loop. A pipeline with a prompt runs as diffusers wrote it, with our scheduler in it. A third kind,
which restores images, is a pipeline of ours (:func:`load_restoration`).

Weights are read from safetensors; a pickle needs to be allowed, and even then holds tensors only
(``weights_only=True``). No code of a checkpoint is ever run.

Here lives what is read from such a folder and what can be asked of it: nothing of the command
line, and no sampler's mathematics.
"""

from __future__ import annotations

from pathlib import Path

from samplers.checkpoint.base import Checkpoint, CheckpointError, LoadOptions, Recipe, Tick
from samplers.checkpoint.flow import Flow
from samplers.checkpoint.folder import read_folder, read_index, read_settings
from samplers.checkpoint.network import NetworkCheckpoint, load_network, network_component
from samplers.checkpoint.pipeline import PipelineCheckpoint, load_pipeline
from samplers.checkpoint.restoration import load_restoration, restores

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Flow",
    "LoadOptions",
    "NetworkCheckpoint",
    "PipelineCheckpoint",
    "Recipe",
    "Tick",
    "load_checkpoint",
    "load_restoration",
    "read_index",
    "read_settings",
    "restores",
]


def load_checkpoint(folder: Path, options: LoadOptions) -> Checkpoint:
    """Load a diffusers folder.

    Raises CheckpointError if it can't be read or can't be sampled, ValueError for an impossible
    null label.
    """
    found = read_folder(folder, options.allow_pickle)
    if restores(folder):
        raise CheckpointError(
            f"{folder} restores degraded images and draws none; use `samplers restore`."
        )
    component = network_component(found)
    if component is None:
        return load_pipeline(found, options)
    return load_network(found, component, options)
