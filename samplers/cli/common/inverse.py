"""Samples that satisfy a measurement: what inpaint, colorize and sharpen share.

Importing this imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import Recipe, read_recipe
from samplers.checkpoint.network import NetworkCheckpoint
from samplers.choices import DEFAULT_SAMPLER, INVERSE_PROBLEM_SPACING
from samplers.cli.common.checkpoints import (
    grid_settings,
    labels_of,
    open_network,
    parameters,
    sampler_options,
    sampling_recipe,
    steps_of,
)
from samplers.cli.common.errors import evaluating, printed_warnings, smaller_batches
from samplers.cli.common.options import (
    INVERSE_SAMPLER,
    INVERSE_STEPS,
    NUM_SAMPLES,
    InverseProblemOptions,
)
from samplers.cli.common.output import prepare_folder, write
from samplers.cli.common.text import counted
from samplers.cli.common.tuned import noted_tuned, tuned_of
from samplers.cli.common.values import fixed_sampler
from samplers.images.figures import Cell, Figure, table
from samplers.images.pixels import to_images
from samplers.inverse_problems import (
    Guidance,
    InverseProblem,
    LinearOperator,
    Replacement,
    agreement,
)

ACROSS = 6
"""Samples in a row of the image."""


@dataclass(frozen=True)
class Measured:
    """A measurement, the images that show it by heading, and what the result notes of it."""

    operator: LinearOperator
    measurement: Tensor
    pictures: dict[str, Image.Image]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything that a run does, settled before the first network evaluation."""

    options: InverseProblemOptions
    checkpoint: NetworkCheckpoint
    recipe: Recipe
    ticks: int
    nfe: int
    measured: Measured
    problem: InverseProblem
    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None

    def sample(self) -> Tensor:
        """One image for each seed: [N, C, H, W]."""
        size = self.options.batch_size
        starts = range(0, len(self.seeds), size)
        with (
            evaluating(smaller_batches(size)),
            tqdm(total=len(starts) * self.ticks, unit="evaluation", disable=None) as bar,
        ):
            return torch.cat(
                [self._sample(slice(start, start + size), bar.update) for start in starts]
            )

    def _sample(self, part: slice, tick: Callable[[], object]) -> Tensor:
        labels = None if self.labels is None else self.labels[part]
        visits = self.options.visits or 1
        method = Replacement(visits) if self.options.method == "replacement" else Guidance()
        return self.checkpoint.restore(
            self.recipe, self.problem, method, self.seeds[part], labels, tick
        )

    def parameters(self, numbers: dict[str, float]) -> dict[str, Any]:
        """All that is needed to sample the images again, and what was found."""
        own = {
            **self.measured.settings,
            "noise_std": self.problem.noise_std,
            "method": self.options.method,
            "visits": self.options.visits,
            **_noted(self.options, self.recipe),
            "steps": self.recipe.steps,
            **grid_settings(self.options, self.recipe),
            "network_calls": self.nfe,
            **numbers,
        }
        return own | parameters(self.options, self.checkpoint, self.recipe, self.seeds, self.labels)


def solve(
    options: InverseProblemOptions, measure: Callable[[tuple[int, int, int]], Measured]
) -> None:
    """Sample images that satisfy a measurement, write and report them.

    Args:
        measure: reads the measurement, for a network of images [C, H, W].
    """
    asked = _recipe(options)
    checkpoint = open_network(options)
    if not checkpoint.of_pixels:
        raise ValueError(
            "This checkpoint's network works on latents, where pixels can't be measured; take a "
            "network over pixels."
        )
    measured = measure(checkpoint.shape)
    problem = InverseProblem(measured.operator, measured.measurement, options.noise_std)
    with printed_warnings():
        recipe = checkpoint.settle(asked)
    tableau = checkpoint.tableau(recipe)
    if not tableau.batch_invariant:
        raise ValueError(
            f"The steps of {recipe.name!r} depend on the whole batch; take another sampler."
        )
    visits = options.visits or 1
    ticks, nfe = visits * tableau.calls, visits * checkpoint.nfe(recipe)
    seeds = options.chosen_seeds(NUM_SAMPLES)
    labels = labels_of(options, checkpoint, len(seeds))
    prepare_folder(options.output.parent)
    _finish(Job(options, checkpoint, recipe, ticks, nfe, measured, problem, seeds, labels))


def _recipe(options: InverseProblemOptions) -> Recipe:
    """What the options ask for, not settled."""
    own = read_recipe(options.checkpoint)
    chosen = INVERSE_SAMPLER if own.sampler == DEFAULT_SAMPLER else own.sampler
    asked, named = sampling_recipe(options, own), options.sampler or chosen
    tuned = tuned_of(options, named)
    if tuned is not None:
        return replace(asked, sampler=tuned)
    sampler = fixed_sampler(str(named))
    return replace(
        asked,
        sampler=sampler,
        steps=steps_of(options.steps, asked, INVERSE_STEPS),
        grid=asked.grid or INVERSE_PROBLEM_SPACING,
        options=sampler_options(sampler, options.options, own),
    )


def _noted(options: InverseProblemOptions, recipe: Recipe) -> dict[str, Any]:
    """What results store of the sampler."""
    if not isinstance(recipe.sampler, str):
        return noted_tuned(recipe.sampler, options.sampler or "tuned")
    return {"sampler": recipe.sampler, "options": dict(recipe.options)}


def _finish(job: Job) -> None:
    started = time.perf_counter()
    images = job.sample()
    numbers = _numbers(job.problem, images)
    options = job.options
    write(_figure(job, images), options.output, job.parameters(numbers))
    seconds = time.perf_counter() - started
    how = f"{job.recipe.name}, {counted(job.nfe, 'network evaluation')} each"
    print(
        f"{counted(len(images), 'image')}: {options.method}, {how}, {seconds:.1f} s -> "
        f"{options.output}"
    )
    for name, number in numbers.items():
        print(f"  {name.replace('_', ' ')}: {number:.3g}")


def _numbers(problem: InverseProblem, images: Tensor) -> dict[str, float]:
    found = agreement(problem, images)
    numbers = {"error_of_measurement": found.error}
    if found.deviation is not None:
        numbers["deviation_of_the_rest"] = found.deviation
    return numbers


def _figure(job: Job, images: Tensor) -> Figure:
    """A row with what was given and the first samples, and rows with the others."""
    sampled = [
        Cell(image, f"seed {seed}")
        for image, seed in zip(to_images(images), job.seeds, strict=True)
    ]
    shown = [Cell(picture) for picture in job.measured.pictures.values()]
    blank = [Cell()] * len(shown)
    rows: list[tuple[str, Sequence[Cell]]] = [
        ("", [*(shown if start == 0 else blank), *sampled[start : start + ACROSS]])
        for start in range(0, len(sampled), ACROSS)
    ]
    headings = [*job.measured.pictures, "samples", *[""] * (min(len(sampled), ACROSS) - 1)]
    title = f"{job.options.method}, {job.recipe.name}, {job.recipe.steps} steps"
    return table(title, headings, rows)
