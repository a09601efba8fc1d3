"""The work of ``samplers sample``: seeds and classes in, pictures on disk out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm

from samplers.checkpoint import Checkpoint, Recipe
from samplers.cli.arguments import NUM_IMAGES, seeds_text
from samplers.cli.choices import chosen_labels, chosen_options, chosen_seeds
from samplers.cli.failure import Failure
from samplers.cli.opening import open_checkpoint, recipe_from
from samplers.cli.output import common_parameters, is_picture, prepare_folder, write
from samplers.cli.processes import Processes, join
from samplers.cli.text import counted
from samplers.pictures import columns_for, read_parameters, sheet, to_images
from samplers.sample import NotFiniteError

SHEET_LIMIT = 400
"""The sheet of a folder shows its first images only, so that it stays a picture."""

# What may differ between two images that are the same for all that matters here.
_INCIDENTAL = ("command", "checkpoint", "device")


@dataclass(frozen=True)
class Item:
    """One image to draw."""

    position: int
    seed: int
    label: int | None

    @property
    def name(self) -> str:
        return f"seed-{self.seed:08d}.png"


@dataclass(frozen=True)
class Job:
    """Everything that a run of ``sample`` does, settled before the first network call."""

    arguments: argparse.Namespace
    checkpoint: Checkpoint
    recipe: Recipe
    calls: int
    items: tuple[Item, ...]
    labels: tuple[int, ...] | None
    processes: Processes

    def parameters(self, items: Sequence[Item], output: str) -> dict[str, Any]:
        """All that is needed to draw these images again."""
        seeds = [item.seed for item in items]
        labels = None if self.labels is None else [item.label for item in items]
        own = {
            "command": self._command(items, output),
            "sampler": self.recipe.sampler,
            "options": dict(self.recipe.options),
            "steps": self.recipe.steps,
            "network_calls": self.calls,
            "device": self.processes.device.type,
        }
        return own | common_parameters(self.arguments, self.checkpoint, self.recipe, seeds, labels)

    def _command(self, items: Sequence[Item], output: str) -> str:
        """The command that draws these images again, every setting written out."""
        arguments, recipe = self.arguments, self.recipe
        words = ["samplers", "sample", str(arguments.checkpoint)]
        words += ["--sampler", recipe.sampler, "--steps", str(recipe.steps)]
        for name, value in recipe.options.items():
            words += ["--option", f"{name}={value}"]
        settings = {
            "grid": recipe.grid,
            "sigma-min": recipe.sigma_min,
            "sigma-max": recipe.sigma_max,
            "final": recipe.final,
            "guidance": recipe.guidance,
            "guidance-rescale": recipe.guidance_rescale or None,
            "prompt": recipe.prompt,
            "negative-prompt": recipe.negative_prompt,
            "null-label": arguments.null_label,
            "label": self._label_words(items),
            "seeds": seeds_text([item.seed for item in items]),
            "dtype": arguments.dtype,
        }
        for name, setting in settings.items():
            words += [] if setting is None else [f"--{name}", str(setting)]
        words += ["--allow-pickle"] if arguments.allow_pickle else []
        return shlex.join([*words, "--output", output])

    def _label_words(self, items: Sequence[Item]) -> str | None:
        """The classes taken in turn; of the whole job, if the items are its first ones."""
        if self.labels is None:
            return None
        turn = [item.label for item in items][: len(self.labels)]
        return ",".join(str(label) for label in turn)


def run(arguments: argparse.Namespace) -> int:
    """Draw what the arguments ask for; returns the exit code."""
    single = is_picture(arguments.output)
    job = _plan(arguments)
    prepare_folder(arguments.output.parent if single else arguments.output)
    return _draw_picture(job) if single else _draw_folder(job)


def _plan(arguments: argparse.Namespace) -> Job:
    options = chosen_options(arguments.sampler, arguments.option)
    processes = join(arguments.device)
    checkpoint = open_checkpoint(arguments, processes.device)
    asked = recipe_from(arguments, arguments.sampler, arguments.steps, options)
    recipe = checkpoint.settle(asked)
    calls = checkpoint.tableau(recipe).calls
    labels = chosen_labels(arguments.label, checkpoint.classes, checkpoint.null_label)
    if labels is not None and arguments.label is None and processes.main:
        print(f"no --label given: taking the {len(labels)} classes in turn", file=sys.stderr)
    seeds = chosen_seeds(arguments, NUM_IMAGES)
    items = tuple(
        Item(i, seed, labels[i % len(labels)] if labels else None) for i, seed in enumerate(seeds)
    )
    return Job(arguments, checkpoint, recipe, calls, items, labels, processes)


# -------------------------------------------------------------------------------- one picture


def _draw_picture(job: Job) -> int:
    path: Path = job.arguments.output
    started = time.perf_counter()
    own: list[tuple[Item, Image.Image]] = []
    problem = _draw_share(job, job.items, lambda item, image: own.append((item, image)))
    drawn = dict(job.processes.gathered(own))
    problems = [p for p in job.processes.gathered([problem]) if p is not None]
    finished = [item for item in job.items if item in drawn]
    if problems and finished:
        path = path.with_suffix(".partial.png")
    if finished and job.processes.main:
        columns = columns_for(len(finished), len(job.labels or ()))
        write(
            sheet([drawn[item] for item in finished], columns),
            path,
            job.parameters(finished, path.name),
        )
    if problems:
        kept = f" The {len(finished)} finished images of {len(job.items)} are in {path}."
        raise Failure(problems[0].sentence + (kept if finished else ""), problems[0].code)
    _report(job, len(job.items), time.perf_counter() - started)
    return 0


# ----------------------------------------------------------------------------------- a folder


def _draw_folder(job: Job) -> int:
    folder: Path = job.arguments.output
    started = time.perf_counter()
    pending = [item for item in job.items if not _is_drawn(job, item)]
    job.processes.gathered([True])  # nobody draws before everybody knows what is missing
    problem = _draw_share(job, pending, lambda item, image: _keep(job, item, image))
    problems = [p for p in job.processes.gathered([problem]) if p is not None]
    if problems:
        done = sum((folder / item.name).is_file() for item in job.items)
        raise Failure(
            f"{problems[0].sentence} {done} of {len(job.items)} images are finished in {folder}; "
            "run the same command again to go on.",
            problems[0].code,
        )
    if job.processes.main:
        _write_folder_sheet(job)
    _report(job, len(pending), time.perf_counter() - started)
    return 0


def _is_drawn(job: Job, item: Item) -> bool:
    """Whether the folder holds this very image; ValueError if it holds another by this name."""
    path = job.arguments.output / item.name
    if not path.exists():
        return False
    found, wanted = read_parameters(path), job.parameters([item], item.name)
    difference = _difference(found, wanted)
    if difference and not job.arguments.overwrite:
        raise ValueError(
            f"{path} was drawn with other settings ({difference}); choose another folder, or pass "
            "--overwrite to replace it."
        )
    return not difference


def _difference(found: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    """The first setting that differs, in words; empty if none does."""
    if found is None:
        return "it does not say which"
    for key, value in wanted.items():
        if key not in _INCIDENTAL and found.get(key) != value:
            return f"{key}: {found.get(key)}, not {value}"
    return ""


def _keep(job: Job, item: Item, image: Image.Image) -> None:
    write(image, job.arguments.output / item.name, job.parameters([item], item.name))


def _write_folder_sheet(job: Job) -> None:
    folder: Path = job.arguments.output
    shown = job.items[:SHEET_LIMIT]
    images = []
    for item in shown:
        with Image.open(folder / item.name) as image:
            images.append(image.copy())
    columns = columns_for(len(shown), len(job.labels or ()))
    write(sheet(images, columns), folder / "grid.png", job.parameters(shown, "grid.png"))


# -------------------------------------------------------------------------------- the drawing


@dataclass(frozen=True)
class Problem:
    """Why a process stopped before its share was done."""

    sentence: str
    code: int


def _draw_share(
    job: Job, items: Sequence[Item], keep: Callable[[Item, Image.Image], None]
) -> Problem | None:
    """Draw this process's share of the items and keep each; what stopped it, if anything did."""
    own = list(job.processes.share(items))
    size = job.arguments.batch_size
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    quiet = None if job.processes.main else True  # None: only where somebody watches
    try:
        with tqdm(total=len(batches) * job.calls, unit="call", disable=quiet) as bar:
            for number, batch in enumerate(batches):
                bar.set_description(f"batch {number + 1}/{len(batches)}")
                for item, image in zip(batch, _draw_batch(job, batch, bar.update), strict=True):
                    keep(item, image)
    except KeyboardInterrupt:
        return Problem("Interrupted.", 130)
    except NotFiniteError as error:
        return Problem(str(error), 1)
    except torch.OutOfMemoryError:
        return Problem(f"The device ran out of memory; take --batch-size below {size}.", 1)
    except Failure as failure:
        return Problem(str(failure), failure.code)
    return None


def _draw_batch(job: Job, batch: Sequence[Item], tick: Callable[[], object]) -> list[Image.Image]:
    labels = [item.label for item in batch if item.label is not None] if job.labels else None
    seeds = [item.seed for item in batch]
    return to_images(job.checkpoint.draw(job.recipe, seeds, labels, tick))


def _report(job: Job, drawn: int, seconds: float) -> None:
    if not job.processes.main:
        return
    recipe, kept = job.recipe, len(job.items) - drawn
    what = counted(drawn, "image") + (f" drawn, {kept} kept" if kept else "")
    calls = f"{recipe.steps} steps, {job.calls} network calls each"
    count = job.processes.count
    where = f", {count} processes" if count > 1 else ""
    print(f"{what}: {recipe.sampler}, {calls}{where}, {seconds:.1f} s -> {job.arguments.output}")
