"""Flows from a first frame: `assets/cylinder` beside a U-Net trained on the same clips.

    python -m benchmarks.first_frame --training data/cylinder --held-out data/held-out

The U-Net is given the first frame and the parameters of the flow on a grid of 128 x 32, and
predicts all frames at once. It is trained under ``runs/first_frame``, where an interrupted training
continues.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from scipy.interpolate import RegularGridInterpolator
from torch import Generator, Tensor, nn
from tqdm import tqdm

from benchmarks.digits import ROOT
from benchmarks.report import mean_and_error, table, write
from samplers.training import Objective, TrainingConfig, claim_folder, train
from text2pde.autoencoder.clips import nondimensionalise, redimensionalise
from text2pde.autoencoder.objective import Indices
from text2pde.data.clip import Clip, clip_paths, load_clip
from text2pde.data.statistics import relative_error
from text2pde.evaluation.first_frames import evaluate_first_frames, first_frame_requests
from text2pde.evaluation.reconstruction import interpolate
from text2pde.pipeline import load_text2pde

COLUMNS, ROWS = 128, 32
CONFIG = TrainingConfig(
    steps=1500, batch_size=8, learning_rate=1e-3, warmup=50, checkpoint_every=100, log_every=10
)


def axes(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the columns and of the rows."""
    length, height = clip.scene.size
    return np.linspace(0, length, COLUMNS), np.linspace(0, height, ROWS)


def on_grid(clip: Clip) -> Tensor:
    """Fields without units on the grid, 0 in the cylinder, [F, 3, ROWS, COLUMNS]."""
    values = nondimensionalise(clip.fields, clip.scene).permute(1, 0, 2).flatten(1).numpy()
    places = np.stack(np.meshgrid(*axes(clip)), axis=-1).reshape(-1, 2)
    found = interpolate(clip.mesh.nodes, values.astype(np.float64), places)
    found[inside(clip, places)] = 0
    shaped = torch.from_numpy(found).float().reshape(ROWS, COLUMNS, len(clip.fields), 3)
    return shaped.permute(2, 3, 0, 1).contiguous()


def inside(clip: Clip, places: np.ndarray) -> np.ndarray:
    numbers = clip.scene.parameters
    away = np.hypot(places[:, 0] - numbers["x"], places[:, 1] - numbers["y"])
    return away < numbers["radius"]


def given(frame: Tensor, clip: Clip, numbers: Sequence[float]) -> Tensor:
    """What the network sees: a frame [3, ROWS, COLUMNS], where the cylinder is, the numbers."""
    places = np.stack(np.meshgrid(*axes(clip)), axis=-1).reshape(-1, 2)
    solid = torch.from_numpy(inside(clip, places)).float().reshape(1, ROWS, COLUMNS)
    scaled = torch.tensor(numbers)[:, None, None].expand(-1, ROWS, COLUMNS)
    return torch.cat([frame, solid, scaled])


def network(frames: int) -> UNet2DModel:
    return UNet2DModel(
        in_channels=8,
        out_channels=3 * (frames - 1),
        block_out_channels=(48, 96, 144),
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        add_attention=False,
    )


def objective(
    grids: Sequence[Tensor], clips: Sequence[Clip], numbers: Sequence[Sequence[float]], frames: int
) -> Objective:
    """Mean square error of how frames differ from the first one."""

    def loss(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        seen, wanted = [], []
        for number in batch.tolist():
            last = len(grids[number]) - frames + 1
            first = int(torch.randint(last, (), generator=generator))
            window = grids[number][first : first + frames]
            seen.append(given(window[0], clips[number], numbers[number]))
            wanted.append((window[1:] - window[0]).flatten(0, 1))
        x = torch.stack(seen).to(batch.device)
        output = model(x, torch.zeros(len(x), device=x.device)).sample
        return (output - torch.stack(wanted).to(output)).square().mean()

    return loss


@torch.no_grad()
def predicted(model: nn.Module, clip: Clip, numbers: Sequence[float], frames: int) -> np.ndarray:
    """All frames at the nodes, in SI units."""
    first = on_grid(clip._replace(times=clip.times[:1], fields=clip.fields[:1]))[0]
    output = model(given(first, clip, numbers)[None], torch.zeros(1)).sample[0]
    change = output.reshape(frames - 1, 3, ROWS, COLUMNS)
    x, y = axes(clip)
    lines = change.permute(2, 3, 0, 1).reshape(ROWS, COLUMNS, -1).numpy()
    at_nodes = RegularGridInterpolator((y, x), lines)(clip.mesh.nodes[:, ::-1])
    moved = redimensionalise(
        torch.from_numpy(at_nodes).float().reshape(len(at_nodes), -1, 3).permute(1, 0, 2),
        clip.scene,
    )
    return np.concatenate([clip.fields[:1], clip.fields[:1] + moved])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    arguments = parser.parse_args()
    pipe = load_text2pde(ROOT / "assets" / "cylinder", torch.device("cpu"))
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, sampler="dpmpp-2m", grid="config"
    )
    frames, scaled = int(pipe.config.frames), pipe.transformer.scaled
    training, held_out = (
        [load_clip(path) for path in clip_paths(folder)]
        for folder in (arguments.training, arguments.held_out)
    )
    grids = [on_grid(clip) for clip in tqdm(training, "grids")]
    folder = ROOT / "runs" / "first_frame"
    flows = hashlib.sha256(str([clip.scene for clip in training]).encode()).hexdigest()
    torch.manual_seed(0)
    numbers = [scaled(clip.scene) for clip in training]
    with claim_folder(folder, {"clips": flows, "frames": frames}, CONFIG):
        model = train(
            network(frames),
            Indices(len(training)),
            objective(grids, training, numbers, frames),
            CONFIG,
            folder,
        ).cpu()
    truths = [clip._replace(times=clip.times[:frames], fields=clip.fields[:frames])
              for clip in held_out]  # fmt: skip
    with torch.no_grad():
        generated = pipe.generate(first_frame_requests(held_out), range(len(held_out)), 20)
    found = evaluate_first_frames(generated, scaled, held_out, training)
    errors = [
        relative_error(predicted(model, clip, scaled(clip.scene), frames), clip) for clip in truths
    ]
    mean, error = mean_and_error(errors)
    path = write(
        "first_frame",
        "Flows from a first frame",
        f"Mean relative error over {frames} frames of {len(held_out)} flows with held-out Reynolds "
        f"numbers; trained on {len(training)} others. The U-Net is diffusers' `UNet2DModel` with "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, trained for "
        f"{CONFIG.steps} steps with batch size {CONFIG.batch_size}; it predicts all frames at "
        "once.",
        table(
            ["", "relative error"],
            [
                ["`assets/cylinder`, 20 steps", f"{found.generated:.3f}"],
                ["U-Net", f"{mean:.3f} ± {error:.3f}"],
                ["nearest training flow, in phase", f"{found.nearest:.3f}"],
                ["first frame, held constant", f"{found.still:.3f}"],
            ],
        ),
        "Written by `python -m benchmarks.first_frame`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
