"""Checkpoints that restore images: pipelines with a mean-reverting schedule."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import TypedDict

from samplers.checkpoint.base import LoadOptions
from samplers.checkpoint.folder import read_folder
from samplers.checkpoint.index import check_restores
from samplers.checkpoint.loading import load_component, load_errors
from samplers.diffusers.restoration import RestorationPipeline
from samplers.diffusers.scheduler import SamplerScheduler
from samplers.files import checked


class _Settings(TypedDict):
    """The settings of the pipeline in its index."""

    lambda_inf: float
    predicts: str
    tasks: list[str]


def load_restoration(path: Path, options: LoadOptions) -> RestorationPipeline:
    """Load a pipeline that restores images.

    Raises CheckpointError if the folder can't be read or holds a checkpoint of another kind.
    """
    folder = read_folder(path, options.allow_pickle)
    check_restores(path)
    unet = load_component(folder, "unet", options)
    with load_errors(path):
        scheduler = SamplerScheduler.from_pretrained(path / "scheduler", local_files_only=True)
        own = checked(_Settings, folder.index)
        return RestorationPipeline(unet, scheduler, **own)
