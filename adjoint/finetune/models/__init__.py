"""Checkpoints as models with parts that can be optimised, one kind to a file.

Nothing of a training loop or of rewards belongs here.
"""

from __future__ import annotations

import torch

from adjoint.finetune.config import FinetuneConfig
from adjoint.finetune.models.base import Model
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

__all__ = ["Model", "NetworkModel", "PipelineModel", "RestorationModel", "load_model"]


def load_model(config: FinetuneConfig, device: torch.device) -> Model:
    """The checkpoint of a run.

    Raises CheckpointError if it can't be read, ValueError if it can't follow the settings or the
    way back can't serve it.
    """
    options = LoadOptions(device=device)
    if restores(config.checkpoint):
        return RestorationModel(config, load_restoration(config.checkpoint, options))
    if config.drawing.images or config.drawing.task is not None:
        raise ValueError("This checkpoint restores no images; leave 'images' and 'task' away.")
    checkpoint = load_checkpoint(config.checkpoint, options)
    if isinstance(checkpoint, NetworkCheckpoint):
        return NetworkModel(config, checkpoint)
    assert isinstance(checkpoint, PipelineCheckpoint)  # there is no third kind that draws
    return PipelineModel(config, checkpoint)
