"""``samplers sample``: images from a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from samplers.cli.common.errors import Failure, evaluating, smaller_batches, writing
from samplers.cli.common.options import OverwriteOptions, SamplerOptions
from samplers.cli.common.output import (
    check_folder,
    check_places,
    is_png,
    kept,
    place_of_partial,
    prepare_folder,
    refuse_existing,
    write,
)
from samplers.cli.common.program import changed, command, option
from samplers.cli.common.text import counted
from samplers.cli.common.values import OUTPUT

if TYPE_CHECKING:
    from samplers.checkpoint import NetworkCheckpoint
    from samplers.cli.common.jobs import Cost, Item, Job, Sampled

SHEET_LIMIT = 400
"""The sheet of a folder shows its first images only, so that it stays an image."""

TRAJECTORY_IMAGES = 16
FILM_FRAMES = 60
STRIP_FRAMES = 12

_EXAMPLES = """
Examples:
  samplers sample assets/digits --label 3 --guidance 1.5 --steps 15 --output digits.png
  samplers sample assets/digits --num-images 100 --output all-classes.png
  samplers sample assets/digits --sampler ancestral --option eta=0.5 --steps 50 --output noisy.png
  samplers sample assets/digits --sampler bogacki-shampine --tolerance 0.02 --output adaptive.png
  samplers sample assets/digits --steps 30 --trajectory run.gif --output digits.png
  samplers sample my-stable-diffusion --prompt "a lighthouse" --seeds 0-3 --output lighthouse/

