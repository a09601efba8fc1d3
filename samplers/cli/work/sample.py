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

from PIL import Image
from tqdm.auto import tqdm

from samplers.checkpoint import Checkpoint, NetworkCheckpoint
from samplers.cli.arguments import NUM_IMAGES
from samplers.cli.choices import check_count, chosen_labels, chosen_seeds
from samplers.cli.drawing import Cost, Drawing, Drawn, check_drawing, choose_drawing
from samplers.cli.failure import Failure, named_failures, smaller_batches
from samplers.cli.films import FILMS, check_film, is_film, write_film
from samplers.cli.opening import open_checkpoint
from samplers.cli.output import (
    check_places,
    common_parameters,
    is_picture,
    prepare_folder,
    spread_out,
    write,
)
from samplers.cli.processes import Processes, join
from samplers.cli.text import counted
from samplers.cli.values import seeds_text
from samplers.images.pixels import SHEET, columns_for, read_parameters, sheet, to_images

SHEET_LIMIT = 400
"""The sheet of a folder shows its first images only, so that it stays a picture."""

TRAJECTORY_IMAGES = 16
FILM_FRAMES = 60
STRIP_FRAMES = 12

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
    drawing: Drawing
    items: tuple[Item, ...]
    labels: tuple[int, ...] | None
    processes: Processes

    def parameters(self, items: Sequence[Item], output: str) -> dict[str, Any]:
        """All that is needed to draw these images again."""
        seeds = [item.seed for item in items]
        labels = None if self.labels is None else [item.label for item in items]
        own = {
            "command": self._command(items, output),
            **self.drawing.settings,
            "device": self.processes.device.type,
        }
        recipe = self.drawing.recipe
        return own | common_parameters(self.arguments, self.checkpoint, recipe, seeds, labels)

    def single_parameters(self, item: Item) -> dict[str, Any]:
        """The same for one image of a folder, which may depend on the others of its batch."""
        if not self.drawing.together:
            return self.parameters([item], item.name)
        batch = next(batch for batch in self.batches(self.items) if item in batch)
        own = self.parameters([item], item.name)
        return own | {
            # Its batch has to be drawn, into a folder.
            "command": self._command(batch, f"seed-{item.seed:08d}"),
            "batch_seeds": [other.seed for other in batch],
            "batch_labels": [other.label for other in batch],
        }

    def batches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """The items as they are drawn at once, if all of them are drawn."""
        size = self.arguments.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def share(self, pending: Sequence[Item]) -> list[Sequence[Item]]:
        """The batches that this process draws, so that all that are pending get done."""
        if not self.drawing.together:
            return self.batches(self.processes.share(pending))
        missing = set(pending)
        whole = [batch for batch in self.batches(self.items) if not missing.isdisjoint(batch)]
        return list(self.processes.share(whole))

    def _command(self, items: Sequence[Item], output: str) -> str:
        """The command that draws these images again, every setting written out."""
        arguments, recipe = self.arguments, self.drawing.recipe
        words = ["samplers", "sample", str(arguments.checkpoint), *self.drawing.words]
        settings = {
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
            "batch-size": arguments.batch_size if self.drawing.together else None,
            "dtype": arguments.dtype,
        }
        for name, setting in settings.items():
            words += [] if setting is None else [f"--{name}", str(setting)]
        words += ["--allow-pickle"] if arguments.allow_pickle else []
        return shlex.join([*words, "--output", output])

    def _label_words(self, items: Sequence[Item]) -> str | None:
        """The classes of these items, one turn of them if they are taken in turn."""
        if self.labels is None:
            return None
        own = [item.label for item in items]
        turn = own[: len(self.labels)]
        in_turn = all(label == turn[k % len(turn)] for k, label in enumerate(own))
        return ",".join(str(label) for label in (turn if in_turn else own))


def run(arguments: argparse.Namespace) -> int:
    """Draw what the arguments ask for; returns the exit code."""
    single = is_picture(arguments.output)
    _check_name(arguments.trajectory)
    job = _plan(arguments)
    _check_trajectory(job)
    check_places(_outputs(job, single))
    prepare_folder(arguments.output.parent if single else arguments.output)
    if arguments.trajectory is not None:
        prepare_folder(arguments.trajectory.parent)
    code = _draw_picture(job) if single else _draw_folder(job)
    if arguments.trajectory is not None and job.processes.main:
        _draw_trajectory(job)
    return code


