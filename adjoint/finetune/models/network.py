"""A network without a prompt, drawn from by the library's own loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from adjoint.base import Adjoint
from adjoint.finetune.config import DrawingSettings, FinetuneConfig
from adjoint.finetune.models.base import Model
from adjoint.finetune.parts import Embedding, Part, learn_classes
from adjoint.finetune.penalty import Penalty, penalty_of
from adjoint.truncated import Truncated
from samplers.checkpoint import NetworkCheckpoint
from samplers.training import Objective


class NetworkModel(Model):
    """A network without a prompt, drawn from by the library's own loop."""

    of_classes = True

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
            adjoint=of_run(self.adjoint, seeds) if torch.is_grad_enabled() else None,
        )

    def penalty(self, settings: Penalty, images: Tensor, asked: Tensor | None) -> Objective:
        told = () if asked is None else (asked,)
        return penalty_of(settings, self.checkpoint, self.checkpoint.encode(images), *told)

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


def of_run(adjoint: Adjoint, seeds: Sequence[int]) -> Adjoint:
    """The way back of one run; how far it goes may be drawn for each."""
    return replace(adjoint, seed=seeds[0]) if isinstance(adjoint, Truncated) else adjoint
