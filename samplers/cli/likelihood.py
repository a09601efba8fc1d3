"""``samplers likelihood``: how likely images are under a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from click import Choice

from samplers.choices import ProbeLaw
from samplers.cli.common.errors import Failure, evaluating, smaller_batches, stopped
from samplers.cli.common.options import FlowOptions, OverwriteOptions, SeedOptions
from samplers.cli.common.output import (
    check_folder,
    check_places,
    check_png,
    prepare_folder,
    write,
)
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.records import (
    SEPARATOR,
    Key,
    Record,
    Records,
    add_records,
    read_records,
)
from samplers.cli.common.text import aligned, counted
from samplers.cli.common.values import OUTPUT, PATH, POSITIVE

if TYPE_CHECKING:
    from samplers.cli.common.flow import OpenedFlow, Part
    from samplers.images.inputs import ImageInput
    from samplers.probability_flow.likelihood import Trace

SHOWN = 40
"""Rows that are printed; the CSV file has all."""

_EXAMPLES = """
Examples:
  samplers likelihood assets/digits three.png seven.png --label 3,7
  samplers likelihood assets/digits digits/ clothes/ --csv bits.csv --histogram bits.png

Printed are bits per dimension, an upper bound: the 256 levels of the image are dequantised by
uniform noise, and the log density follows the probability flow. For a network of latents it is the
log density of the latents, in nats.

The divergence is estimated with random probes (Hutchinson); from 2 probes on its standard error is
known. --exact sums it instead, at the cost of a backward pass for each number of the image.

With --csv every measured image is saved, and an interrupted command continues when it is repeated.
A table holds measurements of the same settings; images, classes and seeds may be added.
The noise of an image follows from its content and --seed, whatever other images come with it.
"""


class LikelihoodOptions(FlowOptions, SeedOptions, OverwriteOptions, section="Divergence"):
    images: tuple[Path, ...] = argument(
        "IMAGES...", type=PATH, help="PNG or JPEG files, and folders.", nargs=-1, required=True
    )
    probes: int = option(type=POSITIVE, help="Random probes per image.", default=1)
    exact: bool = option(
        is_flag=True, help="Compute the divergence exactly, at a high cost.", excludes=["--probes"]
    )
    law: ProbeLaw = option(
        type=Choice(get_args(ProbeLaw)), help="Distribution of the probes.", default="rademacher"
    )
    tolerance: float = changed(FlowOptions, "tolerance", default=1e-3)
    max_nfe: int = changed(FlowOptions, "max_nfe", default=10_000)
    overwrite: bool = changed(
        OverwriteOptions,
        "overwrite",
        help="Replace files that exist, and a table of other settings.",
    )
    seed: int = changed(
        SeedOptions, "seed", help="Seed of the noise, together with an image's content."
    )
    csv: Path | None = option(
        type=PATH, help="Table to write, as CSV.", metavar="NAME.csv", section="Output"
    )
    histogram: Path | None = option(
        type=OUTPUT,
        help="Histogram to write, NAME.png, with a colour for each folder.",
        metavar="NAME.png",
        section="Output",
    )

    @property
    def outputs(self) -> list[Path]:
        """Every file that will be written."""
        return [path for path in (self.csv, self.histogram) if path is not None]

    def check(self) -> None:
        """Raise what can be seen to be wrong without loading anything."""
        if self.histogram is not None:
            check_png(self.histogram, "the histogram")
        if self.csv is not None and self.csv.suffix.lower() != ".csv":
            raise ValueError(f"The table is {self.csv}; name it NAME.csv.")
        for path in self.outputs:
            check_folder(path.parent)
        self.check_checkpoint()


@command(_EXAMPLES, single_process=True)
def run(options: LikelihoodOptions) -> None:
    """Measure how likely images are."""
    options.check()
    job = _plan(options)
    check_places(options.outputs, [item.image.path for item in job.items])
    for path in options.outputs:
        prepare_folder(path.parent)
    records = _measure_all(job)
    _report(job, records)
    if options.histogram is not None:
        _draw(job, options.histogram, records)


class Item(NamedTuple):
    """One image to measure; ``content`` is a digest of it."""

    image: ImageInput
    label: int | None
    seed: int
    content: str

    @property
    def key(self) -> Key:
        return self.content, self.label, self.seed


@dataclass(frozen=True)
class Job:
    """Everything that a run does, settled before the first network evaluation."""

    options: LikelihoodOptions
    flow: OpenedFlow
    trace: Trace
    settings: str
    items: tuple[Item, ...]

    @property
    def of_pixels(self) -> bool:
        return self.flow.checkpoint.of_pixels

    @property
    def unit(self) -> str:
        return "bits/dim" if self.of_pixels else "nats"

    def number(self, record: Record) -> float:
        """What is printed of an image, in the job's unit."""
        return record.bits_per_dim if self.of_pixels else record.log_prob

    def error(self, record: Record) -> float:
        """The standard error of this number."""
        numbers = self.items[0].image.levels.numel()
        return record.standard_error / (numbers * math.log(2) if self.of_pixels else 1)

    def measure(self, items: Sequence[Item], part: Part) -> list[Record]:
        """The records of some items, in one batch."""
        seeds = [item.seed for item in items]
        labels = [item.label for item in items if item.label is not None] or None
        images = [item.image for item in items]
        found = self.flow.log_likelihood(images, labels, self.trace, seeds, part.tick)
        bits = self.flow.bits_per_dim(found.log_prob)
        return [
            Record(
                image=str(item.image.path),
                label=item.label,
                bits_per_dim=float(bits[place]),
                log_prob=float(found.log_prob[place]),
                standard_error=float(found.standard_error[place]),
                nfe=int(found.nfe[place]),
                seed=item.seed,
                content=item.content,
                settings=self.settings,
            )
            for place, item in enumerate(items)
        ]


