"""The work of ``samplers restore``: degraded pictures in, restored ones out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from samplers.checkpoint import CheckpointError, LoadOptions, Tick, load_restoration
from samplers.checkpoint.folder import read_folder
from samplers.cli.arguments import DTYPES
from samplers.cli.choices import changed_scheduler
from samplers.cli.failure import Failure, named_failures
from samplers.cli.images import picture_paths, read_any
from samplers.cli.output import check_places, is_picture, made_by, prepare_folder, write
from samplers.cli.processes import join
from samplers.cli.text import counted
from samplers.diffusers.loop import settings_of
from samplers.diffusers.restoration import RestorationPipeline
from samplers.images.pixels import Cell, table, to_images
from samplers.noise import check_seeds
from samplers.restoration import degrade, get_degradation, psnr

SHOWN = 20
"""Images that one picture of before and after has room for."""


class Restored(NamedTuple):
    """What is told of a picture in the end.

    Attributes:
        before, after: decibels of the degraded and the restored one, by the one that was given.
    """

    path: Path
    seed: int
    before: float
    after: float


class Stages(NamedTuple):
    """A picture as the network saw it, as it came out, and as it was given."""

    degraded: Tensor
    restored: Tensor
    given: Tensor


def run(arguments: argparse.Namespace) -> int:
    """Restore the pictures that are named; returns the exit code."""
    single = is_picture(arguments.output)
    if arguments.degrade is not None:
        get_degradation(arguments.degrade)
    processes = join(arguments.device)
    if not processes.main:
        return 0  # the main process restores them one after the other
    pipe = _opened(arguments, processes.device)
    paths = picture_paths(arguments.images)
    places = [arguments.output] if single else _places(arguments.output, paths)
    check_places(places, paths)
    _check(arguments, pipe, paths)
    prepare_folder(arguments.output.parent if single else arguments.output)
    settings = _settings(arguments, pipe)
    started = time.perf_counter()
    total = len(paths) * pipe.tableau(arguments.steps).calls
    with (
        named_failures("restore smaller pictures, or on the CPU"),
        tqdm(total=total, unit="call", disable=None) as bar,
    ):
        done: list[Restored] = []
        shown: list[Stages] = []  # none if each picture is a file: all would not fit into memory
        for number, path in enumerate(paths):
            bar.set_description(f"image {number + 1}/{len(paths)}")
            one, stages = _restored(arguments, pipe, path, number, bar.update)
            done.append(one)
            if single:
                shown.append(stages)
            else:
                picture = to_images(stages.restored)[0]
                write(picture, places[number], settings | _parameters([one]))
    if single:
        write(_picture(arguments, done, shown), arguments.output, settings | _parameters(done))
    _report(arguments, done, time.perf_counter() - started)
    return 0


def _opened(arguments: argparse.Namespace, device: torch.device) -> RestorationPipeline:
    """The pipeline, with the sampler that was asked for."""
    options = LoadOptions(DTYPES[arguments.dtype], device)
    try:
        pipe = load_restoration(arguments.checkpoint, options)
    except CheckpointError as error:
        raise Failure(str(error)) from error
    pipe.scheduler = changed_scheduler(pipe.scheduler, arguments)
    return pipe


def _restored(
    arguments: argparse.Namespace,
    pipe: RestorationPipeline,
    path: Path,
    number: int,
    tick: Tick,
) -> tuple[Restored, Stages]:
    seed, image = arguments.seed + number, read_any(path)
    mu = image if arguments.degrade is None else degrade(image, [arguments.degrade], [seed])
    found = pipe.restore(
        mu, [_task(arguments, pipe)], [seed], arguments.steps, callback=lambda state: tick()
    )
    before, after = (float(psnr(x, image)) for x in (mu, found))
    return Restored(path, seed, before, after), Stages(mu, found, image)


def _task(arguments: argparse.Namespace, pipe: RestorationPipeline) -> str | None:
    """What the network is told: the degradation, if it is told any."""
    done: str | None = arguments.degrade
    if done is None or not pipe.config.tasks:
        task: str | None = arguments.task
        return task
    return done


def _check(arguments: argparse.Namespace, pipe: RestorationPipeline, paths: Sequence[Path]) -> None:
    """Raise ValueError, before anything is restored, for what could not be."""
    if is_picture(arguments.output) and len(paths) > SHOWN:
        raise ValueError(
            f"{len(paths)} pictures came, and one picture shows {SHOWN} at most; name a folder as "
            "the output."
        )
    check_seeds([arguments.seed + len(paths) - 1])
    pipe.labels([_task(arguments, pipe)])
    for path in paths:
        image = read_any(path)
        try:
            pipe.check_images(image)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _places(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Where each picture goes in a folder; ValueError if two would go to one place."""
    places = [folder / f"{path.stem}.png" for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            other = paths[places.index(place)]
            raise ValueError(
                f"{other} and {paths[number]} would both become {place}; restore them into "
                "different folders."
            )
    return places


def _settings(arguments: argparse.Namespace, pipe: RestorationPipeline) -> dict[str, Any]:
    """How every picture is restored; reads all weights, for what they hash to."""
    chosen = pipe.scheduler.config
    weights = read_folder(arguments.checkpoint, allow_pickle=False).hashes()
    return made_by(arguments, weights) | {
        "task": arguments.task,
        "degrade": arguments.degrade,
        "sampler": chosen.sampler,
        "options": dict(chosen.sampler_options or {}),
        "steps": arguments.steps,
        "network_calls": pipe.tableau(arguments.steps).calls,
        "grid": chosen.grid or settings_of(chosen).spacing,
    }


def _parameters(done: Sequence[Restored]) -> dict[str, Any]:
    """Which pictures these are, and with which noise they were restored."""
    return {"images": [str(one.path) for one in done], "seeds": [one.seed for one in done]}


def _picture(
    arguments: argparse.Namespace, done: Sequence[Restored], shown: Sequence[Stages]
) -> Image.Image:
    """A row for each image: as it came, restored, and as it had been, where that is known."""
    rows = []
    for one, stages in zip(done, shown, strict=True):
        cells = [Cell((to_images(stage)[0],), ()) for stage in stages]
        if arguments.degrade is None:
            cells.pop()
        else:
            cells[1] = Cell(cells[1].images, (f"{one.after:.1f} dB",))
        rows.append((one.path.stem, cells))
    headings = ["degraded", "restored", "original"][: len(rows[0][1])]
    what = arguments.degrade or arguments.task or "restored"
    return table(f"{what}, {counted(arguments.steps, 'step')}", headings, rows)


def _report(arguments: argparse.Namespace, done: Sequence[Restored], seconds: float) -> None:
    what = f"{counted(len(done), 'image')} restored in {seconds:.1f} s -> {arguments.output}"
    if arguments.degrade is None:
        print(what)
        return
    before, after = mean(one.before for one in done), mean(one.after for one in done)
    print(f"{what}: {before:.1f} dB before, {after:.1f} dB after")
