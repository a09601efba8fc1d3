"""Checkpoints that restore images: a network told a degraded one, and a mean-reverting schedule."""

from __future__ import annotations

from pathlib import Path

from samplers.checkpoint.base import CheckpointError, LoadOptions
from samplers.checkpoint.folder import read_folder, read_index
from samplers.checkpoint.loading import load_component, loading
from samplers.diffusers.restoration import RestorationPipeline
from samplers.diffusers.scheduler import SamplerScheduler

_NAME = "RestorationPipeline"


def restores(path: Path) -> bool:
    """Whether a folder holds a pipeline that restores images; CheckpointError if it is none."""
    return read_index(path).get("_class_name") == _NAME


def load_restoration(path: Path, options: LoadOptions) -> RestorationPipeline:
    """Load a pipeline that restores images.

    Raises CheckpointError if the folder can't be read or holds a checkpoint of another kind.
    """
    folder = read_folder(path, options.allow_pickle)
    if not restores(path):
        raise CheckpointError(
            f"{path} holds a {folder.index.get('_class_name')}, which draws images and does not "
            f"restore any; a {_NAME} is needed here."
        )
    unet = load_component(folder, "unet", options)
    with loading(path):
        scheduler = SamplerScheduler.from_pretrained(path / "scheduler", local_files_only=True)
        own = {name: folder.index[name] for name in ("lambda_inf", "predicts", "tasks")}
        return RestorationPipeline(unet, scheduler, **own)
