"""The work of ``samplers restore``: degraded pictures in, restored ones out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from samplers.diffusers_loop import settings_of
from samplers.diffusers_restoration import RestorationPipeline
from samplers.pictures import Cell, table, to_images
from samplers.restoration import degrade, get_degradation, psnr

SHOWN = 20
"""A picture of before and after shows the first images only."""


@dataclass(frozen=True)
class Restored:
    """A picture on its way: as it was given, as the network saw it, and as it came out."""

    path: Path
    seed: int
    given: Tensor
    mu: Tensor
    found: Tensor


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
    given = [read_any(path) for path in paths]
    prepare_folder(arguments.output.parent if single else arguments.output)
    settings = _settings(arguments, pipe)
    started = time.perf_counter()
    total = len(paths) * pipe.tableau(arguments.steps).calls
    with (
        named_failures("restore smaller pictures, or on the CPU"),
        tqdm(total=total, unit="call", disable=None) as bar,
    ):
        done = []
        for number, (path, image) in enumerate(zip(paths, given, strict=True)):
            bar.set_description(f"image {number + 1}/{len(paths)}")
            done.append(_restored(arguments, pipe, path, image, number, bar.update))
            if not single:
                picture = to_images(done[-1].found)[0]
                write(picture, places[number], settings | _parameters(done[-1:]))
    if single:
        write(_picture(arguments, done), arguments.output, settings | _parameters(done))
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
    image: Tensor,
    number: int,
    tick: Tick,
) -> Restored:
    seed, task = arguments.seed + number, arguments.task
    mu = image
    if arguments.degrade is not None:
        task = arguments.degrade
        mu = degrade(image, [task], [seed])
    try:
        found = pipe.restore(mu, [task], [seed], arguments.steps, callback=lambda state: tick())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Restored(path, seed, image, mu, found)


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


def _picture(arguments: argparse.Namespace, done: Sequence[Restored]) -> Image.Image:
    """A row for each image: as it came, restored, and as it had been, where that is known."""
    rows = []
    for one in done[:SHOWN]:
        cells = [Cell((to_images(one.mu)[0],), ()), Cell((to_images(one.found)[0],), ())]
        if arguments.degrade is not None:
            cells[1] = Cell(cells[1].images, (f"{float(psnr(one.found, one.given)):.1f} dB",))
            cells.append(Cell((to_images(one.given)[0],), ()))
        rows.append((one.path.stem, cells))
    headings = ["degraded", "restored", "original"][: len(rows[0][1])]
    what = arguments.degrade or arguments.task or "restored"
    return table(f"{what}, {counted(arguments.steps, 'step')}", headings, rows)


def _report(arguments: argparse.Namespace, done: Sequence[Restored], seconds: float) -> None:
    what = f"{counted(len(done), 'image')} restored in {seconds:.1f} s -> {arguments.output}"
    if arguments.degrade is None:
        print(what)
        return
    before = float(torch.cat([psnr(one.mu, one.given) for one in done]).mean())
    after = float(torch.cat([psnr(one.found, one.given) for one in done]).mean())
    print(f"{what}: {before:.1f} dB before, {after:.1f} dB after")
