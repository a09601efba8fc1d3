"""A diffusers pipeline that is conditioned on prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adjoint.checkpoint import CheckpointAdjoint
from adjoint.direct import DirectAdjoint
from adjoint.finetune.config import FinetuneConfig
from adjoint.finetune.models.base import ImageModel
from adjoint.finetune.trainable import OptimiseEmbedding, Trainable
from adjoint.pipelines import NETWORKS, differentiable
from samplers.checkpoint import PipelineCheckpoint


class _PromptArguments(NamedTuple):
    """How a kind of pipeline takes prompt embeddings.

    Attributes:
        encoded: for each tensor that its ``encode_prompt`` returns, the argument of its call; None
            for one that it does not take.
        noise: whether its ``latents`` have the shape of the network's input.
    """

    encoded: tuple[str | None, ...]
    noise: bool


_POOLED = (
    *("prompt_embeds", "negative_prompt_embeds"),
    *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
)
_KINDS = {
    "StableDiffusionPipeline": _PromptArguments(
        ("prompt_embeds", "negative_prompt_embeds"), noise=True
    ),
    "StableDiffusionXLPipeline": _PromptArguments(_POOLED, noise=True),
    "StableDiffusion3Pipeline": _PromptArguments(_POOLED, noise=True),
    "FluxPipeline": _PromptArguments(("prompt_embeds", "pooled_prompt_embeds", None), noise=False),
}


class PipelineModel(ImageModel):
    """A diffusers pipeline, made differentiable."""

    def __init__(self, config: FinetuneConfig, checkpoint: PipelineCheckpoint) -> None:
        super().__init__(config.checkpoint)
        settings, self.adjoint = config.sampling, config.adjoint
        if settings.labels is not None:
            raise ValueError(
                "This checkpoint is conditioned on prompts; set 'prompts', not 'labels', in "
                "[sampling]."
            )
        if not isinstance(self.adjoint, CheckpointAdjoint | DirectAdjoint):
            raise ValueError(
                f"{type(self.adjoint).__name__} cannot differentiate a pipeline, which owns its "
                "loop; take the adjoint 'checkpoint' or 'direct'."
            )
        self.checkpoint, self.pipeline = checkpoint, checkpoint.pipeline
        self.prompts, self.negative = settings.prompts, settings.negative_prompt
        self.conditions = tuple(range(len(self.prompts)))
        self.recipe = checkpoint.settle(settings.recipe(checkpoint.recipe))
        self.component = next(name for name in NETWORKS if name in self.pipeline.components)
        self.network = self.pipeline.components[self.component]
        self._fixed: dict[str, Tensor] = {}
        for module in self.pipeline.components.values():
            if isinstance(module, nn.Module):
                module.requires_grad_(False)

    def initial_noise(self, seeds: Sequence[int]) -> Tensor:
        if not self._kind("noise").noise:
            raise ValueError(
                f"The noise of a {self._name} cannot be optimised; optimise its weights, an "
                "adapter or an embedding."
            )
        config: Any = self.network.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        each = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.cat(each).to(self.pipeline.device)

    def sample(
        self,
        trained: Trainable,
        seeds: Sequence[int],
        condition: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        assert condition is not None  # a pipeline always has prompts
        self.pipeline.register_modules(
            **{self.component: trained.network, "scheduler": self.checkpoint.scheduler(self.recipe)}
        )
        arguments = self.checkpoint.arguments(self.recipe, seeds)
        arguments |= self._prompt_arguments(trained, condition)
        arguments |= {} if noise is None else {"latents": noise}
        if not torch.is_grad_enabled():
            return self._images(self.pipeline(**arguments).images)
        with differentiable(self.pipeline, self.adjoint) as call:
            return self._images(call(**arguments).images)

    def _images(self, levels: Tensor) -> Tensor:
        return levels.float() * 2 - 1

    def _prompt_arguments(self, trained: Trainable, condition: Tensor) -> dict[str, Any]:
        """The prompts of a call, or their embeddings where these are optimised."""
        if trained.embedding is None:
            return {"prompt": [self.prompts[number] for number in condition.tolist()]}
        fixed = {name: tensor[condition] for name, tensor in self._fixed.items()}
        nothing = {"prompt": None, "negative_prompt": None}
        return nothing | fixed | {"prompt_embeds": trained.embedding[condition]}

    def with_embedding(self, settings: OptimiseEmbedding) -> Trainable:
        if settings.shared:
            raise ValueError(
                "Prompts have embeddings of their own and share none; omit 'shared' in [optimise]."
            )
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
            encoded = encode(**{name: v for name, v in arguments.items() if name in taken})
        named = dict(zip(kind.encoded, encoded, strict=True))
        self._fixed = {name: tensor for name, tensor in named.items() if name is not None}
        return Trainable(self.network, embedding=nn.Parameter(self._fixed.pop("prompt_embeds")))

    def _kind(self, what: str) -> _PromptArguments:
        if self._name not in _KINDS:
            raise ValueError(
                f"The {what} of a {self._name} cannot be optimised, only that of "
                f"{', '.join(_KINDS)}; optimise its weights or an adapter."
            )
        return _KINDS[self._name]

    @property
    def _name(self) -> str:
        return type(self.pipeline).__name__