def _plan(options: LikelihoodOptions) -> Job:
    from samplers.cli.common.flow import open_flow
    from samplers.images.inputs import read_inputs
    from samplers.probability_flow.likelihood import DEFAULT, ExactTrace, Hutchinson

    flow = open_flow(options, DEFAULT)
    trace: Trace = ExactTrace() if options.exact else Hutchinson(options.probes, options.law)
    images = read_inputs(options.images, flow.checkpoint.image_shape)
    labels = flow.labels(len(images))
    contents = [_digest(image.levels.numpy().tobytes()) for image in images]
    classes = labels or (None,) * len(images)
    items = map(Item, images, classes, _seeds(options, contents), contents)
    return Job(options, flow, trace, _settings(flow, trace), tuple(items))


def _seeds(options: LikelihoodOptions, contents: Sequence[str]) -> list[int]:
    """Those that are listed; by default a seed for each image, which does not depend on the
    others."""
    if options.seeds is None:
        return [options.seed + int(content[:8], 16) for content in contents]
    if len(options.seeds) != len(contents):
        count = counted(len(contents), "image")
        raise ValueError(f"--seeds lists {len(options.seeds)} for {count}.")
    return list(options.seeds)


def _settings(flow: OpenedFlow, trace: Trace) -> str:
    """What decides the result of every image, in words."""
    recipe, chosen, checkpoint = flow.recipe, flow.settings, flow.checkpoint
    low, high = flow.flow(lambda: None).ends
    model, interval = checkpoint.identity, recipe.guidance_interval
    settings = {
        "method": chosen.method,
        "tolerance": chosen.rtol,
        "max NFE": chosen.max_nfe,
        "trace": trace,
        "guidance": recipe.guidance,
        "guidance rescale": recipe.guidance_rescale,
        "guidance interval": "none" if interval is None else f"{interval[0]} to {interval[1]}",
        "null label": checkpoint.null_label,
        "sigma": f"{low} to {high}",
        "dtype": checkpoint.dtype,
        **checkpoint.settings.training(),
        "weights": _digest("".join(model.weights_sha256.values()).encode()),
        "configs": _digest("".join(model.configs_sha256.values()).encode()),
    }
    return SEPARATOR.join(f"{name} {value}" for name, value in settings.items())


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:16]


