"""The probability flow of a network: images from noise, codes and likelihoods from images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.checkpoint.base import Recipe, Tick
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.grid import make_grid
from samplers.probability_flow import codes as latent_codes
from samplers.probability_flow import likelihood
from samplers.probability_flow.adaptive import AdaptiveResult, sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import Likelihood, Trace


@dataclass(frozen=True)
class Flow:
    """The probability-flow ODE of a checkpoint's network, solved with steps of each sample's own.

    Attributes:
        recipe: a settled one; of it are read the guidance, and where the flow begins and ends.
        settings: how the steps are chosen.
        tick: called after every network call.

    ``labels`` are the classes of the samples, or None for a network that knows none. Everything
    raises NotFiniteError if the network returns NaN or infinity. Gradients flow through all but
    the choice of the steps.
    """

    checkpoint: NetworkCheckpoint
    recipe: Recipe
    settings: Adaptive
    tick: Tick

    def draw(self, seeds: Sequence[int], labels: Sequence[int] | None) -> AdaptiveResult:
        """One image for each seed, as ``NetworkCheckpoint.draw`` draws it: [B, C, H, W]."""
        own, (low, high) = self.checkpoint.settings, self.ends
        final = self.recipe.final or own.final
        grid = make_grid(own.schedule, 1, sigma_min=low, sigma_max=high, final=final)
        found = sample_adaptive(
            self._model,
            self.checkpoint.start(grid.start, seeds),
            schedule=own.schedule,
            prediction=own.prediction,
            conditions=self._conditions(labels),
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            final=final,
            correct=own.correction,
        )
        return found._replace(x=self.checkpoint.finished(found.x, grid.end))

    def encode(self, images: Tensor, labels: Sequence[int] | None) -> AdaptiveResult:
        """The code of each image [B, C, H, W]: [B, *shape of the network], see ``latent_codes``."""
        own, (low, high) = self.checkpoint.settings, self.ends
        return latent_codes.encode(
            self._model,
            self.checkpoint.encode(images),
            schedule=own.schedule,
            prediction=own.prediction,
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            conditions=self._conditions(labels),
        )

    def decode(self, codes: Tensor, labels: Sequence[int] | None) -> AdaptiveResult:
        """The image of each code: [B, C, H, W]."""
        own, (low, high) = self.checkpoint.settings, self.ends
        found = latent_codes.decode(
            self._model,
            codes,
            schedule=own.schedule,
            prediction=own.prediction,
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            conditions=self._conditions(labels),
        )
        return found._replace(x=self.checkpoint.decode(found.x))

    def log_likelihood(
        self, images: Tensor, labels: Sequence[int] | None, trace: Trace, seeds: Sequence[int]
    ) -> Likelihood:
        """The log density of each image [B, C, H, W], or of its latents if the network has such.

        Args:
            trace, seeds: see :func:`samplers.probability_flow.likelihood.log_likelihood`.
        """
        own, (low, high) = self.checkpoint.settings, self.ends
        return likelihood.log_likelihood(
            self._model,
            self.checkpoint.encode(images),
            schedule=own.schedule,
            prediction=own.prediction,
            trace=trace,
            seeds=seeds,
            conditions=self._conditions(labels),
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
        )

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """sigma_min and sigma_max; the checkpoint's own, unless the recipe says otherwise."""
        own, recipe = self.checkpoint.settings, self.recipe
        low = own.sigma_min if recipe.sigma_min is None else recipe.sigma_min
        high = own.sigma_max if recipe.sigma_max is None else recipe.sigma_max
        return low, high

    def _model(self, x: Tensor, t: Tensor, *rows: Tensor) -> Tensor:
        guidance = 1.0 if self.recipe.guidance is None else self.recipe.guidance
        model = self.checkpoint.conditional(guidance, self.recipe.guidance_rescale)
        output = model(x, t, *rows)
        self.tick()
        return output

    def _conditions(self, labels: Sequence[int] | None) -> tuple[Tensor, ...]:
        return () if labels is None else (torch.tensor(labels, device=self.checkpoint.device),)
