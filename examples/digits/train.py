"""Train a class-conditional diffusion model of the MNIST digits.

    accelerate launch examples/digits/train.py --data data/mnist --output runs/digits

Run it again to go on where it stopped. Every 500 steps it draws a hundred digits. The result is a
diffusers pipeline, written when the training ends, or from the last checkpoint so far with
``--export-only``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from mnist import digits
from torch import nn

from samplers.training import Every, LabelDropout, TrainingConfig, denoising_loss, seeded, train

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.unets import as_denoiser, draw, parse_arguments, train_or_export

CLASSES = 10
NO_CLASS = CLASSES
"""The label that stands for any digit."""


def main() -> None:
    arguments = parse_arguments(
        "Train a diffusion model of the MNIST digits.", "data/mnist", "runs/digits", steps=5000
    )
    config = settings(arguments)
    # `samplers sample --guidance` reads which class stands for "no class".
    index = {"_null_label": NO_CLASS}
    train_or_export(
        arguments,
        build_unet,
        lambda unet: train_unet(unet, arguments.data, arguments.output, config),
        lambda unet: DDPMPipeline(unet, build_scheduler()),
        index,
    )


def settings(arguments: argparse.Namespace) -> TrainingConfig:
    return TrainingConfig(
        steps=arguments.steps,
        batch_size=64,
        learning_rate=1e-3,
        warmup=arguments.steps // 25,
        average_decay=0.999,
        seed=arguments.seed,
        log_every=50,
        checkpoint_every=200,
    )


def build_unet(seed: int) -> UNet2DModel:
    """1.5 million parameters, attention at 7x7; the eleventh class is :data:`NO_CLASS`."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
        num_class_embeds=CLASSES + 1,
    )


def build_scheduler() -> DDPMScheduler:
    """The noise schedule of DDPM, in the form that diffusers stores."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )


def train_unet(unet: UNet2DModel, data: Path, output: Path, config: TrainingConfig) -> nn.Module:
    """Train on velocities, a tenth of them without a label; returns the averaged model."""
    model = as_denoiser(unet, build_scheduler())
    objective = denoising_loss(model, ("class_labels",), LabelDropout(0.1, NO_CLASS))
    pictures = Every(500, lambda step, unet: draw_digits(unet, output / f"step-{step:06d}.png"))
    return train(unet, digits(data, "train"), objective, config, output, callback=pictures)


def draw_digits(unet: nn.Module, path: Path) -> None:
    """Write a sheet with a column of ten digits of each class, always from the same noise."""
    device = next(unet.parameters()).device
    noise = torch.randn(100, 1, 28, 28, generator=seeded(0)).to(device)
    labels = torch.arange(CLASSES, device=device).repeat(10)
    draw(
        as_denoiser(unet, build_scheduler()),
        noise,
        steps=10,
        columns=CLASSES,
        path=path,
        conditions={"class_labels": labels},
    )


if __name__ == "__main__":
    main()
