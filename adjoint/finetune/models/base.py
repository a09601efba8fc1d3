"""What all such checkpoints have in common: they sample with a trained module, and save it."""

from __future__ import annotations

import abc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from adjoint.finetune.penalty import PenaltySettings
from adjoint.finetune.trainable import (
    LearnedNoise,
    Optimised,
    OptimiseEmbedding,
    OptimiseLoRA,
    OptimiseNoise,
    Trainable,
    adapter_state,
    add_adapter,
    fold_classes,
    merge_adapter,
    train_weights,
)
from samplers.checkpoint import read_index
from samplers.files import replacing
from samplers.training import Objective

ADAPTER = "pytorch_lora_weights.safetensors"
"""The file in which diffusers looks for an adapter."""
NETWORK, EMBEDDING, NOISE = "checkpoint", "embedding.safetensors", "noise.safetensors"


def saved_names(optimised: Optimised) -> list[str]:
    """The files and folders that :meth:`ImageModel.save` writes."""
    if isinstance(optimised, OptimiseNoise):
        return [NOISE]
    if isinstance(optimised, OptimiseEmbedding):
        return [EMBEDDING]
    return [ADAPTER, NETWORK] if isinstance(optimised, OptimiseLoRA) else [NETWORK]


class ImageModel(abc.ABC):
    """A checkpoint that samples images while a part of it is trained.

    Attributes:
        network: the network itself.
        component: its name in the folder.
        conditions: what the images may be conditioned on, as numbers: classes, or indices of
            prompts or of degraded images. Empty for an unconditional model.
        of_classes: whether these are classes.
    """

    network: nn.Module
    component: str
    conditions: tuple[int, ...]
    of_classes = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abc.abstractmethod
    def initial_noise(self, seeds: Sequence[int]) -> Tensor:
        """Initial noise, one sample for each seed; ValueError if the model takes none."""

    @abc.abstractmethod
    def sample(
        self,
        trained: Trainable,
        seeds: Sequence[int],
        condition: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Images [B, C, H, W] in [-1, 1], differentiably.

        Args:
            trained: holds the network.
            seeds: of all noise.
            condition: of each image [B]; None for an unconditional model.
            noise: initial noise; that of the seeds if None.
        """

    @abc.abstractmethod
    def with_embedding(self, settings: OptimiseEmbedding) -> Trainable:
        """The module whose embedding is trained; ValueError if the checkpoint has none."""

    def penalty(
        self, settings: PenaltySettings, images: Tensor, condition: Tensor | None
    ) -> Objective:
        """A penalty of the network at images with their conditions.

        Raises ValueError if there is none for this checkpoint.
        """
        raise ValueError(
            "A penalty needs a network without prompts that samples from noise alone; omit "
            "[penalty]."
        )

    def trainable(self, optimised: Optimised, seed: int) -> Trainable:
        """The module that holds what is optimised; ValueError if the checkpoint has no such."""
        if isinstance(optimised, OptimiseEmbedding):
            return self.with_embedding(optimised)
        if isinstance(optimised, OptimiseNoise):
            self.network.requires_grad_(False)
            seeds = range(optimised.seed, optimised.seed + optimised.num_images)
            noise = LearnedNoise(self.initial_noise(seeds), optimised.max_angle)
            return Trainable(self.network, noise)
        if isinstance(optimised, OptimiseLoRA):
            add_adapter(self.network, optimised, seed)
        else:
            train_weights(self.network, optimised)
        return Trainable(self.network)

    def save(self, trained: Trainable, optimised: Optimised, folder: Path) -> list[Path]:
        """Write what was learned into the folder; returns the paths."""
        if trained.noise is not None:
            every = torch.arange(len(trained.noise.start), device=trained.noise.start.device)
            return [_write({"noise": trained.noise(every)}, folder / NOISE)]
        if trained.embedding is not None:
            embedding: dict[str, Tensor] = {"prompt_embeds": trained.embedding}
            return [_write(embedding, folder / EMBEDDING)]
        if isinstance(optimised, OptimiseLoRA):
            return self._save_adapter(trained.network, folder)
        fold_classes(trained.network)
        return [self._save_network(trained.network, folder)]

    def _save_adapter(self, network: nn.Module, folder: Path) -> list[Path]:
        state = {f"{self.component}.{name}": v for name, v in adapter_state(network).items()}
        adapter = _write(state, folder / ADAPTER)
        merge_adapter(network)
        return [adapter, self._save_network(network, folder)]

    def _save_network(self, network: Any, folder: Path) -> Path:
        """Write a checkpoint like the one that was loaded, with this network in it."""
        path = folder / NETWORK
        kept = [name for name in read_index(self._folder) if (self._folder / name).is_dir()]
        with replacing(path) as part:
            part.mkdir()
            shutil.copy2(self._folder / "model_index.json", part)
            for name in kept:
                if name != self.component:
                    shutil.copytree(self._folder / name, part / name)
            network.save_pretrained(part / self.component)
        return path


def _write(tensors: dict[str, Tensor], path: Path) -> Path:
    with replacing(path) as part:
        # `save_file` would make it readable for its owner alone.
        contiguous = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
        part.write_bytes(save(contiguous))
    return path
