"""What ``samplers sample`` is to do, settled before the first network evaluation.

A job is a list of images, the method that samples a batch, and the parameters that images store.
Importing this imports torch.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from samplers.checkpoint import Flow, Recipe, Tick, read_recipe
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.cli.common.checkpoints import (
    grid_settings,
    labels_in_turn,
    open_checkpoint,
    parameters,
    recipe_from,
    sampler_options,
    sampling_recipe,
    steps_of,
)
from samplers.cli.common.errors import printed_warnings
from samplers.cli.common.options import MAX_NFE, NUM_IMAGES, STEPS, TOLERANCE, SamplerOptions
from samplers.cli.common.processes import Processes, join
from samplers.cli.common.text import counted, evaluations_each
from samplers.cli.common.tuned import noted_tuned, refuse, tuned_of
from samplers.cli.common.values import seeds_text
from samplers.fitting import FittedGrid
from samplers.images.pixels import to_images
from samplers.probability_flow.integration import Adaptive
from samplers.registry import AdaptiveSampler, Sampler, get_sampler
from samplers.tuning import TunedSampler

if TYPE_CHECKING:
    from samplers.checkpoint import Checkpoint

# Options that only one kind of samplers has, by the name of the field.
_OF_FIXED = {"steps": "--steps", "grid": "--grid", "options": "--option", "noise": "--noise"}
_OF_ADAPTIVE = {"tolerance": "--tolerance", "max_nfe": "--max-nfe"}


class Cost(NamedTuple):
    """The network evaluations of one image, and whether it is within the tolerance."""

    nfe: int
    within_tolerance: bool = True


class Sampled(NamedTuple):
    """A finished image."""

    image: Image.Image
    cost: Cost


@dataclass(frozen=True)
class Method:
    """A settled recipe on a checkpoint, and how a batch is sampled by it.

    Attributes:
        settings: as stored in images; ``words``, as options of the command line, and ``text``, as
            reported.
        ticks: how often a batch reports progress; None if that is known afterwards only.
        together: whether an image depends on the others of its batch.
    """

    recipe: Recipe
    settings: dict[str, Any]
    words: list[str]
    text: str
    ticks: int | None
    together: bool
    sample: Callable[[Sequence[int], Sequence[int] | None, Tick], list[Sampled]]

    def outcome(self, costs: Sequence[Cost]) -> dict[str, Any]:
        """The parameters of finished images besides the settings."""
        if self.ticks is not None:
            return {}
        return {
            "network_calls": [cost.nfe for cost in costs],
            "within_tolerance": [cost.within_tolerance for cost in costs],
        }

    def summary(self, costs: Sequence[Cost]) -> str:
        """How the images were sampled, in words."""
        if self.ticks is not None or not costs:
            return self.text
        nfe = [cost.nfe for cost in costs]
        missed = sum(not cost.within_tolerance for cost in costs)
        short = f", {missed} of {counted(len(costs), 'image')} not within it" if missed else ""
        return f"{self.text}{short}, {evaluations_each(nfe)}"


@dataclass(frozen=True)
class Item:
    """One image to sample."""

    position: int
    seed: int
    label: int | None

    @property
    def name(self) -> str:
        return f"seed-{self.seed:08d}.png"


@dataclass(frozen=True)
class Job:
    """Everything that a run does.

    Attributes:
        turn: the classes that the images take in turn; None for a model without classes.
    """

    options: SamplerOptions
    checkpoint: Checkpoint
    method: Method
    items: tuple[Item, ...]
    turn: tuple[int, ...] | None
    processes: Processes

    def labels(self, items: Sequence[Item]) -> list[int] | None:
        """The classes of some images."""
        return [item.label for item in items if item.label is not None] if self.turn else None

    def batches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """The items as they are sampled at once, if all of them are sampled."""
        size = self.options.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def share(self, pending: Sequence[Item]) -> list[Sequence[Item]]:
        """The pending batches that this process samples."""
        if not self.method.together:
            return self.batches(self.processes.share(pending))
        missing = set(pending)
        whole = [batch for batch in self.batches(self.items) if not missing.isdisjoint(batch)]
        return list(self.processes.share(whole))

    def parameters(self, items: Sequence[Item], output: str) -> dict[str, Any]:
        """All that is needed to sample these images again."""
        seeds = [item.seed for item in items]
        labels = None if self.turn is None else [item.label for item in items]
        own = {
            "command": self._command(items, output),
            **self.method.settings,
            "device": self.processes.device.type,
        }
        recipe = self.method.recipe
        return own | parameters(self.options, self.checkpoint, recipe, seeds, labels)

    def single_parameters(self, item: Item) -> dict[str, Any]:
        """The same for one image of a folder, which may depend on the others of its batch."""
        own = self.parameters([item], item.name)
        if not self.method.together:
            return own
        batch = next(batch for batch in self.batches(self.items) if item in batch)
        return own | {
            # Its batch has to be sampled, into a folder.
            "command": self._command(batch, f"seed-{item.seed:08d}"),
            "batch_seeds": [other.seed for other in batch],
            "batch_labels": [other.label for other in batch],
        }

    def _command(self, items: Sequence[Item], output: str) -> str:
        """The command that samples these images again, every setting written out."""
        options, recipe = self.options, self.method.recipe
        words = ["samplers", "sample", str(options.checkpoint), *self.method.words]
        settings = {
            "sigma-min": recipe.sigma_min,
            "sigma-max": recipe.sigma_max,
            "final": recipe.final,
            "guidance": recipe.guidance,
            "guidance-rescale": recipe.guidance_rescale or None,
            "guidance-interval": _interval_words(recipe),
            "prompt": recipe.prompt,
            "negative-prompt": recipe.negative_prompt,
            "null-label": options.null_label,
            "label": self._label_words(items),
            "seeds": seeds_text([item.seed for item in items]),
            "batch-size": options.batch_size if self.method.together else None,
            "dtype": options.dtype,
        }
        for name, setting in settings.items():
            words += [] if setting is None else [f"--{name}", str(setting)]
        words += ["--allow-pickle"] if options.allow_pickle else []
        return shlex.join([*words, "--output", output])

    def _label_words(self, items: Sequence[Item]) -> str | None:
        """The classes of these items as an option; one cycle if they are taken in turn."""
        if self.turn is None:
            return None
        own = [item.label for item in items]
        turn = own[: len(self.turn)]
        in_turn = all(label == turn[k % len(turn)] for k, label in enumerate(own))
        return ",".join(str(label) for label in (turn if in_turn else own))


def _interval_words(recipe: Recipe) -> str | None:
    interval = recipe.guidance_interval
    return None if interval is None else ",".join(map(str, interval))


# ------------------------------------------------------------------------------------- planning


def plan(options: SamplerOptions) -> Job:
    """Load the checkpoint, and settle what is sampled and how.

    Raises ValueError for settings that sampler and checkpoint can't have.
    """
    own = read_recipe(options.checkpoint)
    named = options.sampler or own.sampler
    tuned = tuned_of(options, named, _OF_ADAPTIVE)
    sampler = None if tuned else get_sampler(str(named))
    adaptive = None if sampler is None else _checked(options, sampler)
    processes = join(options.device)
    checkpoint = open_checkpoint(options, processes.device)
    if tuned is not None:
        with printed_warnings():
            method = _tuned_steps(options, checkpoint, tuned)
    elif sampler is not None and adaptive is None:
        method = _fixed_steps(options, checkpoint, sampler.name, own)
    else:
        assert adaptive is not None
        method = _adaptive_steps(options, checkpoint, adaptive)
    seeds = options.chosen_seeds(NUM_IMAGES)
    turn = labels_in_turn(options, checkpoint, len(seeds))
    if turn is not None and options.label is None and processes.main:
        print(f"no --label given: taking the {len(turn)} classes in turn", file=sys.stderr)
    items = tuple(
        Item(i, seed, turn[i % len(turn)] if turn else None) for i, seed in enumerate(seeds)
    )
    return Job(options, checkpoint, method, items, turn, processes)


def _checked(options: SamplerOptions, sampler: Sampler) -> Adaptive | None:
    """The settings of an adaptive sampler, None for one of fixed steps; ValueError for options that
    it does not have."""
    name = sampler.name
    if isinstance(sampler, AdaptiveSampler):
        refuse(options, _OF_FIXED, f"{name!r} has adaptive step sizes; set --tolerance instead")
        tolerance = options.tolerance or TOLERANCE
        return Adaptive(name, tolerance, tolerance, options.max_nfe or MAX_NFE)
    refuse(options, _OF_ADAPTIVE, f"{name!r} takes fixed steps; set --steps instead")
    sampler_options(name, options.options)
    if options.noise is not None and not sampler.stochastic:
        raise ValueError(f"--noise is for stochastic samplers: {name!r} has no noise.")
    return None


def _tuned_steps(options: SamplerOptions, checkpoint: Checkpoint, tuned: TunedSampler) -> Method:
    file = options.sampler
    recipe = checkpoint.settle(replace(recipe_from(options), sampler=tuned))
    nfe = checkpoint.nfe(recipe)
    settings = {
        **noted_tuned(tuned, file or "tuned"),
        "network_calls": nfe,
    }
    words = [] if file is None else ["--sampler", file]
    which = file or "the tuned sampler of the checkpoint"
    text = f"{which}, {counted(nfe, 'network evaluation')} each"
    return _method(checkpoint, recipe, settings, words, text, nfe, tuned.nfe)


def _method(
    checkpoint: Checkpoint,
    recipe: Recipe,
    settings: dict[str, Any],
    words: list[str],
    text: str,
    nfe: int,
    ticks: int,
    together: bool = False,
) -> Method:
    """A method whose images take equally many evaluations."""
    cost = Cost(nfe)

    def sample(seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick) -> list[Sampled]:
        images = to_images(checkpoint.draw(recipe, seeds, labels, tick))
        return [Sampled(image, cost) for image in images]

    return Method(recipe, settings, words, text, ticks, together, sample)


def _fixed_steps(
    options: SamplerOptions, checkpoint: Checkpoint, sampler: str, own: Recipe
) -> Method:
    said = sampling_recipe(options, own)
    asked = replace(
        said,
        sampler=sampler,
        steps=steps_of(options.steps, said, STEPS),
        options=sampler_options(sampler, options.options, own),
        noise=options.noise or own.noise,
    )
    with printed_warnings():
        recipe = checkpoint.settle(asked)
    tableau = checkpoint.tableau(recipe)
    nfe = checkpoint.nfe(recipe)
    settings = {
        "sampler": recipe.name,
        "options": dict(recipe.options),
        "steps": recipe.steps,
        **grid_settings(options, recipe),
        "noise": recipe.noise if tableau.stochastic else None,
        "network_calls": nfe,
    }
    words = ["--sampler", recipe.name, "--steps", str(recipe.steps)]
    for name, value in recipe.options.items():
        words += ["--option", f"{name}={value}"]
    grid = options.grid if isinstance(recipe.grid, FittedGrid) else recipe.grid
    words += [] if grid is None else ["--grid", str(grid)]
    words += ["--noise", recipe.noise] if tableau.stochastic else []
    unit = "network evaluation" if isinstance(checkpoint, NetworkCheckpoint) else "timestep"
    cost_words = counted(nfe, unit)
    which = recipe.name + _of_the_checkpoint(options, checkpoint, recipe)
    text = f"{which}, {counted(recipe.steps, 'step')}, {cost_words} each"
    together = not tableau.batch_invariant
    return _method(checkpoint, recipe, settings, words, text, nfe, tableau.calls, together)


def _of_the_checkpoint(options: SamplerOptions, checkpoint: Checkpoint, recipe: Recipe) -> str:
    """What the checkpoint's scheduler chose, in words; empty if nothing."""
    others = recipe.sampler != checkpoint.settings.default_sampler
    sampler = " (the checkpoint's)" if options.sampler is None and others else ""
    if options.grid is not None or checkpoint.recipe.grid is None:
        return sampler
    fitted = isinstance(recipe.grid, FittedGrid)
    return f"{sampler} on the checkpoint's {'fitted grid' if fitted else f'grid {recipe.grid}'}"


def _adaptive_steps(options: SamplerOptions, checkpoint: Checkpoint, adaptive: Adaptive) -> Method:
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise ValueError(
            f"{adaptive.method!r} has adaptive step sizes, but a pipeline evaluates its network at "
            "given times; take a sampler of fixed steps, such as dpmpp-2m."
        )
    recipe = checkpoint.settle(recipe_from(options))

    def sample(seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick) -> list[Sampled]:
        found = Flow(checkpoint, recipe, adaptive, tick).draw(seeds, labels)
        costs = map(Cost, found.nfe.tolist(), found.within_tolerance.tolist())
        return list(map(Sampled, to_images(found.x), costs))

    settings = {
        "sampler": adaptive.method,
        "tolerance": adaptive.rtol,
        "max_nfe": adaptive.max_nfe,
    }
    words = ["--sampler", adaptive.method, "--tolerance", str(adaptive.rtol)]
    words += ["--max-nfe", str(adaptive.max_nfe)]
    text = f"{adaptive.method} at tolerance {adaptive.rtol:g}"
    return Method(recipe, settings, words, text, None, False, sample)