Every PNG file has a text chunk "parameters" with all settings that are needed to sample it again.
An image depends on these and its seed, not on the number of images, the batch size or the device
(except for rounding in the network). Only the samplers NAME+langevin (not the annealed ones) scale
their steps by norms of the whole batch, so that an image depends on its batch.
"""


class SampleOptions(SamplerOptions, OverwriteOptions, section="Output"):
    output: Path = option(
        type=OUTPUT,
        help="NAME.png for one sheet of all images; or a folder for single images and grid.png, in "
        "which existing images are kept.",
        required=True,
    )
    overwrite: bool = changed(
        OverwriteOptions,
        "overwrite",
        help="Replace files that exist, and images in the folder that were sampled with other "
        "settings.",
    )
    trajectory: Path | None = option(
        type=OUTPUT,
        help="Also show the prediction of x_0 at each network evaluation, for the first images: as "
        "a film (.gif, .mp4) or as a strip with a row for each image (.png).",
        metavar="NAME",
    )

    @property
    def single(self) -> bool:
        """Whether all images go into one sheet."""
        return is_png(self.output)

    @property
    def folders(self) -> list[Path]:
        """Where files are written."""
        folder = self.output.parent if self.single else self.output
        return [folder] if self.trajectory is None else [folder, self.trajectory.parent]

    def check(self) -> None:
        """Raise what can be seen to be wrong without loading anything."""
        for folder in self.folders:
            check_folder(folder)
        if self.trajectory is not None:
            _check_trajectory_name(self.trajectory)
            check_places([self.output, self.trajectory] if self.single else [self.trajectory])
        self.check_checkpoint()


@command(_EXAMPLES)
def run(options: SampleOptions) -> None:
    """Sample images from a checkpoint."""
    options.check()
    from samplers.cli.common.jobs import plan

    job = plan(options)
    _check_trajectory(options, job)
    check_places(_outputs(options, job))
    for folder in options.folders:
        prepare_folder(folder)
    started = time.perf_counter()
    costs = _sample_sheet(options, job) if options.single else _sample_folder(options, job)
    if job.processes.main:
        _report(options, job, costs, time.perf_counter() - started)
        _write_trajectory(options, job)


def _outputs(options: SampleOptions, job: Job) -> list[Path]:
    """Every file that will be written."""
    from samplers.images.files import SHEET

    names = [*(item.name for item in job.items), SHEET]
    written = [options.output] if options.single else [options.output / name for name in names]
    return written if options.trajectory is None else [*written, options.trajectory]


def _columns(job: Job, items: Sequence[Item]) -> int:
    from samplers.images.sheets import columns_for

    return columns_for(len(items), len(job.turn or ()))


def _report(options: SampleOptions, job: Job, costs: Sequence[Cost], seconds: float) -> None:
    others = max(0, len(job.items) - len(costs))
    what = counted(len(costs), "image") + (f" sampled, {others} kept" if others else "")
    count = job.processes.count
    where = f", {count} processes" if count > 1 else ""
    print(f"{what}: {job.method.summary(costs)}{where}, {seconds:.1f} s -> {options.output}")


# ------------------------------------------------------------------------------------- one sheet


def _sample_sheet(options: SampleOptions, job: Job) -> list[Cost]:
    from samplers.images.sheets import sheet

    path = options.output
    own: list[tuple[Item, Sampled]] = []
    stops = _sample_share(job, job.items, lambda item, sampled: own.append((item, sampled)))
    found = dict(job.processes.gathered(own))
    finished = [item for item in job.items if item in found]
    if stops and finished:
        path = place_of_partial(path, options.overwrite)
    costs = [found[item].cost for item in finished]
    if finished and job.processes.main:
        images = [found[item].image for item in finished]
        parameters = job.parameters(finished, path.name) | job.method.outcome(costs)
        write(sheet(images, _columns(job, finished)), path, parameters)
    if stops:
        where = f" The {len(finished)} finished images of {len(job.items)} are in {path}."
        raise Failure(str(stops[0]) + (where if finished else ""), stops[0].code)
    return costs


# -------------------------------------------------------------------------------------- a folder


def _sample_folder(options: SampleOptions, job: Job) -> list[Cost]:
    folder = options.output
    pending = [
        item
        for item in job.items
        if kept(folder / item.name, job.single_parameters(item), options.overwrite) is None
    ]
    if not options.overwrite:
        _check_sheet(folder)
    job.processes.gathered([True])  # all processes list missing images before any writes
    own: list[Cost] = []

    def keep(item: Item, sampled: Sampled) -> None:
        parameters = job.single_parameters(item) | job.method.outcome([sampled.cost])
        write(sampled.image, folder / item.name, parameters)
        own.append(sampled.cost)

    stops = _sample_share(job, pending, keep)
    if stops:
        done = sum((folder / item.name).is_file() for item in job.items)
        raise Failure(
            f"{stops[0]} {done} of {len(job.items)} images are finished in {folder}; run the same "
            "command again to continue.",
            stops[0].code,
        )
    if job.processes.main:
        _write_folder_sheet(job, folder)
    return job.processes.gathered(own)


def _check_sheet(folder: Path) -> None:
    """Raise ValueError if the name of the sheet is taken; that of an earlier run is redrawn."""
    from samplers.images.files import SHEET, read_parameters

    if read_parameters(folder / SHEET) is None:
        refuse_existing([folder / SHEET])


def _write_folder_sheet(job: Job, folder: Path) -> None:
    from samplers.images.files import SHEET, open_image
    from samplers.images.sheets import sheet

    shown = job.items[:SHEET_LIMIT]
    images = [open_image(folder / item.name) for item in shown]
    write(sheet(images, _columns(job, shown)), folder / SHEET, job.parameters(shown, SHEET))


# --------------------------------------------------------------------------------- the sampling


def _sample_share(
    job: Job, items: Sequence[Item], keep: Callable[[Item, Sampled], None]
) -> list[Failure]:
    """Sample this process's share of the items and keep each image; returns what stopped any of
    the processes before its share was done."""
    from tqdm.auto import tqdm

    batches, ticks = job.share(items), job.method.ticks
    total = None if ticks is None else len(batches) * ticks
    quiet = None if job.processes.main else True  # None: only in a terminal
    stops: list[Failure] = []
    try:
        with (
            evaluating(smaller_batches(job.options.batch_size)),
            tqdm(total=total, unit="evaluation", disable=quiet) as bar,
        ):
            for number, batch in enumerate(batches):
                bar.set_description(f"batch {number + 1}/{len(batches)}")
                seeds = [item.seed for item in batch]
                sampled = job.method.sample(seeds, job.labels(batch), bar.update)
                for item, image in zip(batch, sampled, strict=True):
                    keep(item, image)
    except KeyboardInterrupt:
        stops.append(Failure("Interrupted.", 130))
    except Failure as failure:
        stops.append(failure)
    return job.processes.gathered(stops)


# --------------------------------------------------------------------------------- a trajectory


def _check_trajectory_name(path: Path) -> None:
    from samplers.images.films import FILMS, check_film, is_film

    if not is_film(path) and path.suffix.lower() != ".png":
        raise ValueError(
            f"The trajectory is {path}; name it {' or '.join(FILMS)} (a film) or .png (a strip)."
        )
    check_film(path)


def _check_trajectory(options: SampleOptions, job: Job) -> None:
    from samplers.checkpoint import NetworkCheckpoint

    if options.trajectory is None:
        return
    if job.method.ticks is None:
        raise ValueError(
            f"--trajectory needs steps that all images share, and {options.sampler!r} has adaptive "
            "step sizes; take a sampler of fixed steps."
        )
    if not isinstance(job.checkpoint, NetworkCheckpoint):
        raise ValueError(
            "--trajectory is for networks without a prompt; a pipeline shows its finished images "
            "only."
        )


def _write_trajectory(options: SampleOptions, job: Job) -> None:
    """Sample the first images again, and show the prediction at each evaluation."""
    from tqdm.auto import tqdm

    from samplers.images.films import is_film, write_film
    from samplers.images.pixels import to_images
    from samplers.images.sheets import sheet, spread_out

    path, method = options.trajectory, job.method
    checkpoint = cast("NetworkCheckpoint", job.checkpoint)  # as checked at the start
    if path is None:
        return
    batch = job.batches(job.items)[0]
    sampled = batch if method.together else batch[:TRAJECTORY_IMAGES]
    shown = sampled[:TRAJECTORY_IMAGES]
    watched = checkpoint.watch(method.recipe, [item.seed for item in sampled], job.labels(sampled))
    total = None if method.ticks is None else method.ticks + 1
    with evaluating(smaller_batches(len(sampled))):
        frames = [
            to_images(images[: len(shown)])
            for images in tqdm(watched, total=total, desc="trajectory", unit="frame", disable=None)
        ]
    if is_film(path):
        columns = _columns(job, shown)
        chosen = spread_out(frames, FILM_FRAMES)
        with writing(path):
            write_film([sheet(frame, columns) for frame in chosen], path)
    else:
        chosen = spread_out(frames, STRIP_FRAMES)
        strip = [frame[row] for row in range(len(shown)) for frame in chosen]
        write(sheet(strip, len(chosen)), path, job.parameters(shown, path.name))
    print(f"trajectory of {counted(len(shown), 'image')} -> {path}")
