"""``adjoint gap``: the distance between ODE and SDE samples of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from samplers.choices import DEFAULT_SAMPLER
from samplers.cli.common.errors import evaluating, smaller_batches
from samplers.cli.common.options import (
    ConditionOptions,
    ImageOptions,
    ModelOptions,
    OverwriteOptions,
)
from samplers.cli.common.output import check_png, prepare_folder, write
from samplers.cli.common.program import argument, changed, command, option
from samplers.cli.common.text import aligned, counted
from samplers.cli.common.values import (
    COUNTS,
    IMAGE_COUNT,
    OUTPUT,
    PATH,
    POSITIVE_NUMBER,
    SAMPLER,
)

if TYPE_CHECKING:
    from torch import Tensor

    from adjoint.fokker_planck import Box, Distance, Gap
    from samplers.checkpoint import NetworkCheckpoint, Recipe
    from samplers.images.figures import Figure

_EXAMPLES = """\
Examples:
  adjoint gap assets/digits --num-images 200 --output gap.png
  adjoint gap assets/digits data/ --steps 20,40,80 --distance energy --output gap.png

Images sampled by the probability-flow ODE are compared with as many sampled by the reverse SDE, as
sets, at several numbers of steps. The limit of the distance for many steps is the gap of the
network's score. Two finite sets of one distribution have a distance, too; its mean is printed
beside. With images of the data, both sets are compared with those as well. A wrong score lets some
samples escape, and a few of them make up the distance of the sets: the share of those with a pixel
value beyond --radius and the furthest value are printed, and --trim leaves them out.
"""
NUM_IMAGES = 64


class GapOptions(
    ConditionOptions, ImageOptions, ModelOptions, OverwriteOptions, section="Measurement"
):
    images: tuple[Path, ...] = argument(
        "[IMAGES]...", type=PATH, nargs=-1, help="Images of the data, and folders, to compare with."
    )
    steps: tuple[int, ...] = option(
        type=COUNTS, default=(10, 20, 40), help="Numbers of steps of the samplers."
    )
    ode: str = option(type=SAMPLER, default=DEFAULT_SAMPLER, help="Deterministic sampler.")
    sde: str = option(type=SAMPLER, default="sde-dpmpp-2m", help="Stochastic sampler.")
    distance: str = option(
        type=click.Choice(("sliced", "energy")),
        default="sliced",
        help="The squared sliced Wasserstein distance, or the energy distance.",
    )
    num_images: int | None = changed(
        ImageOptions, "num_images", show_default=f"{NUM_IMAGES}, or as --seeds"
    )
    radius: float = option(
        type=POSITIVE_NUMBER,
        default=1.5,
        metavar="R",
        help="Largest absolute pixel value of a sample that has not escaped; images have 1.",
    )
    trim: bool = option(is_flag=True, help="Leave out samples that escaped.")
    batch_size: int = option(type=IMAGE_COUNT, default=16, help="Images at once.")
    output: Path = option(
        type=OUTPUT, required=True, metavar="NAME.png", help="Figure to write.", section="Output"
    )


@command(_EXAMPLES, single_process=True)
def run(options: GapOptions) -> None:
    """Measure the distance between ODE and SDE samples."""
    check_png(options.output, "the figure")
    options.check_checkpoint()
    _check(options)
    measurement = _plan(options)
    prepare_folder(options.output.parent)
    with evaluating(smaller_batches(options.batch_size)):
        gaps, chances = measurement.gaps()
    write(_figure(gaps, chances), options.output, _about(options))
    _report(gaps, chances, options)


def _check(options: GapOptions) -> None:
    """Raise ValueError for what cannot be measured."""
    from samplers import get_sampler

    if len(set(options.steps)) < 2:
        raise ValueError(
            f"--steps is {options.steps[0]}, which shows no limit; take two or more, as in "
            "10,20,40."
        )
    if get_sampler(options.ode).stochastic:
        raise ValueError(f"The sampler {options.ode!r} of --ode is stochastic; take another.")
    if not get_sampler(options.sde).stochastic:
        raise ValueError(f"The sampler {options.sde!r} of --sde is deterministic; take another.")


class Measurement(NamedTuple):
    """Everything that a run does.

    Attributes:
        seeds: of the ODE's samples; the SDE's follow them, for two sets share no noise.
        data: as many images of the data as are sampled, if there are any.
    """

    options: GapOptions
    checkpoint: NetworkCheckpoint
    recipe: Recipe
    seeds: tuple[int, ...]
    labels: tuple[int, ...] | None
    data: Tensor | None

    def gaps(self) -> tuple[list[Gap], list[float]]:
        """The gap at each number of steps, and the distance that is due to finite sets."""
        from tqdm.auto import tqdm

        from adjoint.fokker_planck import (
            Box,
            energy_distance,
            measure_gap,
            sliced_wasserstein,
        )

        steps = sorted(self.options.steps)
        biased = self.options.distance == "sliced"
        distance = sliced_wasserstein if biased else energy_distance
        others = [seed + max(self.seeds) + 1 for seed in self.seeds]
        total = 2 * len(steps) * len(self.seeds)
        with tqdm(total=total, unit="image", disable=None) as bar:
            ode = self._sampled(self.options.ode, self.seeds, bar.update)
            sde = self._sampled(self.options.sde, others, bar.update)
            box, trim = Box(-self.options.radius, self.options.radius), self.options.trim
            found = [
                measure_gap(ode(n), sde(n), n, distance, self.data, box=box, trim=trim)
                for n in steps
            ]
            if trim:
                self._check_trimmed(found)
            if not biased:
                return found, [0.0] * len(steps)
            return found, [self._chance(ode(n), distance, box) for n in steps]

    def _chance(self, images: Tensor, distance: Distance, box: Box) -> float:
        """The distance of two sets that is due to their size, of those that are compared."""
        from adjoint.fokker_planck import split_half_distance

        groups = self.labels
        if self.options.trim:
            kept = box.holds(images)
            images = images[kept]
            groups = None if groups is None else tuple(compress(groups, kept.tolist()))
        return split_half_distance(images, distance, groups=groups) / 2

    def _check_trimmed(self, gaps: Sequence[Gap]) -> None:
        """Raise ValueError if too few samples are left."""
        share, steps = max((max(gap.ode.share, gap.sde.share), gap.steps) for gap in gaps)
        left = round((1 - share) * len(self.seeds))
        if left < 4:
            raise ValueError(
                f"--trim leaves {counted(left, 'image')} of {len(self.seeds)} at {steps} steps, "
                "too few to measure; take a larger --radius, or omit --trim."
            )

    def _sampled(
        self, sampler: str, seeds: Sequence[int], tick: Callable[[int], object]
    ) -> Callable[[int], Tensor]:
        """The set of images as a function of the number of steps; each is sampled once."""
        import torch

        recipe, size = replace(self.recipe, sampler=sampler), self.options.batch_size

        def part(steps: int, first: int) -> Tensor:
            own = seeds[first : first + size]
            labels = None if self.labels is None else self.labels[first : first + size]
            images = self.checkpoint.draw(replace(recipe, steps=steps), own, labels, lambda: None)
            tick(len(own))
            return images.cpu()

        @cache
        def sampled(steps: int) -> Tensor:
            return torch.cat([part(steps, first) for first in range(0, len(seeds), size)])

        return sampled


def _plan(options: GapOptions) -> Measurement:
    from samplers.cli.common.checkpoints import labels_of, open_network, recipe_from

    checkpoint = open_network(options)
    seeds = options.chosen_seeds(NUM_IMAGES)
    data = _data(options.images, checkpoint, len(seeds))
    labels = labels_of(options, checkpoint, len(seeds))
    recipe = checkpoint.settle(recipe_from(options))
    return Measurement(options, checkpoint, recipe, seeds, labels, data)


def _data(places: Sequence[Path], checkpoint: NetworkCheckpoint, count: int) -> Tensor | None:
    """As many images of the data as are sampled, if there are any."""
    import torch

    from samplers.images.inputs import read_inputs
    from samplers.images.pixels import values_of

    if count < 4:
        raise ValueError(f"Sets of {count} are too small to measure; take 4 images or more.")
    if not places:
        return None
    images = read_inputs(places, checkpoint.image_shape)
    if len(images) < count:
        raise ValueError(
            f"There are {counted(len(images), 'image')} of the data for sets of {count}; give "
            f"more, or take --num-images {len(images)}."
        )
    return values_of(torch.cat([image.levels for image in images[:count]]))


# ------------------------------------------------------------------------------ for the reader


def _about(options: GapOptions) -> dict[str, Any]:
    """What the figure says of itself."""
    trimmed = {"trimmed beyond": options.radius} if options.trim else {}
    return {"distance": options.distance, **trimmed}


def _figure(gaps: Sequence[Gap], chances: Sequence[float]) -> Figure:
    from samplers.images.figures import curves

    names = {"ODE to SDE": "ode_sde", "ODE to data": "ode_data", "SDE to data": "sde_data"}
    lines = {
        name: [(gap.steps, getattr(gap, field)) for gap in gaps] for name, field in names.items()
    }
    pairs = zip(gaps, chances, strict=True)
    lines["one distribution"] = [(gap.steps, chance) for gap, chance in pairs]
    known = {name: line for name, line in lines.items() if not math.isnan(line[0][1])}
    return curves(known, "number of steps", "squared distance between sets")


def _report(gaps: Sequence[Gap], chances: Sequence[float], options: GapOptions) -> None:
    known = 2 if math.isnan(gaps[0].ode_data) else 4
    names = ("ODE to SDE", "ODE to data", "SDE to data")[: known - 1]
    rows = [("steps", *names, "one distribution", "ODE escaped", "SDE escaped")]
    rows += [
        (
            str(gap.steps),
            *(f"{value:.4g}" for value in (*gap[1:known], chance)),
            *(f"{each.share:.2%}, to {each.furthest:.3g}" for each in (gap.ode, gap.sde)),
        )
        for gap, chance in zip(gaps, chances, strict=True)
    ]
    print(aligned(rows))
    trimmed = ", without the escaped samples" if options.trim else ""
    print(
        f"{options.distance} distances of {options.ode} and {options.sde}{trimmed}; the mean "
        "distance of two sets of one distribution; samples with a pixel value beyond "
        f"{options.radius:g}, and the furthest value -> {options.output}"
    )
    for gap in gaps:
        if gap.escapes_dominate:
            print(gap.warning)
