"""Images on the probability flow: what likelihood, encode, decode and interpolate share.

Importing this imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import Flow, Recipe, Tick
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.cli.common.checkpoints import labels_of, open_network, parameters, recipe_from
from samplers.cli.common.errors import evaluating, smaller_batches
from samplers.cli.common.options import FlowOptions
from samplers.cli.common.text import counted, evaluations_each
from samplers.images.inputs import ImageInput
from samplers.images.pixels import values_of
from samplers.probability_flow.adaptive import AdaptiveResult
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import Likelihood, Trace, bits_per_dim, dequantised
from samplers.solve import working_dtype

Labels = Sequence[int] | None
"""The class of each image, or None for a network without classes."""


class Part(NamedTuple):
    """Some of the items, and what the flow calls after every network evaluation."""

    places: range
    tick: Tick

    def of(self, values: Sequence[int] | None) -> Sequence[int] | None:
        """The classes, or the seeds, of these items."""
        return None if values is None else [values[place] for place in self.places]


@dataclass(frozen=True)
class OpenedFlow:
    """A checkpoint, a settled recipe for it, and how its flow is integrated."""

    options: FlowOptions
    checkpoint: NetworkCheckpoint
    recipe: Recipe
    settings: Adaptive

    def flow(self, tick: Tick) -> Flow:
        """The flow, which calls ``tick`` after every network evaluation."""
        return Flow(self.checkpoint, self.recipe, self.settings, tick)

    def given(self, values: Tensor) -> Tensor:
        """The values on the network's device, at least in float32."""
        return values.to(self.checkpoint.device, working_dtype(self.checkpoint.dtype))

    def encode(
        self,
        pictures: Sequence[ImageInput],
        labels: Labels,
        noise_seeds: Sequence[int] | None = None,
    ) -> AdaptiveResult:
        """The latent codes of the images, to which noise is added if seeds of it are given."""

        def encode(part: Part) -> AdaptiveResult:
            levels = torch.cat([pictures[place].levels for place in part.places])
            images = self.given(values_of(levels))
            return self.flow(part.tick).encode(images, part.of(labels), part.of(noise_seeds))

        return self._in_parts(len(pictures), encode)

    def decode(self, codes: Tensor, labels: Labels) -> AdaptiveResult:
        """The images of latent codes."""

        def decode(part: Part) -> AdaptiveResult:
            some = self.given(codes[part.places.start : part.places.stop])
            return self.flow(part.tick).decode(some, part.of(labels))

        return self._in_parts(len(codes), decode)

    def _in_parts(self, count: int, solve: Callable[[Part], AdaptiveResult]) -> AdaptiveResult:
        with evaluating(smaller_batches(self.options.batch_size)):
            found = [solve(part) for part in in_parts(count, self.options.batch_size)]
        return AdaptiveResult(*(torch.cat(columns).cpu() for columns in zip(*found, strict=True)))

    def log_likelihood(
        self,
        pictures: Sequence[ImageInput],
        labels: Labels,
        trace: Trace,
        seeds: Sequence[int],
        tick: Tick,
    ) -> Likelihood:
        """The log density of images whose levels are dequantised, or of their latents."""
        levels = torch.cat([picture.levels for picture in pictures])
        values = dequantised(levels, seeds) if self.checkpoint.of_pixels else values_of(levels)
        return self.flow(tick).log_likelihood(self.given(values), labels, trace, seeds)

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        """The same in bits per dimension; NaN for latents."""
        if not self.checkpoint.of_pixels:
            return torch.full_like(log_prob, torch.nan)
        return bits_per_dim(log_prob, math.prod(self.checkpoint.image_shape))

    def labels(self, count: int) -> tuple[int, ...] | None:
        """The class of each of so many images, as the options say."""
        own = self.checkpoint
        if self.options.label is None and own.classes and own.null_label is None:
            raise ValueError(
                "The latent code of an image depends on its class, and this checkpoint has no "
                "label for 'no class'; name the classes with --label."
            )
        return labels_of(self.options, own, count)

    def parameters(
        self, labels: Sequence[int | None] | None, seeds: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """The settings of the integration, to be stored in results."""
        chosen = self.settings
        own = {"method": chosen.method, "tolerance": chosen.rtol, "max_nfe": chosen.max_nfe}
        return own | parameters(self.options, self.checkpoint, self.recipe, seeds, labels)


def open_flow(options: FlowOptions, default: Adaptive) -> OpenedFlow:
    """Load a checkpoint, and settle how its flow is integrated.

    Args:
        default: the method; all else is in the options.
    """
    tolerance = options.tolerance
    settings = replace(default, rtol=tolerance, atol=tolerance, max_nfe=options.max_nfe)
    checkpoint = open_network(options)
    recipe = checkpoint.settle(recipe_from(options))
    checkpoint.grid(recipe)  # raises errors before the run
    return OpenedFlow(options, checkpoint, recipe, settings)


def in_parts(count: int, size: int) -> Iterator[Part]:
    """``count`` images, ``size`` at once, behind a progress bar that counts evaluations too."""
    nfe = 0
    with tqdm(total=count, unit="image", disable=None) as bar:

        def tick() -> None:
            nonlocal nfe
            nfe += 1
            bar.set_postfix({"network evaluations": nfe})

        for start in range(0, count, size):
            places = range(start, min(start + size, count))
            yield Part(places, tick)
            bar.update(len(places))


def report(what: str, found: AdaptiveResult, also: str, output: Path) -> None:
    """Say what was found, and at what cost."""
    nfe, missed = found.nfe.tolist(), int((~found.within_tolerance).sum())
    short = f", {missed} not within the tolerance: --max-nfe ran out" if missed else ""
    print(f"{counted(len(nfe), what)}{short}, {evaluations_each(nfe)}{also} -> {output}")
