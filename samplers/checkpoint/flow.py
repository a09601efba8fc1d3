"""The probability-flow ODE of a checkpoint: samples, latent codes and likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from samplers.checkpoint.base import Recipe, Tick
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.denoiser import Denoiser
from samplers.grid import make_grid
from samplers.probability_flow import codes as latent_codes
from samplers.probability_flow import likelihood
from samplers.probability_flow.adaptive import AdaptiveResult, sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import Likelihood, Trace


@dataclass(frozen=True)
class Flow:
    """The probability-flow ODE of a checkpoint's network, solved with adaptive step size.

    Attributes:
        recipe: a settled one, from which guidance and noise levels are read.
        settings: of the adaptive step size.
        tick: called after every network evaluation.

    ``labels`` are the classes of the samples, or None for an unconditional network. All methods
    raise NotFiniteError if the network returns NaN or infinity. Gradients flow through everything
    but the step sizes.
    """

    checkpoint: NetworkCheckpoint
    recipe: Recipe
    settings: Adaptive
    tick: Tick

    def draw(self, seeds: Sequence[int], labels: Sequence[int] | None) -> AdaptiveResult:
        """Sample one image for each seed: [B, C, H, W]."""
        own, (low, high) = self.checkpoint.settings, self.ends
        final = self.recipe.final or own.final
        grid = make_grid(own.schedule, 1, sigma_min=low, sigma_max=high, final=final)
        found = sample_adaptive(
            self._denoiser,
            self.checkpoint.start(grid.start, seeds),
            conditions=self.checkpoint.conditions(labels),
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            final=final,
        )
        return found._replace(x=self.checkpoint.finished(found.x, grid.end))

    def encode(
        self,
        images: Tensor,
        labels: Sequence[int] | None,
        noise_seeds: Sequence[int] | None = None,
    ) -> AdaptiveResult:
        """Encode images [B, C, H, W] to latent codes ``[B, *shape]``.

        Args:
            noise_seeds: of the noise that is added; see :func:`samplers.encode`.
        """
        low, high = self.ends
        return latent_codes.encode(
            self._denoiser,
            self.checkpoint.encode(images),
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            conditions=self.checkpoint.conditions(labels),
            noise_seeds=noise_seeds,
        )

    def decode(self, codes: Tensor, labels: Sequence[int] | None) -> AdaptiveResult:
        """Decode latent codes to images [B, C, H, W]."""
        low, high = self.ends
        found = latent_codes.decode(
            self._denoiser,
            codes,
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
            conditions=self.checkpoint.conditions(labels),
        )
        return found._replace(x=self.checkpoint.decode(found.x))

    def log_likelihood(
        self, images: Tensor, labels: Sequence[int] | None, trace: Trace, seeds: Sequence[int]
    ) -> Likelihood:
        """The log-density of each image [B, C, H, W], or of its latents for a latent model.

        Args:
            trace, seeds: see :func:`samplers.probability_flow.likelihood.log_likelihood`.
        """
        low, high = self.ends
        return likelihood.log_likelihood(
            self._denoiser,
            self.checkpoint.encode(images),
            trace=trace,
            seeds=seeds,
            conditions=self.checkpoint.conditions(labels),
            settings=self.settings,
            sigma_min=low,
            sigma_max=high,
        )

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """sigma_min and sigma_max of the recipe, by default those of the checkpoint."""
        own, recipe = self.checkpoint.settings, self.recipe
        low = own.sigma_min if recipe.sigma_min is None else recipe.sigma_min
        high = own.sigma_max if recipe.sigma_max is None else recipe.sigma_max
        return low, high

    @property
    def _denoiser(self) -> Denoiser:
        model = self.checkpoint.guided(self.recipe)

        def counted(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
            output = model(x, t, **conditions)
            self.tick()
            return output

        return model.wrapped(counted)
