"""The work of ``samplers likelihood``: pictures in, a table and a histogram out."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.cli.failure import Failure, named_failures, smaller_batches
from samplers.cli.flowing import Opened, Part, in_parts, open_flow
from samplers.cli.images import Picture, read_pictures
from samplers.cli.output import check_places, is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.cli.records import Record, Records, read_records, write_records
from samplers.cli.text import aligned, counted
from samplers.images.pixels import histogram, values_of
from samplers.probability_flow.likelihood import (
    DEFAULT,
    ExactTrace,
    Hutchinson,
    Trace,
    bits_per_dim,
    dequantised,
)

SHOWN = 40
"""Rows that are printed; the CSV file has all."""


class Item(NamedTuple):
    """One picture to measure; ``made_of`` and the seed decide the result."""

    picture: Picture
    label: int | None
    seed: int
    made_of: str

    @property
    def key(self) -> tuple[str, int]:
        return self.made_of, self.seed


@dataclass(frozen=True)
class Job:
    """Everything that a run does, settled before the first network call."""

    arguments: argparse.Namespace
    opened: Opened
    trace: Trace
    items: tuple[Item, ...]

    @property
    def of_pixels(self) -> bool:
        return self.opened.checkpoint.of_pixels

    @property
    def unit(self) -> str:
        return "bits/dim" if self.of_pixels else "nats"

    def number(self, record: Record) -> float:
        """What is told of a picture, in the job's unit."""
        return record.bits_per_dim if self.of_pixels else record.log_prob

    def error(self, record: Record) -> float:
        """The standard error of this number."""
        numbers = self.items[0].picture.levels.numel()
        return record.standard_error / (numbers * math.log(2) if self.of_pixels else 1)

    def measure(self, items: Sequence[Item], part: Part) -> list[Record]:
        """The records of some items, in one batch."""
        levels = torch.cat([item.picture.levels for item in items])
        seeds = [item.seed for item in items]
        labels = [item.label for item in items if item.label is not None] or None
        values = dequantised(levels, seeds) if self.of_pixels else values_of(levels)
        flow = self.opened.flow(part.tick)
        found = flow.log_likelihood(self.opened.given(values), labels, self.trace, seeds)
        bits = bits_per_dim(found.log_prob, levels[0].numel()) + (0 if self.of_pixels else math.nan)
        return [
            Record(
                image=str(item.picture.path),
                bits_per_dim=float(bits[place]),
                log_prob=float(found.log_prob[place]),
                standard_error=float(found.standard_error[place]),
                nfe=int(found.nfe[place]),
                seed=item.seed,
                made_of=item.made_of,
            )
            for place, item in enumerate(items)
        ]


def run(arguments: argparse.Namespace) -> int:
    """Measure the pictures; returns the exit code."""
    if arguments.histogram is not None and not is_picture(arguments.histogram):
        raise ValueError(f"The histogram is {arguments.histogram}; it is a picture, NAME.png.")
    processes = join(arguments.device)
    if not processes.main:
        return 0
    job = _plan(arguments, open_flow(arguments, processes, DEFAULT))
    outputs = [path for path in (arguments.csv, arguments.histogram) if path is not None]
    check_places(outputs, [item.picture.path for item in job.items])
    for path in outputs:
        prepare_folder(path.parent)
    records = _measure_all(job)
    _report(job, records)
    if arguments.histogram is not None:
        _draw(job, records)
    return 0


def _plan(arguments: argparse.Namespace, opened: Opened) -> Job:
    checkpoint = opened.checkpoint
    trace: Trace = ExactTrace() if arguments.exact else Hutchinson(arguments.probes, arguments.law)
    pictures = read_pictures(arguments.images, checkpoint.image_shape)
    labels = opened.labels(len(pictures))
    contents = [_digest(picture.levels.numpy().tobytes()) for picture in pictures]
    seeds, settings, items = _seeds(arguments, contents), _settings(opened, trace), []
    for place, (picture, content) in enumerate(zip(pictures, contents, strict=True)):
        label = None if labels is None else labels[place]
        made_of = f"picture {content}, class {label}, {settings}"
        items.append(Item(picture, label, seeds[place], made_of))
    return Job(arguments, opened, trace, tuple(items))


def _seeds(arguments: argparse.Namespace, contents: Sequence[str]) -> list[int]:
    """Those that are listed; else of each picture its own, whatever others come with it."""
    if arguments.seeds is None:
        return [arguments.seed + int(content[:8], 16) for content in contents]
    if len(arguments.seeds) != len(contents):
        count = counted(len(contents), "picture")
        raise ValueError(f"--seeds lists {len(arguments.seeds)} for {count}.")
    return list(arguments.seeds)


