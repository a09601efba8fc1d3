"""Measure the diffusion model of horses; prints the table of its model card.

    python examples/colour/measure.py assets/colour --data data/cifar10

How well it denoises images that it has never seen, beside the best linear denoiser.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from samplers import Denoiser
from samplers.training import seeded

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.colour.cifar10 import cifar10
from examples.colour.train import CLASS
from examples.unets import as_denoiser

LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise, sigma / alpha, at which denoising is measured; images are in [-1, 1]."""
BATCH = 100

Guess = Callable[[Tensor, float], Tensor]
"""A prediction of x_0 from ``y = x_0 + rho eps`` and rho."""


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the diffusion model of horses.")
    parser.add_argument("model", type=Path, nargs="?", default=Path("assets/colour"))
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    arguments = parser.parse_args()
    try:
        training, test = (cifar10(arguments.data, split, CLASS) for split in ("train", "test"))
        unet = UNet2DModel.from_pretrained(arguments.model / "unet").eval()
        scheduler = DDPMScheduler.from_pretrained(arguments.model / "scheduler")
    except OSError as error:
        sys.exit(f"error: {error}")
    network = network_guess(as_denoiser(unet, scheduler))
    print(denoising_table(network, linear_guess(training), training[: len(test)], test))


def denoising_table(network: Guess, linear: Guess, seen: Tensor, test: Tensor) -> str:
    """Peak signal-to-noise ratios in decibels, as Markdown."""
    lines = ["| sigma / alpha | noisy | best linear | network | network, training images |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for rho in LEVELS:
        ratios = [
            psnr(lambda y, rho: y, test, rho),
            psnr(linear, test, rho),
            psnr(network, test, rho),
            psnr(network, seen, rho),
        ]
        lines.append(f"| {rho:g} | " + " | ".join(f"{ratio:.1f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def network_guess(model: Denoiser) -> Guess:
    """E[x_0 | y] by the network."""

    def denoise(y: Tensor, rho: float) -> Tensor:
        at = model.schedule.at_lam(-torch.tensor(math.log(rho), dtype=torch.float64))
        return model.data(at.alpha.to(y) * y, at.t)

    return denoise


def linear_guess(images: Tensor) -> Guess:
    r"""E[x_0 | y] if the images were normal with mean m and covariance C: no linear one is better.

    .. math:: m + C (C + \rho^2 I)^{-1} (y - m)
    """
    flat = images.flatten(1)
    mean = flat.mean(dim=0)
    variances, axes = torch.linalg.eigh(torch.cov(flat.T))

    def denoise(y: Tensor, rho: float) -> Tensor:
        gain = variances / (variances + rho**2)
        x0: Tensor = mean + (y.flatten(1) - mean) @ axes * gain @ axes.T
        return x0.reshape(y.shape)

    return denoise


def psnr(guess: Guess, images: Tensor, rho: float) -> float:
    r""":math:`10 \log_{10} (2^2 / \mathrm{MSE})` in decibels: black is -1, white is 1."""
    noisy = images + rho * torch.randn(images.shape, generator=seeded(0))
    guesses = torch.cat([guess(part, rho).clamp(-1, 1) for part in noisy.split(BATCH)])
    return 10 * math.log10(4 / float((guesses - images).square().mean()))


if __name__ == "__main__":
    main()