def _plan(arguments: argparse.Namespace) -> Job:
    check_drawing(arguments)
    processes = join(arguments.device)
    checkpoint = open_checkpoint(arguments, processes.device)
    drawing = choose_drawing(arguments, checkpoint)
    labels = chosen_labels(arguments.label, checkpoint.classes, checkpoint.null_label)
    if labels is not None and arguments.label is None and processes.main:
        print(f"no --label given: taking the {len(labels)} classes in turn", file=sys.stderr)
    seeds = chosen_seeds(arguments, NUM_IMAGES)
    check_count(arguments.label, len(seeds))
    items = tuple(
        Item(i, seed, labels[i % len(labels)] if labels else None) for i, seed in enumerate(seeds)
    )
    return Job(arguments, checkpoint, drawing, items, labels, processes)


def _outputs(job: Job, single: bool) -> list[Path]:
    """Every file that will be written."""
    output, trajectory = job.arguments.output, job.arguments.trajectory
    names = [*(item.name for item in job.items), SHEET]
    drawn = [output] if single else [output / name for name in names]
    return drawn if trajectory is None else [*drawn, trajectory]


# -------------------------------------------------------------------------------- one picture


def _draw_picture(job: Job) -> int:
    path: Path = job.arguments.output
    started = time.perf_counter()
    own: list[tuple[Item, Drawn]] = []
    problem = _draw_share(job, job.items, lambda item, drawn: own.append((item, drawn)))
    found = dict(job.processes.gathered(own))
    problems = [p for p in job.processes.gathered([problem]) if p is not None]
    finished = [item for item in job.items if item in found]
    if problems and finished:
        path = path.with_suffix(".partial.png")
    costs = [found[item].cost for item in finished]
    if finished and job.processes.main:
        images = [found[item].image for item in finished]
        parameters = job.parameters(finished, path.name) | job.drawing.outcome(costs)
        write(sheet(images, _columns(job, finished)), path, parameters)
    if problems:
        kept = f" The {len(finished)} finished images of {len(job.items)} are in {path}."
        raise Failure(problems[0].sentence + (kept if finished else ""), problems[0].code)
    _report(job, costs, time.perf_counter() - started)
    return 0


def _columns(job: Job, items: Sequence[Item]) -> int:
    return columns_for(len(items), len(job.labels or ()))


# ----------------------------------------------------------------------------------- a folder


def _draw_folder(job: Job) -> int:
    folder: Path = job.arguments.output
    started = time.perf_counter()
    pending = [item for item in job.items if not _is_drawn(job, item)]
    job.processes.gathered([True])  # nobody draws before everybody knows what is missing
    own: list[Cost] = []

    def keep(item: Item, drawn: Drawn) -> None:
        parameters = job.single_parameters(item) | job.drawing.outcome([drawn.cost])
        write(drawn.image, folder / item.name, parameters)
        own.append(drawn.cost)

    problem = _draw_share(job, pending, keep)
    problems = [p for p in job.processes.gathered([problem]) if p is not None]
    if problems:
        done = sum((folder / item.name).is_file() for item in job.items)
        raise Failure(
            f"{problems[0].sentence} {done} of {len(job.items)} images are finished in {folder}; "
            "run the same command again to go on.",
            problems[0].code,
        )
    costs = job.processes.gathered(own)
    if job.processes.main:
        _write_folder_sheet(job)
    _report(job, costs, time.perf_counter() - started)
    return 0


def _is_drawn(job: Job, item: Item) -> bool:
    """Whether the folder holds this very image; ValueError if it holds another by this name."""
    path = job.arguments.output / item.name
    if not path.exists():
        return False
    difference = _difference(read_parameters(path), job.single_parameters(item))
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


def _write_folder_sheet(job: Job) -> None:
    folder: Path = job.arguments.output
    shown = job.items[:SHEET_LIMIT]
    images = []
    for item in shown:
        with Image.open(folder / item.name) as image:
            images.append(image.copy())
    picture = sheet(images, _columns(job, shown))
    write(picture, folder / SHEET, job.parameters(shown, SHEET))


