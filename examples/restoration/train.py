"""Train a network that restores photographs by mean-reverting diffusion, of ten degradations.

    accelerate launch examples/restoration/train.py --data data/cifar10 --output runs/restore

Run it again to go on where it stopped. Every 1,000 steps it restores ten test images. One network
is told which degradation it is; it has no attention, so that images of any size fit. The result is
a ``RestorationPipeline``, written when the training ends, or from the last checkpoint so far with
``--export-only``. Images are degraded by all cores, for a GPU would wait for one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Generator, Tensor, nn

from samplers import (
    MeanReverting,
    RestorationPipeline,
    RestorationProcess,
    SamplerScheduler,
    restore,
)
from samplers.images import sheet, to_images, write_png
from samplers.restoration import DEGRADATIONS, degrade, restoration_loss
from samplers.training import Every, TrainingConfig, train

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.colour.cifar10 import Split, read_images
from examples.unets import parse_arguments, train_or_export

PROCESS = RestorationProcess(MeanReverting(), lambda_inf=0.4, predicts="residual")
TASKS = tuple(DEGRADATIONS)


class Photographs:
    """The images of CIFAR-10, [3, 32, 32] of values from -1 to 1."""

    def __init__(self, folder: Path, split: Split) -> None:
        self.pixels = read_images(folder, split)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int, /) -> tuple[Tensor]:
        return (torch.from_numpy(self.pixels[index]).permute(2, 0, 1) / 127.5 - 1,)


def build_unet(seed: int) -> UNet2DModel:
    """Convolutions at four resolutions, of the image and of the degraded one beside it."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=32,
        in_channels=6,
        out_channels=3,
        block_out_channels=(32, 48, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        norm_num_groups=8,
        num_class_embeds=len(TASKS),
        add_attention=False,
    )


def call(model: nn.Module, x: Tensor, mu: Tensor, t: Tensor, task: Tensor) -> Tensor:
    output: Tensor = model(torch.cat([x, mu], dim=1), t, class_labels=task).sample
    return output


Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Degrader:
    """Each image by a separate degradation, which follows from its seed.

    executor: of processes that share the images of a batch.
    """

    def __init__(self, executor: Executor, processes: int) -> None:
        self.executor, self.processes = executor, processes

    def __call__(self, x0: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The degraded images, and the numbers of their degradations."""
        count = len(x0)
        tasks = torch.randint(len(TASKS), (count,), generator=generator)
        seeds = torch.randint(2**31, (count,), generator=generator)
        share = -(-count // self.processes)
        parts = [values.split(share) for values in (x0.cpu(), tasks, seeds)]
        arrays = zip(*([part.numpy() for part in values] for values in parts), strict=True)
        made = np.concatenate(list(self.executor.map(_degrade_each, *zip(*arrays, strict=True))))
        return torch.from_numpy(made).to(x0), tasks.to(x0.device)


def _degrade_each(images: Pixels, tasks: np.ndarray, seeds: np.ndarray) -> Pixels:
    found: list[Pixels] = []
    for image, task, seed in zip(images, tasks, seeds, strict=True):
        made = degrade(torch.from_numpy(image)[None], [TASKS[task]], [int(seed)])
        found.append(made[0].numpy())
    return np.stack(found)


@contextmanager
def degrader() -> Iterator[Degrader]:
    """On all cores; processes are spawned, since a forked one can't go on beside a GPU."""
    processes = os.cpu_count() or 1
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield Degrader(pool, processes)


def mirrored(x0: Tensor, generator: Generator) -> Tensor:
    chosen = torch.rand(len(x0), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen.to(x0.device), x0.flip(3), x0)


def main() -> None:
    arguments = parse_arguments(
        "Train a network that restores photographs.", "data/cifar10", "runs/restore", steps=16_000
    )
    train_or_export(
        arguments,
        build_unet,
        lambda unet: train_unet(unet, arguments.data, arguments.output, settings(arguments)),
        pipeline,
    )


def settings(arguments: argparse.Namespace) -> TrainingConfig:
    return TrainingConfig(
        steps=arguments.steps,
        batch_size=32,
        learning_rate=1e-3,
        warmup=min(200, arguments.steps // 10),
        average_decay=0.999,
        precision="no",
        seed=arguments.seed,
        log_every=50,
        checkpoint_every=250,
    )


def pipeline(unet: nn.Module) -> RestorationPipeline:
    schedule = PROCESS.schedule
    scheduler = SamplerScheduler(
        sampler="mr-ode-d-2",
        schedule="mean-reverting",
        num_train_timesteps=schedule.steps,
        theta=schedule.theta,
        eps=schedule.eps,
        convention=schedule.convention,
    )
    return RestorationPipeline(unet, scheduler, PROCESS.lambda_inf, PROCESS.predicts, TASKS)


def train_unet(unet: UNet2DModel, data: Path, output: Path, config: TrainingConfig) -> nn.Module:
    """Train on residuals x_0 - mu; returns the averaged model."""
    photographs = Photographs(data, "test")
    tests = torch.stack([photographs[i][0] for i in range(len(TASKS))])
    pictures = Every(1000, lambda step, unet: draw(unet, tests, output / f"step-{step:06d}.png"))
    with degrader() as degraded:
        loss = restoration_loss(PROCESS, call, degraded, ("task",))

        def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
            (x0,) = batch
            return loss(model, (mirrored(x0, generator),), generator)

        return train(unet, Photographs(data, "train"), objective, config, output, callback=pictures)


@torch.no_grad()
def draw(unet: nn.Module, images: Tensor, path: Path) -> None:
    """Test images, one degraded by each kind, restored in ten steps, and as they were."""
    device = next(unet.parameters()).device
    mu = torch.stack(
        [degrade(image[None], [task], [0])[0] for image, task in zip(images, TASKS, strict=True)]
    ).to(device)

    def network(x: Tensor, mu: Tensor, t: Tensor, task: Tensor) -> Tensor:
        return call(unet, x, mu, t, task)

    tasks = torch.arange(len(TASKS), device=device)
    restored = restore(network, mu, PROCESS, seeds=range(len(images)), conditions={"task": tasks})
    rows = torch.cat([mu.cpu(), restored.cpu(), images])
    write_png(sheet(to_images(rows), len(images)), path, {})


if __name__ == "__main__":
    main()
