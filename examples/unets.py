"""What the trainings of U-Nets share: command line, sample images, export of a pipeline."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from torch import Tensor, nn

from samplers import Denoiser, VPDiscrete, sample
from samplers.files import replacing
from samplers.images import sheet, to_images, write_png
from samplers.training import CHECKPOINT, load_average


def parse_arguments(description: str, data: str, output: str, steps: int) -> argparse.Namespace:
    """Read the command line; the other arguments are defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the images")
    parser.add_argument("--output", type=Path, default=Path(output), help="folder of the run")
    parser.add_argument("--export", type=Path, help="folder of the pipeline [OUTPUT/pipeline]")
    parser.add_argument("--export-only", action="store_true", help="of the last checkpoint")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.export = arguments.export or arguments.output / "pipeline"
    return arguments


def train_or_export(
    arguments: argparse.Namespace,
    build: Callable[[int], UNet2DModel],
    fit: Callable[[UNet2DModel], nn.Module],
    pipeline: Callable[[nn.Module], DiffusionPipeline],
    index: dict[str, Any] | None = None,
) -> None:
    """Run the command line: train and export, or export the last checkpoint.

    build: seed -> the network; fit: the network -> its average after training; pipeline: what is
    exported with a network in it. ``index`` is added to ``model_index.json``. What goes wrong ends
    the program with one sentence.
    """
    try:
        unet: nn.Module = build(arguments.seed)
        if arguments.export_only:
            load_average(arguments.output / CHECKPOINT, unet)
        else:
            unet = fit(unet)
        if PartialState().is_main_process:
            export(pipeline(unet), arguments.export, index)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def as_denoiser(unet: nn.Module, scheduler: DDPMScheduler) -> Denoiser:
    """A U-net with the noise schedule of its scheduler."""
    return Denoiser(unet, VPDiscrete(scheduler.alphas_cumprod), scheduler.config.prediction_type)


@torch.no_grad()
def draw(
    model: Denoiser,
    noise: Tensor,
    steps: int,
    columns: int,
    path: Path,
    conditions: dict[str, Tensor] | None = None,
) -> None:
    """Write a sheet of samples from ``noise`` by this number of steps of DPM-Solver++(2M)."""
    images = sample(model, noise, sampler="dpmpp-2m", steps=steps, conditions=conditions)
    write_png(sheet(to_images(images), columns), path, {"sampler": "dpmpp-2m", "steps": steps})


def export(pipeline: DiffusionPipeline, folder: Path, index: dict[str, Any] | None = None) -> None:
    """Write a pipeline that ``from_pretrained(folder)`` reads; the card in the folder stays.

    ``index`` is added to ``model_index.json``.
    """
    card = folder / "README.md"
    with replacing(folder) as part:
        pipeline.save_pretrained(part)
        _add(index or {}, part / "model_index.json")
        if card.exists():
            shutil.copy(card, part)
    print(f"The pipeline is in {folder}.")


def _add(entries: dict[str, Any], path: Path) -> None:
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, **entries}, indent=2) + "\n")
