"""Pictures on the probability flow: what likelihood, encode, decode and interpolate have in common.

These commands run in the main process alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import Flow, NetworkCheckpoint, Recipe, Tick
from samplers.cli.choices import classes_or_none
from samplers.cli.failure import named_failures, smaller_batches
from samplers.cli.images import Picture
from samplers.cli.opening import open_network, recipe_from
from samplers.cli.output import common_parameters
from samplers.cli.processes import Processes
from samplers.cli.text import counted
from samplers.images.pixels import values_of
from samplers.probability_flow.adaptive import AdaptiveResult
from samplers.probability_flow.integration import Adaptive
from samplers.solve import working_dtype

Labels = Sequence[int] | None
"""The class of each image, or None for a network that knows none."""


class Part(NamedTuple):
    """Some of the items, and what the flow calls after every network call."""

    places: range
    tick: Tick

    def of(self, labels: Labels) -> Labels:
        """The classes of these items."""
        return None if labels is None else [labels[place] for place in self.places]


@dataclass(frozen=True)
class Opened:
    """A checkpoint, a settled recipe for it, and how the flow is solved."""

    arguments: argparse.Namespace
    checkpoint: NetworkCheckpoint
    recipe: Recipe
    settings: Adaptive

    def flow(self, tick: Tick) -> Flow:
        """The flow, which calls ``tick`` after every network call."""
        return Flow(self.checkpoint, self.recipe, self.settings, tick)

    def given(self, values: Tensor) -> Tensor:
        """The values as the flow takes them: on the network's device, at least in float32."""
        return values.to(self.checkpoint.device, working_dtype(self.checkpoint.dtype))

    def encode(self, pictures: Sequence[Picture], labels: Labels) -> AdaptiveResult:
        """The codes of the pictures."""

        def encode(part: Part) -> AdaptiveResult:
            levels = torch.cat([pictures[place].levels for place in part.places])
            images = self.given(values_of(levels))
            return self.flow(part.tick).encode(images, part.of(labels))

        return self._in_parts(len(pictures), encode)

    def decode(self, codes: Tensor, labels: Labels) -> AdaptiveResult:
        """The images of the codes."""

        def decode(part: Part) -> AdaptiveResult:
            some = self.given(codes[part.places.start : part.places.stop])
            return self.flow(part.tick).decode(some, part.of(labels))

        return self._in_parts(len(codes), decode)

    def _in_parts(self, count: int, solve: Callable[[Part], AdaptiveResult]) -> AdaptiveResult:
        size = self.arguments.batch_size
        with named_failures(smaller_batches(size)):
            found = [solve(part) for part in in_parts(count, size)]
        return AdaptiveResult(*(torch.cat(columns).cpu() for columns in zip(*found, strict=True)))

    def labels(self, count: int) -> tuple[int, ...] | None:
        """The class of each of so many images, as the arguments say."""
        own, asked = self.checkpoint, self.arguments.label
        if asked is None and own.classes and own.null_label is None:
            raise ValueError(
                "What noise a picture is depends on its class, and this checkpoint knows none that "
                "stands for 'no class'; name the classes with --label."
            )
        return classes_or_none(asked, own.classes, own.null_label, count)

    def parameters(
        self, labels: Sequence[int | None] | None, seeds: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """How the flow is solved, for the results to say."""
        chosen = self.settings
        own = {"method": chosen.method, "tolerance": chosen.rtol, "max_nfe": chosen.max_nfe}
        return own | common_parameters(self.arguments, self.checkpoint, self.recipe, seeds, labels)


def open_flow(arguments: argparse.Namespace, processes: Processes, default: Adaptive) -> Opened:
    """Load the checkpoint that was named, and settle how its flow is solved.

    Args:
        default: the method; all else is in the arguments.
    """
    tolerance = arguments.tolerance
    settings = replace(default, rtol=tolerance, atol=tolerance, max_nfe=arguments.max_nfe)
    checkpoint = open_network(arguments, processes.device)
    recipe = checkpoint.settle(recipe_from(arguments))
    checkpoint.grid(recipe)  # an error here is better than in the middle
    return Opened(arguments, checkpoint, recipe, settings)


def in_parts(count: int, size: int) -> Iterator[Part]:
    """``count`` images, ``size`` at once, behind a progress bar that counts network calls too."""
    calls = 0
    with tqdm(total=count, unit="image", disable=None) as bar:

        def tick() -> None:
            nonlocal calls
            calls += 1
            bar.set_postfix({"network calls": calls})

        for start in range(0, count, size):
            places = range(start, min(start + size, count))
            yield Part(places, tick)
            bar.update(len(places))


def report(what: str, found: AdaptiveResult, also: str, output: Path) -> None:
    """Say what was found, and at what cost."""
    calls, missed = found.nfe.tolist(), int((~found.within_tolerance).sum())
    mean = sum(calls) / len(calls)
    short = f", {missed} not within the tolerance: --max-nfe ran out" if missed else ""
    cost = f"{mean:.1f} network calls each ({min(calls)} to {max(calls)})"
    print(f"{counted(len(calls), what)}{short}, {cost}{also} -> {output}")
