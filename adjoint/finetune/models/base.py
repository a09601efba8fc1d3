"""What all such checkpoints have in common: they draw with a part, and save what it learned."""

from __future__ import annotations

import abc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from adjoint.finetune.parts import (
    Embedding,
    LearnedNoise,
    LoRA,
    Noise,
    Optimised,
    Part,
    adapter_state,
    add_adapter,
    fold_classes,
    merge_adapter,
    train_weights,
)
from adjoint.finetune.penalty import Penalty
from samplers.checkpoint import read_index
from samplers.files import replacing
from samplers.training import Objective

ADAPTER = "pytorch_lora_weights.safetensors"
"""The file in which diffusers looks for an adapter."""


class Model(abc.ABC):
    """A checkpoint from which images are drawn while a part of it is learned.

    Args:
        asked: everything that its images may be asked to show, in numbers: classes, or prompts by
            their place in the list. Empty if nothing is asked for.
        component: the name of the network in the folder.
    """

    network: nn.Module
    component: str
    asked: tuple[int, ...]
    of_classes = False
    """Whether what is asked for are classes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abc.abstractmethod
    def start(self, seeds: Sequence[int]) -> Tensor:
        """Starting noise; ValueError if it can't be given to this checkpoint."""

    @abc.abstractmethod
    def draw(
        self, part: Part, seeds: Sequence[int], asked: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Images [B, C, H, W] of values from -1 to 1, through which gradients pass.

        Args:
            noise: where they start; that of the seeds if None.
        """

    @abc.abstractmethod
    def with_embedding(self, settings: Embedding) -> Part:
        """The part whose embedding is learned; ValueError if this checkpoint has none."""

    def penalty(self, settings: Penalty, images: Tensor, asked: Tensor | None) -> Objective:
        """A penalty of the network, at images that show what they were asked to.

        Raises ValueError if there is none for this checkpoint.
        """
        raise ValueError(
            "A penalty is for networks without a prompt that draw from noise alone; leave "
            "[penalty] away."
        )

    def part(self, optimised: Optimised, seed: int) -> Part:
        """The module that holds what is optimised; ValueError if this checkpoint has no such."""
        if isinstance(optimised, Embedding):
            return self.with_embedding(optimised)
        if isinstance(optimised, Noise):
            self.network.requires_grad_(False)
            seeds = range(optimised.seed, optimised.seed + optimised.count)
            return Part(self.network, LearnedNoise(self.start(seeds), optimised.reach))
        if isinstance(optimised, LoRA):
            add_adapter(self.network, optimised, seed)
        else:
            train_weights(self.network, optimised)
        return Part(self.network)

    def save(self, part: Part, optimised: Optimised, folder: Path) -> list[Path]:
        """Write what was learned into the folder; returns what was written."""
        if part.noise is not None:
            every = torch.arange(len(part.noise.start), device=part.noise.start.device)
            return [_written({"noise": part.noise(every)}, folder / "noise.safetensors")]
        if part.embedding is not None:
            return [_written({"prompt_embeds": part.embedding}, folder / "embedding.safetensors")]
        if isinstance(optimised, LoRA):
            return self._save_adapter(part.network, folder)
        fold_classes(part.network)
        return [self._save_network(part.network, folder)]

    def _save_adapter(self, network: nn.Module, folder: Path) -> list[Path]:
        state = {f"{self.component}.{name}": v for name, v in adapter_state(network).items()}
        adapter = _written(state, folder / ADAPTER)
        merge_adapter(network)
        return [adapter, self._save_network(network, folder)]

    def _save_network(self, network: Any, folder: Path) -> Path:
        """A checkpoint as the one that was loaded, with this network in it."""
        path = folder / "checkpoint"
        kept = [name for name in read_index(self._folder) if (self._folder / name).is_dir()]
        with replacing(path) as part:
            part.mkdir()
            shutil.copy2(self._folder / "model_index.json", part)
            for name in kept:
                if name != self.component:
                    shutil.copytree(self._folder / name, part / name)
            network.save_pretrained(part / self.component)
        return path


def _written(tensors: dict[str, Tensor], path: Path) -> Path:
    with replacing(path) as part:
        # Not `save_file`, whose files only their owner may read.
        kept = {name: t.detach().contiguous().cpu() for name, t in tensors.items()}
        part.write_bytes(save(kept))
    return path
