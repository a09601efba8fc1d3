"""Layer 6. Checkpoints: folders that diffusers saved, as models that sample images from seeds.

There are three kinds, by their ``model_index.json``. A network without a prompt (``UNet2DModel`` or
``DiTTransformer2DModel``, unconditional or class-conditional, of pixels or latents) runs in the
loop of this library. A pipeline with a prompt runs in its own loop, with our scheduler. A pipeline
that restores images is a :class:`samplers.RestorationPipeline` (:func:`load_restoration`).

Weights are read from safetensors; a pickle needs to be allowed, and even then holds tensors only
(``weights_only=True``). No code of a checkpoint is ever run.

Here lives what is read from such a folder, and the functions of a loaded checkpoint. The command
line and the mathematics of samplers do not belong here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samplers.checkpoint.index import CheckpointError, check_samples, read_index, restores

if TYPE_CHECKING:
    from samplers.checkpoint.base import Checkpoint, LoadOptions, Recipe, Tick, read_recipe
    from samplers.checkpoint.flow import Flow
    from samplers.checkpoint.folder import read_settings
    from samplers.checkpoint.network import NetworkCheckpoint
    from samplers.checkpoint.pipeline import PipelineCheckpoint
    from samplers.checkpoint.restoration import load_restoration

# Imported on first use: each kind of checkpoint needs another part of diffusers.
_HOMES = {
    "Checkpoint": "base",
    "Flow": "flow",
    "LoadOptions": "base",
    "NetworkCheckpoint": "network",
    "PipelineCheckpoint": "pipeline",
    "Recipe": "base",
    "Tick": "base",
    "load_restoration": "restoration",
    "read_recipe": "base",
    "read_settings": "folder",
}

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
    "read_recipe",
    "read_settings",
    "restores",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def load_checkpoint(folder: Path, options: LoadOptions) -> Checkpoint:
    """Load a diffusers folder.

    Raises CheckpointError if it can't be read or can't be sampled, ValueError for an impossible
    null label.
    """
    check_samples(folder)
    from samplers.checkpoint.folder import read_folder
    from samplers.checkpoint.network import load_network, network_component

    found = read_folder(folder, options.allow_pickle)
    component = network_component(found)
    if component is not None:
        return load_network(found, component, options)
    from samplers.checkpoint.pipeline import load_pipeline

    return load_pipeline(found, options)
