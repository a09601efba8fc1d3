"""What the transformer learns: to tell the latents of flows from noise, by what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from samplers.schedule import Schedule
from samplers.training import Objective
from samplers.training.denoising import denoising_loss
from text2pde.autoencoder.latents import Latents
from text2pde.diffusion.conditions import Conditions, without
from text2pde.text import Texts


@dataclass(frozen=True)
class ConditionDropout:
    """How often the network is not told something, so that it can be asked without.

    Attributes:
        everything: neither sentence nor numbers, which guidance leads away from.
        text, numbers: each of them, in the other cases. frame: whatever the others are.
    """

    everything: float = 0.1
    text: float = 0.1
    numbers: float = 0.1
    frame: float = 0.6

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f"The dropout of {name} is {value}; it is a probability, from 0 to 1."
                )

    def __call__(self, conditions: Conditions, generator: Generator) -> Conditions:
        """The conditions, some of which are not told."""
        shape = (4, len(conditions.stated))
        draws = torch.rand(shape, generator=generator).to(conditions.stated.device)
        all_gone = draws[0] < self.everything
        return without(
            conditions,
            text=all_gone | (draws[1] < self.text),
            numbers=all_gone | (draws[2] < self.numbers),
            frame=draws[3] < self.frame,
        )


DROPOUT = ConditionDropout()


class Material(NamedTuple):
    """What there is to learn from.

    Attributes:
        texts: of several captions of each clip, one clip after the other. numbers: of each clip,
            scaled [clips, K].
    """

    latents: Latents
    texts: Texts
    numbers: Tensor

    @property
    def captions(self) -> int:
        """Of each clip."""
        return len(self.texts.states) // len(self.numbers)


def flow_loss(
    material: Material,
    schedule: Schedule,
    dropout: ConditionDropout = DROPOUT,
    time_shift: float = 1.0,
) -> Objective:
    """Regression on the velocity ``v = alpha eps - sigma x_0``, on batches of places of windows.

    Each time a window is met it comes with another of its captions. ``time_shift`` is that of
    :func:`samplers.training.denoising.denoising_loss`.
    """
    loss = denoising_loss(schedule, "v_prediction", _call, time_shift=time_shift)

    def objective(model: nn.Module, batch: Any, generator: Generator) -> Tensor:
        windows = batch.cpu()
        told = dropout(_told(material, windows, generator), generator)
        x0 = material.latents.values[windows].to(batch.device)
        return loss(model, (x0, *told.to(x0)), generator)

    return objective


def _call(model: nn.Module, x: Tensor, t: Tensor, *told: Tensor) -> Tensor:
    found: Tensor = model(x, t, Conditions(*told))
    return found


def _told(material: Material, windows: Tensor, generator: Generator) -> Conditions:
    latents, texts, numbers = material
    clips = latents.clip[windows]
    chosen = torch.randint(material.captions, clips.shape, generator=generator)
    rows = clips * material.captions + chosen
    always = torch.ones(len(clips), dtype=torch.bool)
    return Conditions(
        texts.states[rows].float(),
        texts.spoken[rows],
        numbers[clips],
        always,
        latents.frame[windows],
        always,
    )
