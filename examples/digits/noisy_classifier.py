r"""A classifier of noisy digits, :math:`p(c \,|\, x_t, t)`, for classifier guidance.

Its gradient :math:`\nabla_x \log p(c \,|\, x_t, t)`, added to the score, guides an unconditional
model to class c (Song et al. 2021, eq. 14, https://arxiv.org/abs/2011.13456).
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from classifier import WEIGHTS, ClassifierConfig, load_config
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 32
LONGEST_PERIOD = 10_000.0
GROUPS = 8


class NoisyDigitClassifier(nn.Module):
    """Three convolutions at 28x28, 14x14 and 7x7, conditioned on the time, and two linear layers.

    Smooth in x, for its gradient is what it is used for: SiLU in place of ReLU, means over 2x2
    pixels in place of maxima. Groups are normalised and not batches, whose statistics would mix
    the noise levels.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        channels = (1, *config.channels)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, config.width), nn.SiLU())
        self.blocks = nn.ModuleList(
            _Halving(before, after, config.width) for before, after in itertools.pairwise(channels)
        )
        # 28 pixels, halved three times and rounded down, are 3.
        self.penultimate = nn.Sequential(
            nn.Flatten(), nn.Linear(9 * channels[-1], config.width), nn.SiLU()
        )
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits (batch, classes) of x_t (batch, 1, 28, 28) at the times t (batch,)."""
        time = self.time(time_features(t))
        for block in self.blocks:
            x = block(x, time)
        logits: Tensor = self.head(self.penultimate(x))
        return logits


class _Halving(nn.Module):
    """A convolution with a scale and shift that depend on the time, to half the resolution."""

    def __init__(self, channels: int, to: int, time_width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, to, kernel_size=3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, to)
        self.modulation = nn.Linear(time_width, 2 * to)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(time)[:, :, None, None].chunk(2, dim=1)
        normal = self.norm(self.convolution(x))
        return F.avg_pool2d(F.silu(normal * (1 + scale) + shift), 2)


def time_features(t: Tensor) -> Tensor:
    """Sines and cosines of t (batch,) at periods from 2 pi to 2 pi 10^4 (Vaswani et al. 2017)."""
    exponents = torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype) / FREQUENCIES
    phases = t[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


def load_noisy_classifier(folder: Path) -> NoisyDigitClassifier:
    """Read a classifier, in evaluation mode; it is called as ``classifier(x, t)``.

    t is the time of the noise schedule that it was trained on, 0 to 999 for that of DDPM.
    """
    classifier = NoisyDigitClassifier(load_config(folder))
    classifier.load_state_dict(load_file(folder / WEIGHTS))
    return classifier.eval()
