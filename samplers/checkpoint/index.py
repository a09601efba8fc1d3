"""The index of a checkpoint's folder, ``model_index.json``; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samplers.files import parse_json, refuse_special

INDEX = "model_index.json"
NULL_LABEL = "_null_label"
"""The key of ``model_index.json`` for the label that stands for "no class"."""

_RESTORATION = "RestorationPipeline"


class CheckpointError(Exception):
    """The checkpoint can't be read, or its kind is not supported."""


def read_index(path: Path) -> dict[str, Any]:
    """Read ``model_index.json`` of a checkpoint; CheckpointError if there is none."""
    if path.is_file():
        raise CheckpointError(
            f"{path} is a single file; a checkpoint is a folder that diffusers saved, with "
            f"{INDEX} in it (from_single_file and save_pretrained make one)."
        )
    if not path.is_dir():
        raise CheckpointError(f"There is no checkpoint at {path}: no such folder.")
    if not (path / INDEX).is_file():
        raise CheckpointError(f"{path} is not a diffusers checkpoint: it has no {INDEX}.")
    refuse_special(path)
    return read_json(path / INDEX)


def restores(path: Path) -> bool:
    """Whether a folder holds a pipeline that restores images; CheckpointError if it is no
    checkpoint."""
    return read_index(path).get("_class_name") == _RESTORATION


def check_restores(path: Path) -> None:
    """Raise CheckpointError unless a folder holds a pipeline that restores images."""
    if not restores(path):
        raise CheckpointError(
            f"{path} holds a {read_index(path).get('_class_name')}, which samples images and does "
            f"not restore any; a {_RESTORATION} is needed here."
        )


def check_samples(path: Path) -> None:
    """Raise CheckpointError if a folder holds no checkpoint, or one that restores images."""
    if restores(path):
        raise CheckpointError(
            f"{path} restores degraded images and samples none; use `samplers restore`."
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of the folder; CheckpointError if it holds none."""
    refuse_special(path)
    try:
        data = parse_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not a JSON object.")
    return data
