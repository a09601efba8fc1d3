"""A pipeline of diffusers that is asked by prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjoint.checkpoint import Checkpoint
from adjoint.direct import Direct
from adjoint.finetune.config import FinetuneConfig
from adjoint.finetune.models.base import Model
from adjoint.finetune.parts import Embedding, Part
from adjoint.pipelines import NETWORKS, differentiable
from samplers.checkpoint import PipelineCheckpoint


class _Prompted(NamedTuple):
    """How a kind of pipeline takes a prompt's embedding: what its ``encode_prompt`` returns.

    Attributes:
        returned: the names by which its call takes these tensors; None for one that it does not
            take.
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
