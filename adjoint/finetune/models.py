"""Checkpoints as models with parts that can be optimised: they draw with a part, and save it."""

from __future__ import annotations

import abc
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adjoint.base import Adjoint
from adjoint.checkpoint import Checkpoint
from adjoint.direct import Direct
from adjoint.finetune.config import DrawingSettings, FinetuneConfig
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
    learn_classes,
    merge_adapter,
    train_weights,
)
from adjoint.pipelines import NETWORKS, differentiable
from adjoint.truncated import Truncated
from samplers.checkpoint import (
    LoadOptions,
    NetworkCheckpoint,
    PipelineCheckpoint,
    load_checkpoint,
    read_index,
)
from samplers.files import replacing

ADAPTER = "pytorch_lora_weights.safetensors"
"""The file in which diffusers looks for an adapter."""


class Model(abc.ABC):
    """A checkpoint from which images are drawn while a part of it is learned.

    asked: everything that its images may be asked to show, in numbers: classes, or prompts by
        their place in the list. Empty if nothing is asked for.
    component: the name of the network in the folder.
    """

    network: nn.Module
    component: str
    asked: tuple[int, ...]

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

        noise: where they start; that of the seeds if None.
        """

    @abc.abstractmethod
    def with_embedding(self, settings: Embedding) -> Part:
        """The part whose embedding is learned; ValueError if this checkpoint has none."""

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
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, part)
    return path


def load_model(config: FinetuneConfig, device: torch.device) -> Model:
    """The checkpoint of a run.

    Raises CheckpointError if it can't be read, ValueError if it can't follow the settings or the
    way back can't serve it.
    """
    checkpoint = load_checkpoint(config.checkpoint, LoadOptions(device=device))
    if isinstance(checkpoint, NetworkCheckpoint):
        return NetworkModel(config, checkpoint)
    assert isinstance(checkpoint, PipelineCheckpoint)  # there is no third kind
    return PipelineModel(config, checkpoint)


# ------------------------------------------------------------------------- networks of classes


class NetworkModel(Model):
    """A network without a prompt, drawn from by the library's own loop."""

    def __init__(self, config: FinetuneConfig, checkpoint: NetworkCheckpoint) -> None:
        super().__init__(config.checkpoint)
        drawing = config.drawing
        if drawing.prompts or drawing.negative_prompt is not None:
            raise ValueError("This checkpoint takes no prompt; leave 'prompts' away.")
        self.checkpoint, self.adjoint = checkpoint, config.adjoint
        self.network, self.component = checkpoint.network, checkpoint.component
        self.recipe = checkpoint.settle(drawing.recipe())
        self.tableau = checkpoint.tableau(self.recipe)
        self.adjoint.check(self.tableau)
        self.asked = _chosen_classes(drawing, checkpoint)

    def start(self, seeds: Sequence[int]) -> Tensor:
        return self.checkpoint.start(self.tableau.start, seeds)

    def draw(
        self, part: Part, seeds: Sequence[int], asked: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        return self.checkpoint.with_network(part.network).draw_from(
            self.start(seeds) if noise is None else noise,
            self.recipe,
            seeds,
            asked,
            adjoint=_of_run(self.adjoint, seeds) if torch.is_grad_enabled() else None,
        )

    def with_embedding(self, settings: Embedding) -> Part:
        learn_classes(self.network, self.asked, settings)
        return Part(self.network)


def _chosen_classes(drawing: DrawingSettings, checkpoint: NetworkCheckpoint) -> tuple[int, ...]:
    wrong = [label for label in drawing.labels or () if label not in checkpoint.classes]
    if wrong and not checkpoint.classes:
        raise ValueError("This checkpoint knows no classes; leave 'labels' away.")
    if wrong:
        known = checkpoint.classes
        raise ValueError(f"There is no class {wrong[0]}; it knows {min(known)} to {max(known)}.")
    return drawing.labels or checkpoint.classes


def _of_run(adjoint: Adjoint, seeds: Sequence[int]) -> Adjoint:
    """The way back of one run; how far it goes may be drawn for each."""
    return replace(adjoint, seed=seeds[0]) if isinstance(adjoint, Truncated) else adjoint


# ------------------------------------------------------------------------------------ pipelines


class _Prompted(NamedTuple):
    """How a kind of pipeline takes a prompt's embedding: what its ``encode_prompt`` returns.

    returned: the names by which its call takes these tensors; None for one that it does not take.
    noise: whether its starting noise has the shape of what the network takes.
    """

    returned: tuple[str | None, ...]
    noise: bool


_POOLED = (
    *("prompt_embeds", "negative_prompt_embeds"),
    *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)
_KINDS = {
    "StableDiffusionPipeline": _Prompted(("prompt_embeds", "negative_prompt_embeds"), noise=True),
    "StableDiffusionXLPipeline": _Prompted(_POOLED, noise=True),
    "StableDiffusion3Pipeline": _Prompted(_POOLED, noise=True),
    "FluxPipeline": _Prompted(("prompt_embeds", "pooled_prompt_embeds", None), noise=False),
}


class PipelineModel(Model):
    """A pipeline of diffusers, whose call gradients pass through."""

    def __init__(self, config: FinetuneConfig, checkpoint: PipelineCheckpoint) -> None:
        super().__init__(config.checkpoint)
        drawing, self.adjoint = config.drawing, config.adjoint
        if drawing.labels is not None:
            raise ValueError(
                "This checkpoint is asked by prompts; give it 'prompts', not 'labels'."
            )
        if not isinstance(self.adjoint, Checkpoint | Direct):
            raise ValueError(
                f"A pipeline owns its loop, so {type(self.adjoint).__name__} can't serve it; take "
                "the way 'checkpoint' or 'direct'."
            )
        self.checkpoint, self.pipeline = checkpoint, checkpoint.pipeline
        self.prompts, self.negative = drawing.prompts, drawing.negative_prompt
        self.asked = tuple(range(len(self.prompts)))
        self.recipe = checkpoint.settle(drawing.recipe())
        self.component = next(name for name in NETWORKS if name in self.pipeline.components)
        self.network = self.pipeline.components[self.component]
        self._fixed: dict[str, Tensor] = {}
        for module in self.pipeline.components.values():
            if isinstance(module, nn.Module):
                module.requires_grad_(False)

    def start(self, seeds: Sequence[int]) -> Tensor:
        if not self._kind("noise").noise:
            raise ValueError(f"The noise of a {self._name} can't be optimised here.")
        config: Any = self.network.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        drawn = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return torch.cat(drawn).to(self.pipeline.device)

    def draw(
        self, part: Part, seeds: Sequence[int], asked: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        assert asked is not None  # a pipeline always has prompts
        self.pipeline.register_modules(
            **{self.component: part.network, "scheduler": self.checkpoint.scheduler(self.recipe)}
        )
        arguments = self.checkpoint.arguments(self.recipe, seeds)
        arguments |= self._prompted(part, asked)
        arguments |= {} if noise is None else {"latents": noise}
        if not torch.is_grad_enabled():
            return self._images(self.pipeline(**arguments).images)
        with differentiable(self.pipeline, self.adjoint) as call:
            return self._images(call(**arguments).images)

    def _images(self, levels: Tensor) -> Tensor:
        return levels.float() * 2 - 1

    def _prompted(self, part: Part, asked: Tensor) -> dict[str, Any]:
        """How the call is told what to show."""
        if part.embedding is None:
            return {"prompt": [self.prompts[number] for number in asked.tolist()]}
        fixed = {name: tensor[asked] for name, tensor in self._fixed.items()}
        nothing = {"prompt": None, "negative_prompt": None}
        return nothing | fixed | {"prompt_embeds": part.embedding[asked]}

    def with_embedding(self, settings: Embedding) -> Part:
        if settings.shared:
            raise ValueError("A change of embeddings is shared by classes; prompts have their own.")
        kind = self._kind("embedding of prompts")
        arguments = {
            "prompt": list(self.prompts),
            **dict.fromkeys(("prompt_2", "prompt_3")),
            "device": self.pipeline.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": True,
            "negative_prompt": [self.negative or ""] * len(self.prompts),
        }
        encode = self.pipeline.encode_prompt
        taken = encode.__code__.co_varnames[: encode.__code__.co_argcount]
        with torch.no_grad():
            found = encode(**{name: v for name, v in arguments.items() if name in taken})
        named = dict(zip(kind.returned, found, strict=True))
        self._fixed = {name: tensor for name, tensor in named.items() if name is not None}
        return Part(self.network, embedding=nn.Parameter(self._fixed.pop("prompt_embeds")))

    def _kind(self, what: str) -> _Prompted:
        if self._name not in _KINDS:
            raise ValueError(
                f"The {what} of a {self._name} can't be optimised here, only that of "
                f"{', '.join(_KINDS)}; optimise its weights or an adapter."
            )
        return _KINDS[self._name]

    @property
    def _name(self) -> str:
        return type(self.pipeline).__name__