def _settings(opened: Opened, trace: Trace) -> str:
    """What decides the result of every picture, in words."""
    recipe, chosen, checkpoint = opened.recipe, opened.settings, opened.checkpoint
    low, high = opened.flow(lambda: None).ends
    return (
        f"{chosen.method}, tolerance {chosen.rtol:g}, at most {chosen.max_nfe} calls, {trace}, "
        f"guidance {recipe.guidance:g} rescaled {recipe.guidance_rescale:g} away from class "
        f"{checkpoint.null_label}, "
        f"sigma {low} to {high}, {checkpoint.dtype}, "
        f"weights {_digest(''.join(checkpoint.weights.values()).encode())}"
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _measure_all(job: Job) -> list[Record]:
    """The records of all items, those that the CSV file holds already included."""
    path: Path | None = job.arguments.csv
    found = {} if path is None else read_records(path)
    missing = [item for item in job.items if item.key not in found]
    if len(missing) < len(job.items):
        print(f"{counted(len(job.items) - len(missing), 'picture')} in {path} already")
    try:
        with named_failures(smaller_batches(job.arguments.batch_size)):
            for part in in_parts(len(missing), job.arguments.batch_size):
                measured = job.measure([missing[place] for place in part.places], part)
                found |= {record.key: record for record in measured}
                if path is not None:
                    write_records(path, found.values())
    except (Failure, KeyboardInterrupt) as stop:
        raise _stopped(job, found, stop) from stop
    return [found[item.key]._replace(image=str(item.picture.path)) for item in job.items]


def _stopped(job: Job, found: Records, stop: BaseException) -> Failure:
    """How an unfinished run ends."""
    why, code = (str(stop), stop.code) if isinstance(stop, Failure) else ("Interrupted.", 130)
    if job.arguments.csv is None:
        return Failure(f"{why} Nothing is kept without --csv.", code)
    done = sum(item.key in found for item in job.items)
    return Failure(
        f"{why} {done} of {counted(len(job.items), 'picture')} are in {job.arguments.csv}; run "
        "the same command again to go on.",
        code,
    )


# ------------------------------------------------------------------------------ for the reader


def _report(job: Job, records: Sequence[Record]) -> None:
    with_class = job.items[0].label is not None
    rows = [("image", *(("class",) if with_class else ()), job.unit, "±", "calls")]
    for item, record in zip(job.items[:SHOWN], records, strict=False):
        own = (str(item.label),) if with_class else ()
        error = job.error(record)
        spread = "-" if math.isnan(error) else f"{error:.2g}"
        rows.append((record.image, *own, f"{job.number(record):.4g}", spread, str(record.nfe)))
    print(aligned(rows))
    if len(records) > SHOWN:
        print(f"… and {counted(len(records) - SHOWN, 'picture')} more")
    for name, values in _sets(job, records).items():
        if len(values) > 1:
            print(_summary(name, values, job.unit))
    unfinished = sum(math.isnan(job.number(record)) for record in records)
    if unfinished:
        print(f"{counted(unfinished, 'picture')} without a result: --max-nfe ran out")


def _summary(name: str, values: Tensor, unit: str) -> str:
    error = float(values.std()) / math.sqrt(len(values))
    mean = f"{float(values.mean()):.4g} ± {error:.2g} {unit}"
    return f"{name}: {mean}, the mean of {counted(len(values), 'picture')}"


def _sets(job: Job, records: Sequence[Record]) -> dict[str, Tensor]:
    """The numbers of each folder that was named, and of all single files; NaN left out."""
    sets: dict[str, list[float]] = {}
    for item, record in zip(job.items, records, strict=True):
        name = str(item.picture.place) if item.picture.place.is_dir() else "pictures"
        number = job.number(record)
        sets.setdefault(name, []).extend([] if math.isnan(number) else [number])
    return {name: torch.tensor(values) for name, values in sets.items() if values}


def _draw(job: Job, records: Sequence[Record]) -> None:
    sets = _sets(job, records)
    if not sets:
        raise Failure("No picture has a result, so there is no histogram; raise --max-nfe.")
    unit = "bits per dimension" if job.of_pixels else "log density of latents, nats"
    seeds, labels = zip(*((item.seed, item.label) for item in job.items), strict=True)
    path, about = job.arguments.histogram, job.opened.parameters(labels, seeds)
    write(histogram(sets, unit), path, about | {"trace": str(job.trace)})
    print(f"histogram -> {path}")
