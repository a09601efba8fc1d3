"""Images with a given measurement: what inpaint, colorize and sharpen have in common."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import NetworkCheckpoint, Recipe
from samplers.cli.arguments import NUM_ANSWERS
from samplers.cli.choices import chosen_options, chosen_seeds, classes_or_none
from samplers.cli.failure import named_failures, smaller_batches
from samplers.cli.opening import open_network, recipe_from
from samplers.cli.output import (
    check_places,
    common_parameters,
    is_picture,
    prepare_folder,
    write,
)
from samplers.cli.processes import join
from samplers.cli.text import counted
from samplers.images.pixels import Cell, table, to_images
from samplers.inverse_problems import (
    Guidance,
    InverseProblem,
    LinearOperator,
    Replacement,
    agreement,
)

ACROSS = 6
"""Answers in a row of the picture."""


@dataclass(frozen=True)
class Given:
    """What was measured, the pictures that show it by heading, and what the result notes of it."""

    operator: LinearOperator
    measurement: Tensor
    pictures: dict[str, Image.Image]
    settings: dict[str, Any]


Read = Callable[[argparse.Namespace, tuple[int, int, int]], Given]
"""Reads the pictures that a command is given, for a network of images [C, H, W]."""


@dataclass(frozen=True)
class Job:
    """Everything that a run does, settled before the first network call."""

    arguments: argparse.Namespace
    checkpoint: NetworkCheckpoint
    recipe: Recipe
    method: Guidance | Replacement
    calls: int
    given: Given
    problem: InverseProblem
    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None

    def draw(self) -> Tensor:
        """One image for each seed: [N, C, H, W]."""
        size = self.arguments.batch_size
        starts = range(0, len(self.seeds), size)
        with tqdm(total=len(starts) * self.calls, unit="call", disable=None) as bar:
            drawn = [self._draw(slice(start, start + size), bar.update) for start in starts]
        return torch.cat(drawn)

    def _draw(self, part: slice, tick: Callable[[], object]) -> Tensor:
        labels = None if self.labels is None else self.labels[part]
        problem, seeds = self.problem, self.seeds[part]
        return self.checkpoint.restore(self.recipe, problem, self.method, seeds, labels, tick)

    def parameters(self, numbers: dict[str, float]) -> dict[str, Any]:
        """All that is needed to draw the images again, and what was found."""
        own = {
            **self.given.settings,
            "noise_std": self.problem.noise_std,
            "method": self.arguments.method,
            "visits": self.arguments.visits,
            "sampler": self.recipe.sampler,
            "options": dict(self.recipe.options),
            "steps": self.recipe.steps,
            "grid": self.recipe.grid,
            "network_calls": self.calls,
            **numbers,
        }
        return own | common_parameters(
            self.arguments, self.checkpoint, self.recipe, self.seeds, self.labels
        )


def draw_answers(arguments: argparse.Namespace, read: Read) -> int:
    """Draw images with the measurement that is read; returns the exit code."""
    if not is_picture(arguments.output):
        raise ValueError(f"The output is {arguments.output}; it is one picture, NAME.png.")
    check_places([arguments.output], [arguments.image])
    method = _method(arguments)
    options = chosen_options(arguments.sampler, arguments.option)
    processes = join(arguments.device)
    if not processes.main:
        return 0  # a handful of images: the main process draws them alone
    checkpoint = open_network(arguments, processes.device)
    if not checkpoint.of_pixels:
        raise ValueError(
            "This checkpoint's network works on latents, where pixels can't be held; take a "
            "network over pixels."
        )
    given = read(arguments, checkpoint.shape)
    problem = InverseProblem(given.operator, given.measurement, arguments.noise_std)
    asked = replace(
        recipe_from(arguments),
        sampler=arguments.sampler,
        steps=arguments.steps,
        options=options,
        # The first steps must be short: near pure noise the gradient of a guess is large.
        grid=arguments.grid or "log-snr",
    )
    recipe = checkpoint.settle(asked)
    tableau = checkpoint.tableau(recipe)
    if not tableau.batch_invariant:
        raise ValueError(
            f"The steps of {recipe.sampler!r} depend on the whole batch; take another sampler."
        )
    calls = tableau.calls * (arguments.visits or 1)
    seeds = chosen_seeds(arguments, NUM_ANSWERS)
    labels = classes_or_none(arguments.label, checkpoint.classes, checkpoint.null_label, len(seeds))
    job = Job(arguments, checkpoint, recipe, method, calls, given, problem, seeds, labels)
    prepare_folder(arguments.output.parent)
    return _finish(job)


def _method(arguments: argparse.Namespace) -> Guidance | Replacement:
    if arguments.method == "replacement":
        return Replacement(arguments.visits or 1)
    if arguments.visits is not None:
        raise ValueError("--visits is for --method replacement; guidance takes every step once.")
    return Guidance()


def _finish(job: Job) -> int:
    started = time.perf_counter()
    with named_failures(smaller_batches(job.arguments.batch_size)):
        images = job.draw()
    numbers = _numbers(job.problem, images)
    write(_picture(job, images), job.arguments.output, job.parameters(numbers))
    seconds = time.perf_counter() - started
    how = f"{job.recipe.sampler}, {counted(job.calls, 'network call')} each"
    print(
        f"{counted(len(images), 'image')}: {job.arguments.method}, {how}, {seconds:.1f} s -> "
        f"{job.arguments.output}"
    )
    for name, number in numbers.items():
        print(f"  {name.replace('_', ' ')}: {number:.3g}")
    return 0


def _numbers(problem: InverseProblem, images: Tensor) -> dict[str, float]:
    found = agreement(problem, images)
    numbers = {"error_of_measurement": found.error}
    if found.deviation is not None:
        numbers["deviation_of_the_rest"] = found.deviation
    return numbers


def _picture(job: Job, images: Tensor) -> Image.Image:
    """A row with what was given and the first images, and rows with the others."""
    drawn = [
        Cell((image,), (f"seed {seed}",))
        for image, seed in zip(to_images(images), job.seeds, strict=True)
    ]
    shown = [Cell((picture,), ()) for picture in job.given.pictures.values()]
    blank = [Cell((), ())] * len(shown)
    rows: list[tuple[str, Sequence[Cell]]] = [
        ("", [*(shown if start == 0 else blank), *drawn[start : start + ACROSS]])
        for start in range(0, len(drawn), ACROSS)
    ]
    headings = [*job.given.pictures, "drawn", *[""] * (min(len(drawn), ACROSS) - 1)]
    title = f"{job.arguments.method}, {job.recipe.sampler}, {job.recipe.steps} steps"
    return table(title, headings, rows)
