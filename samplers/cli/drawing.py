"""The two ways to draw a batch: by a sampler of fixed steps, or with steps that adapt."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from PIL import Image

from samplers.checkpoint import Checkpoint, Flow, NetworkCheckpoint, Recipe, Tick
from samplers.cli.choices import chosen_options
from samplers.cli.opening import recipe_from
from samplers.cli.text import counted
from samplers.images.pixels import to_images
from samplers.probability_flow.integration import Adaptive
from samplers.registry import get_sampler, list_adaptive

STEPS = 20
TOLERANCE = 0.01
MAX_NFE = 500

_OF_FIXED = ("steps", "grid", "option", "noise")
_OF_ADAPTIVE = ("tolerance", "max_nfe")


class Cost(NamedTuple):
    """What one image took, and whether it is as accurate as was asked."""

    calls: int
    within_tolerance: bool = True


class Drawn(NamedTuple):
    """A finished image."""

    image: Image.Image
    cost: Cost


@dataclass(frozen=True)
class Drawing:
    """A settled recipe on a checkpoint, and how a batch is drawn by it.

    Attributes:
        settings: what its pictures say of it; words, the same as it is written on the command line,
            and ``text``, as people are told.
        calls: the network calls of a batch; None if they are known afterwards only.
        together: whether an image depends on the others of its batch.
    """

    recipe: Recipe
    settings: dict[str, Any]
    words: list[str]
    text: str
    calls: int | None
    together: bool
    draw: Callable[[Sequence[int], Sequence[int] | None, Tick], list[Drawn]]

    def outcome(self, costs: Sequence[Cost]) -> dict[str, Any]:
        """What finished pictures say beyond the settings."""
        if self.calls is not None:
            return {}
        return {
            "network_calls": [cost.calls for cost in costs],
            "within_tolerance": [cost.within_tolerance for cost in costs],
        }

    def summary(self, costs: Sequence[Cost]) -> str:
        """How the images were drawn, in words."""
        if self.calls is not None or not costs:
            return self.text
        calls = [cost.calls for cost in costs]
        mean, missed = sum(calls) / len(calls), sum(not cost.within_tolerance for cost in costs)
        short = f", {missed} of {counted(len(costs), 'image')} not within it" if missed else ""
        return f"{self.text}{short}, {mean:.1f} network calls each ({min(calls)} to {max(calls)})"


def check_drawing(arguments: argparse.Namespace) -> None:
    """Raise ValueError for settings that the sampler can't have, before anything is loaded."""
    name = arguments.sampler
    if name not in list_adaptive():
        _refuse(arguments, _OF_ADAPTIVE, f"{name!r} takes fixed steps; set --steps instead")
        chosen_options(name, arguments.option)
        if arguments.noise is not None and not get_sampler(name).stochastic:
            raise ValueError(f"--noise is not for this sampler: {name!r} draws none.")
        return
    _refuse(arguments, _OF_FIXED, f"{name!r} chooses its own steps; set --tolerance instead")
    _adaptive_settings(arguments)


def choose_drawing(arguments: argparse.Namespace, checkpoint: Checkpoint) -> Drawing:
    """How the arguments want a batch to be drawn; they were checked before.

    Raises ValueError if the checkpoint can't do it.
    """
    recipe = recipe_from(arguments)
    if arguments.sampler in list_adaptive():
        return _adaptive(checkpoint, recipe, _adaptive_settings(arguments))
    fixed = replace(
        recipe,
        sampler=arguments.sampler,
        steps=arguments.steps or STEPS,
        options=chosen_options(arguments.sampler, arguments.option),
        noise=arguments.noise or "independent",
    )
    return _fixed(checkpoint, fixed)


def _refuse(arguments: argparse.Namespace, settings: Sequence[str], why: str) -> None:
    for name in settings:
        if getattr(arguments, name) not in (None, []):
            raise ValueError(f"--{name.replace('_', '-')} is not for this sampler: {why}.")


def _adaptive_settings(arguments: argparse.Namespace) -> Adaptive:
    tolerance = TOLERANCE if arguments.tolerance is None else arguments.tolerance
    return Adaptive(arguments.sampler, tolerance, tolerance, arguments.max_nfe or MAX_NFE)


def _fixed(checkpoint: Checkpoint, asked: Recipe) -> Drawing:
    recipe = checkpoint.settle(asked)
    tableau = checkpoint.tableau(recipe)
    cost = Cost(tableau.calls)

    def draw(seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick) -> list[Drawn]:
        images = to_images(checkpoint.draw(recipe, seeds, labels, tick))
        return [Drawn(image, cost) for image in images]

    settings = {
        "sampler": recipe.sampler,
        "options": dict(recipe.options),
        "steps": recipe.steps,
        "grid": recipe.grid,
        "noise": recipe.noise if tableau.stochastic else None,
        "network_calls": tableau.calls,
    }
    words = ["--sampler", recipe.sampler, "--steps", str(recipe.steps)]
    for name, value in recipe.options.items():
        words += ["--option", f"{name}={value}"]
    words += [] if recipe.grid is None else ["--grid", recipe.grid]
    words += ["--noise", recipe.noise] if tableau.stochastic else []
    text = f"{recipe.sampler}, {recipe.steps} steps, {tableau.calls} network calls each"
    together = not tableau.batch_invariant
    return Drawing(recipe, settings, words, text, tableau.calls, together, draw)


def _adaptive(checkpoint: Checkpoint, asked: Recipe, adaptive: Adaptive) -> Drawing:
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise ValueError(
            f"{adaptive.method!r} chooses its own steps, but this checkpoint's pipeline calls its "
            "network at given times; take a sampler of fixed steps, such as dpmpp-2m."
        )
    recipe = checkpoint.settle(asked)

    def draw(seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick) -> list[Drawn]:
        found = Flow(checkpoint, recipe, adaptive, tick).draw(seeds, labels)
        costs = map(Cost, found.nfe.tolist(), found.within_tolerance.tolist())
        return list(map(Drawn, to_images(found.x), costs))

    settings = {
        "sampler": adaptive.method,
        "tolerance": adaptive.rtol,
        "max_nfe": adaptive.max_nfe,
    }
    words = ["--sampler", adaptive.method, "--tolerance", str(adaptive.rtol)]
    words += ["--max-nfe", str(adaptive.max_nfe)]
    text = f"{adaptive.method} at tolerance {adaptive.rtol:g}"
    return Drawing(recipe, settings, words, text, None, False, draw)
