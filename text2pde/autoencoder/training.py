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
from text2pde.autoencoder.clips import PreparedClip, read_clips
from text2pde.autoencoder.grid import default_cells
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.autoencoder.objective import (
    Indices,
    RelativeErrors,
    mean_errors,
    reconstruction_errors,
    reconstruction_loss,
)
from text2pde.data.clip import clip_paths, read_header


class Architecture(NamedTuple):
    """The options of a :class:`~text2pde.autoencoder.model.MeshAutoencoder`.

    Attributes:
        columns, rows: of the latent grid; chosen by the domain of the clips if None.
    """

    channels: int = 24
    latent: int = 8
    columns: int | None = None
    rows: int | None = None


class AutoencoderData(NamedTuple):
    """What an autoencoder is trained and evaluated on.

    Attributes:
        clips: the folder of training clips.
        held_out: a folder of clips for evaluation, if any.
        cases: the number of training clips, the first of the folder; all if None.
        frames: of a training window.
    """

    clips: Path
    held_out: Path | None = None
    cases: int | None = None
    frames: int = 16


class TrainedAutoencoder(NamedTuple):
    """The result of a training.

    Attributes:
        path: the folder of the model.
        errors: on the training clips and on those held out.
        compression: the numbers of a clip over those of its latent, mean over the clips.
    """

    path: Path
    errors: dict[str, RelativeErrors]
    compression: float


_EVALUATED = 8
"""Clips of a folder on which errors are measured."""


def train_autoencoder(
    data: AutoencoderData,
    output: Path,
    architecture: Architecture,
    config: TrainingConfig,
    *,
    kl_weight: float = 1e-5,
    evaluate_every: int = 500,
    overwrite: bool = False,
) -> TrainedAutoencoder:
    """Train an autoencoder, or resume; the averaged model is written to the output.

    Args:
        output: the folder of the run.
        evaluate_every: steps between evaluations.
        overwrite: whether to begin anew where the output holds files of another run.

    Raises:
        ValueError: for folders without clips, for settings that are impossible, and if the output
            holds files of another run.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    torch.manual_seed(config.seed)
    options = _model_options(architecture, data.clips)
    model = MeshAutoencoder(**options)
    sets = _read_sets(data, model)
    training = sets["training"]
    own = {"frames": data.frames, "kl_weight": kl_weight, "clips": _digest(training)}

    def report(step: int, average: nn.Module) -> None:
        for name, errors in _errors(average, sets, data.frames).items():
            tqdm.write(
                f"step {step}, relative error on {name} clips: {errors.overall:.3f} overall, "
                f"{errors.transverse:.3f} transverse"
            )

    settings, path = {**options, **own}, output / "autoencoder"
    with claim_folder(output, settings, config, written=[path.name], overwrite=overwrite):
        average = train(
            model,
            Indices(len(training)),
            reconstruction_loss(training, model.grid, data.frames, kl_weight),
            config,
            output,
            callback=Every(evaluate_every, report),
        )
    assert isinstance(average, MeshAutoencoder)  # as it was given
    if state.is_main_process:
        with replacing(path) as part:
            average.save_pretrained(part)
    latent = torch.Size(average.latent_shape(data.frames)).numel()
    values = sum(clip.fields[: data.frames].numel() for clip in training) / len(training)
    return TrainedAutoencoder(path, _errors(average, sets, data.frames), values / latent)


def _model_options(architecture: Architecture, folder: Path) -> dict[str, Any]:
    """The arguments of the model, over the domain of the clips in a folder."""
    scene, _ = read_header(clip_paths(folder)[0])
    length, height = scene.size
    columns, rows = default_cells(length, height)
    given = {name: value for name, value in architecture._asdict().items() if value is not None}
    return {"columns": columns, "rows": rows, "length": length, "height": height, **given}


def _read_sets(data: AutoencoderData, model: MeshAutoencoder) -> dict[str, list[PreparedClip]]:
    """The clips of training, and those held out if there are any, by name."""
    sets = {"training": _read(clip_paths(data.clips)[: data.cases], model)}
    if data.held_out is not None:
        sets["held-out"] = _read(clip_paths(data.held_out), model)
    for name, clips in sets.items():
        model.check_frames(data.frames, min(len(clip.fields) for clip in clips), name)
    return sets


def _read(paths: Sequence[Path], model: MeshAutoencoder) -> list[PreparedClip]:
    quiet = None if PartialState().is_main_process else True
    with tqdm(total=len(paths), desc="clips", disable=quiet, leave=False) as bar:
        return read_clips(paths, model.grid, model.config.radius, bar.update)


def _digest(clips: Sequence[PreparedClip]) -> str:
    """A short checksum of the scenes."""
    scenes = json.dumps([asdict(clip.scene) for clip in clips])
    return f"{len(clips)} of {hashlib.sha256(scenes.encode()).hexdigest()[:12]}"


def _errors(
    model: nn.Module, sets: dict[str, list[PreparedClip]], frames: int
) -> dict[str, RelativeErrors]:
    assert isinstance(model, MeshAutoencoder)  # as it was given
    return {
        name: mean_errors([reconstruction_errors(model, c, frames) for c in clips[:_EVALUATED]])
        for name, clips in sets.items()
    }