# ------------------------------------------------------------------------------- a trajectory


def _draw_trajectory(job: Job) -> None:
    """Draw the first images once more, and show what was predicted on the way."""
    path: Path = job.arguments.trajectory
    checkpoint, drawing = job.checkpoint, job.drawing
    assert isinstance(checkpoint, NetworkCheckpoint)  # as was checked when the job was planned
    batch = job.batches(job.items)[0]
    drawn = batch if drawing.together else batch[:TRAJECTORY_IMAGES]
    shown = drawn[:TRAJECTORY_IMAGES]
    run = checkpoint.watch(drawing.recipe, [item.seed for item in drawn], _labels_of(job, drawn))
    total = None if drawing.calls is None else drawing.calls + 1
    frames = []
    for images in tqdm(run, total=total, desc="trajectory", unit="frame", disable=None):
        frames.append(to_images(images[: len(shown)]))
    if is_film(path):
        columns = _columns(job, shown)
        chosen = spread_out(frames, FILM_FRAMES)
        write_film([sheet(frame, columns) for frame in chosen], path)
    else:
        chosen = spread_out(frames, STRIP_FRAMES)
        strip = [frame[row] for row in range(len(shown)) for frame in chosen]
        write(sheet(strip, len(chosen)), path, job.parameters(shown, path.name))
    print(f"{counted(len(shown), 'image')} on the way -> {path}")


def _check_name(trajectory: Path | None) -> None:
    if trajectory is None:
        return
    if not is_film(trajectory) and trajectory.suffix.lower() != ".png":
        raise ValueError(
            f"The trajectory is {trajectory}; name it {' or '.join(FILMS)} (a film) or .png (a "
            "strip)."
        )
    check_film(trajectory)


def _check_trajectory(job: Job) -> None:
    if job.arguments.trajectory is None:
        return
    if job.drawing.calls is None:
        raise ValueError(
            f"--trajectory needs steps that all images share, and {job.arguments.sampler!r} has "
            "none; take a sampler of fixed steps."
        )
    if not isinstance(job.checkpoint, NetworkCheckpoint):
        raise ValueError(
            "--trajectory is for networks without a prompt; a pipeline shows its finished images "
            "only."
        )


# -------------------------------------------------------------------------------- the drawing


@dataclass(frozen=True)
class Problem:
    """Why a process stopped before its share was done."""

    sentence: str
    code: int


def _draw_share(
    job: Job, items: Sequence[Item], keep: Callable[[Item, Drawn], None]
) -> Problem | None:
    """Draw this process's share of the items and keep each; what stopped it, if anything did."""
    batches, calls = job.share(items), job.drawing.calls
    total = None if calls is None else len(batches) * calls
    quiet = None if job.processes.main else True  # None: only where somebody watches
    try:
        with (
            named_failures(smaller_batches(job.arguments.batch_size)),
            tqdm(total=total, unit="call", disable=quiet) as bar,
        ):
            for number, batch in enumerate(batches):
                bar.set_description(f"batch {number + 1}/{len(batches)}")
                seeds = [item.seed for item in batch]
                drawn = job.drawing.draw(seeds, _labels_of(job, batch), bar.update)
                for item, image in zip(batch, drawn, strict=True):
                    keep(item, image)
    except KeyboardInterrupt:
        return Problem("Interrupted.", 130)
    except Failure as failure:
        return Problem(str(failure), failure.code)
    return None


def _labels_of(job: Job, items: Sequence[Item]) -> list[int] | None:
    return [item.label for item in items if item.label is not None] if job.labels else None


def _report(job: Job, costs: Sequence[Cost], seconds: float) -> None:
    if not job.processes.main:
        return
    drawn = len(costs)
    kept = max(0, len(job.items) - drawn)
    what = counted(drawn, "image") + (f" drawn, {kept} kept" if kept else "")
    count = job.processes.count
    where = f", {count} processes" if count > 1 else ""
    how = job.drawing.summary(costs)
    print(f"{what}: {how}{where}, {seconds:.1f} s -> {job.arguments.output}")
