"""``samplers restore``: degraded images, restored by mean-reverting diffusion."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from samplers.checkpoint.index import check_restores
from samplers.cli.common.errors import evaluating
from samplers.cli.common.options import ComputeOptions, OverwriteOptions, SchedulerOptions
from samplers.cli.common.output import (
    check_folder,
    check_places,
    is_png,
    prepare_folder,
    refuse_existing,
    write,
)
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import OUTPUT, PATH, WHOLE

if TYPE_CHECKING:
    from torch import Tensor

    from samplers.checkpoint import Tick
    from samplers.diffusers.restoration import RestorationPipeline
    from samplers.images.figures import Figure

SHOWN = 20
"""Images that one figure of before and after has room for."""

_EXAMPLES = """
Examples:
  samplers restore assets/restore rainy.png --task rainy --output dry.png
                                                  one figure: before and after
  samplers restore assets/restore photographs/ --task noisy --output clean/
                                                  a folder of restored images
  samplers restore assets/restore photo.png --degrade snowy --output tried.png
                                                  an intact photograph, degraded first, to measure
                                                  the restoration

Images may have any size from the network's stride up, and be grey or in colour.
"""


class RestoreOptions(SchedulerOptions, ComputeOptions, OverwriteOptions, section="Restoration"):
    checkpoint: Path = argument("CHECKPOINT", type=PATH, help="Folder of a RestorationPipeline.")
    images: tuple[Path, ...] = argument(
        "IMAGES...", type=PATH, help="PNG or JPEG files, and folders.", nargs=-1, required=True
    )
    task: str | None = option(
        help="Degradation to undo, as the checkpoint names it.", metavar="NAME"
    )
    degrade: str | None = option(
        help="Degrade the images first, and report the PSNR before and after.",
        metavar="NAME",
        excludes=["--task"],
    )
    steps: int = changed(SchedulerOptions, "steps", default=10)
    seed: int = option(type=WHOLE, help="Seed of the first image.", default=0)
    output: Path = option(
        type=OUTPUT,
        help=f"NAME.png for one figure of before and after, of {SHOWN} images at most; or a folder "
        "for restored images.",
        required=True,
        section="Output",
    )

    @property
    def single(self) -> bool:
        """Whether the output is one figure."""
        return is_png(self.output)

    @property
    def folder(self) -> Path:
        """Where files are written."""
        return self.output.parent if self.single else self.output


class Restored(NamedTuple):
    """What is reported of an image; PSNR in decibels, of the degraded and the restored one."""

    path: Path
    seed: int
    before: float
    after: float


class Stages(NamedTuple):
    """An image as the network saw it, as it came out, and as it was given."""

    degraded: Tensor
    restored: Tensor
    given: Tensor


@dataclass(frozen=True)
class Job:
    """What is restored, settled before the first network evaluation."""

    options: RestoreOptions
    pipe: RestorationPipeline
    paths: list[Path]
    places: list[Path]
    nfe: int

    @property
    def task(self) -> str | None:
        """What the network is conditioned on: the degradation, if it is conditioned at all."""
        if self.options.degrade is None or not self.pipe.config.tasks:
            return self.options.task
        return self.options.degrade


@command(_EXAMPLES, single_process=True)
def run(options: RestoreOptions) -> None:
    """Restore degraded photographs by mean-reverting diffusion."""
    check_folder(options.folder)
    check_restores(options.checkpoint)
    job = _plan(options)
    prepare_folder(options.folder)
    settings = _settings(job)
    started = time.perf_counter()
    done = _restore_all(job, settings)
    _report(options, done, time.perf_counter() - started)


def _plan(options: RestoreOptions) -> Job:
    from samplers.images.files import image_paths
    from samplers.restoration import get_degradation

    if options.degrade is not None:
        get_degradation(options.degrade)
    paths = image_paths(options.images)
    places = [options.output] if options.single else _places(options.output, paths)
    check_places(places, paths)
    if not options.overwrite:
        refuse_existing(places)
    pipe = _opened(options)
    job = Job(options, pipe, paths, places, pipe.tableau(options.steps).calls)
    _check(job)
    return job


def _opened(options: RestoreOptions) -> RestorationPipeline:
    """The pipeline, with the sampler of the options."""
    import torch

    from samplers.checkpoint import LoadOptions, load_restoration
    from samplers.cli.common.checkpoints import changed_scheduler
    from samplers.cli.common.processes import find_device

    load = LoadOptions(getattr(torch, options.dtype), find_device(options.device))
    pipe = load_restoration(options.checkpoint, load)
    pipe.scheduler = changed_scheduler(pipe.scheduler, options)
    return pipe


def _places(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Where each image goes in a folder; ValueError if two would go to one place."""
    places = [folder / f"{path.stem}.png" for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            other = paths[places.index(place)]
            raise ValueError(
                f"{other} and {paths[number]} would both become {place}; restore them into "
                "different folders."
            )
    return places


def _check(job: Job) -> None:
    """Raise ValueError, before anything is restored, for what could not be."""
    from samplers.images.inputs import read_any
    from samplers.noise import check_seeds

    if job.options.single and len(job.paths) > SHOWN:
        raise ValueError(
            f"{len(job.paths)} images came, and one figure shows {SHOWN} at most; name a folder as "
            "the output."
        )
    check_seeds([job.options.seed + len(job.paths) - 1])
    job.pipe.labels([job.task])
    for path in job.paths:
        image = read_any(path)
        try:
            job.pipe.check_images(image)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _restore_all(job: Job, settings: dict[str, Any]) -> list[Restored]:
    """Restore every image, and write it or, at the end, the figure of all."""
    from tqdm.auto import tqdm

    from samplers.images.pixels import to_images

    done: list[Restored] = []
    shown: list[Stages] = []  # none if each image is a file: all would not fit into memory
    with (
        evaluating("restore smaller images, or on the CPU"),
        tqdm(total=len(job.paths) * job.nfe, unit="evaluation", disable=None) as bar,
    ):
        for number in range(len(job.paths)):
            bar.set_description(f"image {number + 1}/{len(job.paths)}")
            one, stages = _restored(job, number, bar.update)
            done.append(one)
            if job.options.single:
                shown.append(stages)
            else:
                image = to_images(stages.restored)[0]
                write(image, job.places[number], settings | _parameters([one]))
    if job.options.single:
        write(_figure(job.options, done, shown), job.options.output, settings | _parameters(done))
    return done


def _restored(job: Job, number: int, tick: Tick) -> tuple[Restored, Stages]:
    from samplers.images.inputs import read_any
    from samplers.restoration import degrade, psnr

    options, path = job.options, job.paths[number]
    seed, image = options.seed + number, read_any(path)
    mu = image if options.degrade is None else degrade(image, [options.degrade], [seed])
    found = job.pipe.restore(mu, [job.task], [seed], options.steps, callback=lambda state: tick())
    before, after = (float(psnr(x, image)) for x in (mu, found))
    return Restored(path, seed, before, after), Stages(mu, found, image)


# ----------------------------------------------------------------------------- what is written


def _settings(job: Job) -> dict[str, Any]:
    """How every image is restored; reads all weights, for what they hash to."""
    from samplers.checkpoint.folder import read_folder
    from samplers.cli.common.checkpoints import made_by
    from samplers.diffusers.loop import settings_of

    options, chosen = job.options, job.pipe.scheduler.config
    weights = read_folder(options.checkpoint, allow_pickle=False).hashes()
    return made_by(options.checkpoint, options.dtype, weights) | {
        "task": options.task,
        "degrade": options.degrade,
        "sampler": chosen.sampler,
        "options": dict(chosen.sampler_options or {}),
        "steps": options.steps,
        "network_calls": job.nfe,
        "grid": chosen.grid or settings_of(chosen).spacing,
    }


def _parameters(done: Sequence[Restored]) -> dict[str, Any]:
    """Which images these are, and with which noise they were restored."""
    return {"images": [str(one.path) for one in done], "seeds": [one.seed for one in done]}


def _figure(options: RestoreOptions, done: Sequence[Restored], shown: Sequence[Stages]) -> Figure:
    """A row for each image: as it came, restored, and as it had been, where that is known."""
    from samplers.images.figures import Cell, table
    from samplers.images.pixels import to_images

    rows = []
    for one, stages in zip(done, shown, strict=True):
        cells = [Cell(to_images(stage)[0]) for stage in stages]
        if options.degrade is None:
            cells.pop()
        else:
            cells[1] = cells[1]._replace(caption=f"{one.after:.1f} dB")
        rows.append((one.path.stem, cells))
    headings = ["degraded", "restored", "original"][: len(rows[0][1])]
    what = options.degrade or options.task or "restored"
    return table(f"{what}, {counted(options.steps, 'step')}", headings, rows)


def _report(options: RestoreOptions, done: Sequence[Restored], seconds: float) -> None:
    what = f"{counted(len(done), 'image')} restored in {seconds:.1f} s -> {options.output}"
    if options.degrade is None:
        print(what)
        return
    before = sum(one.before for one in done) / len(done)
    after = sum(one.after for one in done) / len(done)
    print(f"{what}: PSNR {before:.1f} dB before, {after:.1f} dB after")
