"""Checkpoints as models that can be trained by a reward, one kind to a file.

Training loops and rewards do not belong here.
"""

from __future__ import annotations

import torch

from adjoint.finetune.config import FinetuneConfig
from adjoint.finetune.models.base import ImageModel, saved_names
from adjoint.finetune.models.network import NetworkModel
from adjoint.finetune.models.pipeline import PipelineModel
from adjoint.finetune.models.restoration import RestorationModel
from samplers.checkpoint import (
    LoadOptions,
    NetworkCheckpoint,
    PipelineCheckpoint,
    load_checkpoint,
    load_restoration,
    restores,
)

__all__ = [
    "ImageModel",
    "NetworkModel",
    "PipelineModel",
    "RestorationModel",
    "load_model",
    "saved_names",
]


def load_model(config: FinetuneConfig, device: torch.device) -> ImageModel:
    """Load the checkpoint of a run.

    Raises CheckpointError if it cannot be read, ValueError for settings that it does not support or
    an adjoint that cannot differentiate it.
    """
    options = LoadOptions(device=device)
    if restores(config.checkpoint):
        return RestorationModel(config, load_restoration(config.checkpoint, options))
    if config.sampling.images or config.sampling.task is not None:
        raise ValueError(
            "This checkpoint restores no images; omit 'images' and 'task' in [sampling]."
        )
    checkpoint = load_checkpoint(config.checkpoint, options)
    if isinstance(checkpoint, NetworkCheckpoint):
        return NetworkModel(config, checkpoint)
    assert isinstance(checkpoint, PipelineCheckpoint)  # no third kind samples images
    return PipelineModel(config, checkpoint)
