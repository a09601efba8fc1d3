"""The loss of the transformer: denoising of latents, with conditions dropped at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from samplers import Denoiser, denoising_loss
from samplers.training import Objective
from text2pde.autoencoder.latents import Latents
from text2pde.diffusion.conditions import Conditions, dropped
from text2pde.diffusion.text_encoder import EncodedText


@dataclass(frozen=True)
class ConditionDropout:
    """Probabilities of dropping conditions in training, so that none is needed in sampling.

    Attributes:
        everything: text and parameters, which trains the unconditional branch of guidance.
        text, parameters: each of them, in the remaining cases.
        frame: independently of the others.
    """

    everything: float = 0.1
    text: float = 0.1
    parameters: float = 0.1
    frame: float = 0.6

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f"The dropout of {name} is {value}; it must be a probability from 0 to 1."
                )

    def __call__(self, conditions: Conditions, generator: Generator) -> Conditions:
        """The conditions, some of them dropped."""
        shape = (4, len(conditions.has_parameters))
        uniform = torch.rand(shape, generator=generator).to(conditions.has_parameters.device)
        all_gone = uniform[0] < self.everything
        return dropped(
            conditions,
            text=all_gone | (uniform[1] < self.text),
            parameters=all_gone | (uniform[2] < self.parameters),
            frame=uniform[3] < self.frame,
        )


DROPOUT = ConditionDropout()


class TrainingData(NamedTuple):
    """What the transformer is trained on.

    Attributes:
        captions: several of each clip, one clip after the other.
        parameters: of each clip's scene, scaled [clips, K].
    """

    latents: Latents
    captions: EncodedText
    parameters: Tensor

    @property
    def captions_per_clip(self) -> int:
        return len(self.captions.states) // len(self.parameters)


def latent_loss(
    model: Denoiser,
    data: TrainingData,
    dropout: ConditionDropout = DROPOUT,
    time_shift: float = 1.0,
) -> Objective:
    """Regression of the model on its target, on batches of window indices.

    Each window gets one of its clip's captions at random.

    Args:
        time_shift: see :func:`samplers.denoising_loss`.
    """
    loss = denoising_loss(model, Conditions._fields, time_shift=time_shift)

    def objective(network: nn.Module, batch: Any, generator: Generator) -> Tensor:
        windows = batch.cpu()
        conditions = dropout(_conditions(data, windows, generator), generator)
        x0 = data.latents.values[windows].to(batch.device)
        return loss(network, (x0, *conditions.to(x0)), generator)

    return objective


def _conditions(data: TrainingData, windows: Tensor, generator: Generator) -> Conditions:
    latents, captions, parameters = data
    clips = latents.clip[windows]
    chosen = torch.randint(data.captions_per_clip, clips.shape, generator=generator)
    rows = clips * data.captions_per_clip + chosen
    present = torch.ones(len(clips), dtype=torch.bool)
    return Conditions(
        captions.states[rows].float(),
        captions.mask[rows],
        parameters[clips],
        present,
        latents.frame[windows],
        present,
    )
