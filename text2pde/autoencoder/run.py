"""The training of an autoencoder, from folders of clips to a folder with the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import nn
from tqdm.auto import tqdm

from samplers.files import replacing
from samplers.training import Every, TrainingConfig, claim_folder, train
from text2pde.autoencoder.clips import Prepared, clip_paths, read_clips
from text2pde.autoencoder.grid import cells_of
from text2pde.autoencoder.learning import (
    CaseIndices,
    Errors,
    mean_errors,
    reconstruction_errors,
    reconstruction_loss,
)
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.flows.clip import read_flow


class Architecture(NamedTuple):
    """What may be chosen of a :class:`~text2pde.autoencoder.model.MeshAutoencoder`.

    Attributes:
        columns, rows: of the grid; as fit the clips if None.
    """

    channels: int = 24
    latent: int = 8
    columns: int | None = None
    rows: int | None = None


class Outcome(NamedTuple):
    """What a training came to.

    Attributes:
        errors: relative ones, on the clips that were learned and on those that were held out.
        compression: numbers of a clip to one of its latent, in the mean over the clips.
    """

    path: Path
    errors: dict[str, Errors]
    compression: float


MEASURED = 8
"""Clips of a folder on which errors are measured."""


def train_autoencoder(
    folder: Path,
    held_out: Path | None,
    output: Path,
    architecture: Architecture,
    config: TrainingConfig,
    *,
    frames: int,
    kl_weight: float,
    every: int,
    most: int | None = None,
) -> Outcome:
    """Train on the clips of a folder, or go on; the averaged model is written to the output.

    Args:
        most: clips that it learns from, the first of the folder; all if None.

    Raises ValueError for folders without clips, and for settings that are impossible or differ
    from those of the run that is there.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    torch.manual_seed(config.seed)
    chosen = _chosen(architecture, folder)
    model = MeshAutoencoder(**chosen)
    sets = {"learned": _read(clip_paths(folder)[:most], model)}
    if held_out is not None:
        sets["held out"] = _read(clip_paths(held_out), model)
    every_clip = sets["learned"]
    for name, clips in sets.items():
        model.check_frames(frames, min(len(clip.fields) for clip in clips), name)
    if state.is_main_process:
        own = {"frames": frames, "kl_weight": kl_weight, "clips": _digest(every_clip)}
        claim_folder(output, {**chosen, **own})
    state.wait_for_everyone()

    def measure(step: int, average: nn.Module) -> None:
        for name, errors in _errors(average, sets, frames).items():
            tqdm.write(f"step {step}, {name}: {errors.overall:.3f} overall, {errors.across:.3f} v")

    average = train(
        model,
        CaseIndices(len(every_clip)),
        reconstruction_loss(every_clip, model.grid, frames, kl_weight),
        config,
        output,
        callback=Every(every, measure),
    )
    assert isinstance(average, MeshAutoencoder)  # as it was given
    path = output / "autoencoder"
    if state.is_main_process:
        with replacing(path) as part:
            average.save_pretrained(part)
    latent = torch.Size(average.latent_shape(frames)).numel()
    values = sum(clip.fields[:frames].numel() for clip in every_clip) / len(every_clip)
    return Outcome(path, _errors(average, sets, frames), values / latent)


def _chosen(architecture: Architecture, folder: Path) -> dict[str, Any]:
    """All that the model is made with, over the place that the clips of a folder have."""
    flow, _ = read_flow(clip_paths(folder)[0])
    length, height = flow.size
    columns, rows = cells_of(length, height)
    given = {name: value for name, value in architecture._asdict().items() if value is not None}
    return {"columns": columns, "rows": rows, "length": length, "height": height, **given}


def _read(paths: Sequence[Path], model: MeshAutoencoder) -> list[Prepared]:
    quiet = None if PartialState().is_main_process else True
    with tqdm(total=len(paths), desc="clips", disable=quiet, leave=False) as bar:
        return read_clips(paths, model.grid, model.config.radius, bar.update)


def _digest(clips: Sequence[Prepared]) -> str:
    """Of the flows: a short name of which clips they are."""
    flows = json.dumps([asdict(clip.flow) for clip in clips])
    return f"{len(clips)} of {hashlib.sha256(flows.encode()).hexdigest()[:12]}"


def _errors(model: nn.Module, sets: dict[str, list[Prepared]], frames: int) -> dict[str, Errors]:
    assert isinstance(model, MeshAutoencoder)  # as it was given
    return {name: mean_errors([reconstruction_errors(model, c, frames) for c in clips[:MEASURED]])
            for name, clips in sets.items()}  # fmt: skip
