"""``samplers restore``: degraded images, restored by mean-reverting diffusion."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from samplers.checkpoint.index import check_restores
from samplers.cli.common.errors import Failure, evaluating, stopped
from samplers.cli.common.options import ComputeOptions, OverwriteOptions, SchedulerOptions
from samplers.cli.common.output import (
    check_folder,
    check_places,
    is_png,
    kept,
    prepare_folder,
    write,
)
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import OUTPUT, PATH, WHOLE
from samplers.files import checked

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
    steps: int | None = changed(
        SchedulerOptions, "steps", show_default="10; those of a tuned sampler"
    )
    seed: int = option(type=WHOLE, help="Seed of the first image.", default=0)
    output: Path = option(
        type=OUTPUT,
        help=f"NAME.png for one figure of before and after, of {SHOWN} images at most; or a folder "
        "for restored images, in which existing ones are kept.",
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


class Item(NamedTuple):
    """An image to restore, and where it goes."""

    path: Path
    sha256: str
    seed: int
    place: Path


class Restored(NamedTuple):
    """What is reported of an image: PSNR in decibels, of the degraded and the restored one, if the
    intact one is known."""

    item: Item
    psnr: list[float]


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
    items: list[Item]
    task: str | None
    steps: int
    nfe: int


@command(_EXAMPLES, single_process=True)
def run(options: RestoreOptions) -> None:
    """Restore degraded photographs by mean-reverting diffusion."""
    check_folder(options.folder)
    check_restores(options.checkpoint)
    job = _plan(options)
    prepare_folder(options.folder)
    settings = _settings(job)
    started = time.perf_counter()
    restore = _restore_figure if options.single else _restore_folder
    done, others = restore(job, settings)
    _report(options, done, others, time.perf_counter() - started)


def _plan(options: RestoreOptions) -> Job:
    from samplers.images.files import image_paths
    from samplers.restoration import get_degradation

    if options.degrade is not None:
        get_degradation(options.degrade)
    paths = image_paths(options.images)
    places = [options.output] * len(paths) if options.single else _places(options.output, paths)
    check_places(list(dict.fromkeys(places)), paths)
    pipe = _opened(options)
    task = _task(options, pipe)
    _check(options, pipe, paths, task)
    items = [_item(*one) for one in zip(paths, places, count(options.seed), strict=False)]
    steps = pipe.steps(options.steps)
    return Job(options, pipe, items, task, steps, pipe.tableau(steps).calls)


def _task(options: RestoreOptions, pipe: RestorationPipeline) -> str | None:
    """What the network is conditioned on: the degradation, if it is conditioned at all."""
    conditioned = options.degrade is not None and pipe.config.tasks
    return options.degrade if conditioned else options.task


def _opened(options: RestoreOptions) -> RestorationPipeline:
    """The pipeline, with the sampler of the options."""
    import torch

    from samplers.checkpoint import LoadOptions, load_restoration
    from samplers.cli.common.checkpoints import changed_scheduler
    from samplers.cli.common.processes import find_device
    from samplers.cli.common.tuned import check_purpose

    load = LoadOptions(getattr(torch, options.dtype), find_device(options.device))
    pipe = load_restoration(options.checkpoint, load)
    pipe.scheduler = changed_scheduler(pipe.scheduler, options)
    check_purpose(pipe.scheduler.config, options.checkpoint)
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


def _check(
    options: RestoreOptions, pipe: RestorationPipeline, paths: Sequence[Path], task: str | None
) -> None:
    """Raise ValueError, before anything is restored, for what could not be."""
    from samplers.images.inputs import read_any
    from samplers.noise import check_seeds

    if options.single and len(paths) > SHOWN:
        raise ValueError(
            f"{len(paths)} images came, and one figure shows {SHOWN} at most; name a folder as the "
            "output."
        )
    check_seeds([options.seed + len(paths) - 1])
    pipe.labels([task])
    for path in paths:
        image = read_any(path)
        try:
            pipe.check_images(image)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _item(path: Path, place: Path, seed: int) -> Item:
    with path.open("rb") as file:
        return Item(path, hashlib.file_digest(file, "sha256").hexdigest(), seed, place)


def _restore_figure(job: Job, settings: dict[str, Any]) -> tuple[list[Restored], list[Restored]]:
    """Restore every image, and write the figure of all; there are no others."""
    found: list[tuple[Restored, Stages]] = []
    _restore(job, job.items, lambda *one: found.append(one))
    figure = _figure(job.options, job.steps, found)
    write(figure, job.options.output, settings | _parameters(job.items))
    return [one for one, _ in found], []


def _restore_folder(job: Job, settings: dict[str, Any]) -> tuple[list[Restored], list[Restored]]:
    """Restore and write every image that is not there already; returns those, and the others."""
    from samplers.images.pixels import to_images

    wanted = {item: settings | _parameters([item]) for item in job.items}
    there = {item: kept(item.place, own, job.options.overwrite) for item, own in wanted.items()}
    others = [Restored(i, checked(list[float], p.get("psnr"))) for i, p in there.items() if p]
    done: list[Restored] = []

    def keep(one: Restored, stages: Stages) -> None:
        image = to_images(stages.restored)[0]
        write(image, one.item.place, wanted[one.item] | {"psnr": one.psnr})
        done.append(one)

    try:
        _restore(job, [item for item, found in there.items() if found is None], keep)
    except (Failure, KeyboardInterrupt) as stop:
        left = (
            f"{len(done) + len(others)} of {counted(len(job.items), 'image')} are restored in "
            f"{job.options.output}; run the same command again to continue."
        )
        raise stopped(stop, left) from stop
    return done, others


def _restore(job: Job, items: Sequence[Item], keep: Callable[[Restored, Stages], object]) -> None:
    """Restore some of the images, and keep each."""
    from tqdm.auto import tqdm

    with (
        evaluating("restore smaller images, or on the CPU"),
        tqdm(total=len(items) * job.nfe, unit="evaluation", disable=None) as bar,
    ):
        for number, item in enumerate(items):
            bar.set_description(f"image {number + 1}/{len(items)}")
            keep(*_restored(job, item, bar.update))


def _restored(job: Job, item: Item, tick: Tick) -> tuple[Restored, Stages]:
    from samplers.images.inputs import read_any
    from samplers.restoration import degrade, psnr

    degradation, steps, image = job.options.degrade, job.steps, read_any(item.path)
    mu = image if degradation is None else degrade(image, [degradation], [item.seed])
    found = job.pipe.restore(mu, [job.task], [item.seed], steps, callback=lambda state: tick())
    stages = Stages(mu, found, image)
    measured = [] if degradation is None else [float(psnr(x, image)) for x in (mu, found)]
    return Restored(item, measured), stages


# ----------------------------------------------------------------------------- what is written


def _settings(job: Job) -> dict[str, Any]:
    """How every image is restored; reads all weights, for what they hash to."""
    from samplers.checkpoint.folder import read_folder
    from samplers.cli.common.checkpoints import made_by
    from samplers.cli.common.tuned import noted
    from samplers.diffusers.loop import settings_of

    options, chosen = job.options, job.pipe.scheduler.config
    identity = read_folder(options.checkpoint, allow_pickle=False).identity()
    return made_by(options.checkpoint, options.dtype, identity) | {
        "task": options.task,
        "degrade": options.degrade,
        **noted(chosen, options.sampler),
        "steps": job.steps,
        "network_calls": job.nfe,
        "grid": chosen.grid or settings_of(chosen).spacing,
    }


def _parameters(items: Sequence[Item]) -> dict[str, Any]:
    """Which images these are, and with which noise they are restored."""
    return {
        "images": [str(item.path) for item in items],
        "images_sha256": [item.sha256 for item in items],
        "seeds": [item.seed for item in items],
    }


def _figure(
    options: RestoreOptions, steps: int, shown: Sequence[tuple[Restored, Stages]]
) -> Figure:
    """A row for each image: as it came, restored, and as it had been, where that is known."""
    from samplers.images.figures import Cell, table
    from samplers.images.pixels import to_images

    rows = []
    for one, stages in shown:
        cells = [Cell(to_images(stage)[0]) for stage in stages]
        if options.degrade is None:
            cells.pop()
        else:
            cells[1] = cells[1]._replace(caption=f"{one.psnr[1]:.1f} dB")
        rows.append((one.item.path.stem, cells))
    headings = ["degraded", "restored", "original"][: len(rows[0][1])]
    what = options.degrade or options.task or "restored"
    return table(f"{what}, {counted(steps, 'step')}", headings, rows)


def _report(
    options: RestoreOptions, done: Sequence[Restored], others: Sequence[Restored], seconds: float
) -> None:
    from statistics import fmean

    more = f", {len(others)} kept" if others else ""
    what = f"{counted(len(done), 'image')} restored{more} in {seconds:.1f} s -> {options.output}"
    if options.degrade is None:
        print(what)
        return
    before, after = map(fmean, zip(*(one.psnr for one in (*done, *others)), strict=True))
    print(f"{what}: PSNR {before:.1f} dB before, {after:.1f} dB after")
