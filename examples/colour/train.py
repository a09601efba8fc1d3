"""Train a small diffusion model of colour images: the horses of CIFAR-10, 32x32 pixels.

    accelerate launch examples/colour/train.py --data data/cifar10 --output runs/colour

Run it again to go on where it stopped. Every 1000 steps it draws 36 images. The result is a
diffusers pipeline, written when the training ends, or from the last checkpoint so far with
``--export-only``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from samplers.training import Every, Objective, TrainingConfig, denoising_loss, seeded, train

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.colour.cifar10 import cifar10
from examples.unets import as_denoiser, draw, parse_arguments, train_or_export

CLASS = "horse"


def main() -> None:
    arguments = parse_arguments(
        "Train a diffusion model of horses.", "data/cifar10", "runs/colour", steps=5000
    )
    config = settings(arguments)
    train_or_export(
        arguments,
        build_unet,
        lambda unet: train_unet(unet, arguments.data, arguments.output, config),
        lambda unet: DDPMPipeline(unet, build_scheduler()),
    )


def settings(arguments: argparse.Namespace) -> TrainingConfig:
    return TrainingConfig(
        steps=arguments.steps,
        batch_size=32,
        learning_rate=1e-3,
        warmup=arguments.steps // 25,
        average_decay=0.999,
        precision="bf16",
        seed=arguments.seed,
        log_every=50,
        checkpoint_every=200,
    )


def build_unet(seed: int) -> UNet2DModel:
    """2.1 million parameters, attention at 8x8 and 4x4."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(24, 48, 72, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=24,
    )


def build_scheduler() -> DDPMScheduler:
    """The cosine schedule of Nichol and Dhariwal, which suits images of this size.

    An eighth of its times lie beyond sigma = 5 alpha, where little is to be seen; of the linear
    schedule's, more than two fifths.
    """
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
    )


def train_unet(unet: UNet2DModel, data: Path, output: Path, config: TrainingConfig) -> nn.Module:
    """Train on velocities; returns the averaged model."""
    objective = denoising_loss(as_denoiser(unet, build_scheduler()))
    images = TensorDataset(cifar10(data, "train", CLASS))
    pictures = Every(1000, lambda step, unet: draw_images(unet, output / f"step-{step:06d}.png"))
    return train(unet, images, mirroring(objective), config, output, callback=pictures)


def mirroring(objective: Objective) -> Objective:
    """The objective on images of which each is mirrored with probability 1/2."""

    def mirrored(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
        (images,) = batch
        chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(chosen.to(images.device), images.flip(3), images)
        return objective(model, (images,), generator)

    return mirrored


def draw_images(unet: nn.Module, path: Path) -> None:
    """Write a sheet of 36 images, always from the same noise."""
    device = next(unet.parameters()).device
    noise = torch.randn(36, 3, 32, 32, generator=seeded(0)).to(device)
    draw(as_denoiser(unet, build_scheduler()), noise, steps=20, columns=6, path=path)


if __name__ == "__main__":
    main()