def _measure_all(job: Job) -> list[Record]:
    """The records of all items, including those that are in the CSV file already."""
    path: Path | None = job.options.csv
    again = job.options.overwrite
    found = {} if path is None else read_records(path, job.settings, again)
    missing = [item for item in job.items if item.key not in found]
    if len(missing) < len(job.items):
        print(f"{counted(len(job.items) - len(missing), 'image')} in {path} already")
    from samplers.cli.common.flow import in_parts

    try:
        with evaluating(smaller_batches(job.options.batch_size)):
            for part in in_parts(len(missing), job.options.batch_size):
                measured = job.measure([missing[place] for place in part.places], part)
                if path is None:
                    found |= {record.key: record for record in measured}
                else:
                    found = add_records(path, measured, again)
    except (Failure, KeyboardInterrupt) as stop:
        raise stopped(stop, _left(job, found)) from stop
    return [found[item.key]._replace(image=str(item.image.path)) for item in job.items]


def _left(job: Job, found: Records) -> str:
    """What an unfinished run leaves."""
    if job.options.csv is None:
        return "Nothing is saved without --csv."
    done = sum(item.key in found for item in job.items)
    return (
        f"{done} of {counted(len(job.items), 'image')} are in {job.options.csv}; run the same "
        "command again to continue."
    )


# ------------------------------------------------------------------------------ for the reader


def _report(job: Job, records: Sequence[Record]) -> None:
    with_class = job.items[0].label is not None
    with_error = not all(math.isnan(job.error(record)) for record in records)
    headings = ("class",) * with_class, (job.unit,), ("±",) * with_error, ("NFE",)
    rows = [("image", *chain(*headings))]
    for item, record in zip(job.items[:SHOWN], records, strict=False):
        own = (str(item.label),) if with_class else ()
        spread = "-" if math.isnan(job.error(record)) else f"{job.error(record):.2g}"
        number, error = f"{job.number(record):.4g}", (spread,) * with_error
        rows.append((record.image, *own, number, *error, str(record.nfe)))
    print(aligned(rows))
    if len(records) > SHOWN:
        print(f"… and {counted(len(records) - SHOWN, 'image')} more")
    for name, values in _sets(job, records).items():
        if len(values) > 1:
            print(_summary(name, values, job.unit))
    unfinished = sum(math.isnan(job.number(record)) for record in records)
    if unfinished:
        print(f"{counted(unfinished, 'image')} without a result: --max-nfe ran out")


def _summary(name: str, values: Sequence[float], unit: str) -> str:
    from statistics import fmean, stdev

    error = stdev(values) / math.sqrt(len(values))
    average = f"{fmean(values):.4g} ± {error:.2g} {unit}"
    return f"{name}: {average}, the mean of {counted(len(values), 'image')}"


def _sets(job: Job, records: Sequence[Record]) -> dict[str, list[float]]:
    """The numbers of each folder that was named, and of all single files; NaN left out."""
    sets: dict[str, list[float]] = {}
    for item, record in zip(job.items, records, strict=True):
        name = str(item.image.place) if item.image.place.is_dir() else "images"
        number = job.number(record)
        sets.setdefault(name, []).extend([] if math.isnan(number) else [number])
    return {name: values for name, values in sets.items() if values}


def _draw(job: Job, path: Path, records: Sequence[Record]) -> None:
    import torch

    from samplers.images.figures import histogram

    sets = {name: torch.tensor(values) for name, values in _sets(job, records).items()}
    if not sets:
        raise Failure("No image has a result, so there is no histogram; raise --max-nfe.")
    unit = "bits per dimension" if job.of_pixels else "log density of latents, nats"
    seeds, labels = zip(*((item.seed, item.label) for item in job.items), strict=True)
    about = job.flow.parameters(labels, seeds) | {"trace": str(job.trace)}
    write(histogram(sets, unit), path, about)
    print(f"histogram -> {path}")
