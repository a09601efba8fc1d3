"""A network without prompts, sampled by the library's own loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from adjoint.base import AbstractAdjoint
from adjoint.finetune.config import FinetuneConfig, SamplingSettings
from adjoint.finetune.models.base import ImageModel
from adjoint.finetune.penalty import PenaltySettings, penalty_of
from adjoint.finetune.trainable import OptimiseEmbedding, Trainable, learn_classes
from adjoint.truncated import TruncatedAdjoint
from samplers.checkpoint import NetworkCheckpoint
from samplers.training import Objective


class NetworkModel(ImageModel):
    """A network without prompts, sampled by the library's own loop."""

    of_classes = True

    def __init__(self, config: FinetuneConfig, checkpoint: NetworkCheckpoint) -> None:
        super().__init__(config.checkpoint)
        settings = config.sampling
        if settings.prompts or settings.negative_prompt is not None:
            raise ValueError("This checkpoint takes no prompt; omit 'prompts' in [sampling].")
        self.checkpoint, self.adjoint = checkpoint, config.adjoint
        self.network, self.component = checkpoint.network, checkpoint.component
        self.recipe = checkpoint.settle(settings.recipe(checkpoint.recipe))
        self.tableau = checkpoint.tableau(self.recipe)
        self.adjoint.check(self.tableau)
        self.conditions = _chosen_classes(settings, checkpoint)

    def initial_noise(self, seeds: Sequence[int]) -> Tensor:
        return self.checkpoint.start(self.tableau.start, seeds)

    def sample(
        self,
        trained: Trainable,
        seeds: Sequence[int],
        condition: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        return self.checkpoint.with_network(trained.network).draw_from(
            self.initial_noise(seeds) if noise is None else noise,
            self.recipe,
            seeds,
            condition,
            adjoint=of_run(self.adjoint, seeds) if torch.is_grad_enabled() else None,
        )

    def penalty(
        self, settings: PenaltySettings, images: Tensor, condition: Tensor | None
    ) -> Objective:
        return penalty_of(settings, self.checkpoint, self.checkpoint.encode(images), condition)

    def with_embedding(self, settings: OptimiseEmbedding) -> Trainable:
        learn_classes(self.network, self.conditions, settings)
        return Trainable(self.network)


def _chosen_classes(settings: SamplingSettings, checkpoint: NetworkCheckpoint) -> tuple[int, ...]:
    wrong = [label for label in settings.labels or () if label not in checkpoint.classes]
    if wrong and not checkpoint.classes:
        raise ValueError("This checkpoint has no classes; omit 'labels' in [sampling].")
    if wrong:
        known = checkpoint.classes
        raise ValueError(
            f"There is no class {wrong[0]}; the checkpoint has {min(known)} to {max(known)}."
        )
    return settings.labels or checkpoint.classes


def of_run(adjoint: AbstractAdjoint, seeds: Sequence[int]) -> AbstractAdjoint:
    """The adjoint of one run; a random truncation has another seed in each."""
    return replace(adjoint, seed=seeds[0]) if isinstance(adjoint, TruncatedAdjoint) else adjoint
