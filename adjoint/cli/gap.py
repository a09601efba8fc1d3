"""``adjoint gap``: the distance between ODE and SDE samples of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

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
from samplers.cli.common.values import COUNTS, IMAGE_COUNT, OUTPUT, PATH, SAMPLER

if TYPE_CHECKING:
    from torch import Tensor

    from adjoint.fokker_planck import Gap
    from samplers.checkpoint import NetworkCheckpoint, Recipe
    from samplers.images.figures import Figure

_EXAMPLES = """\
Examples:
  adjoint gap assets/digits --num-images 200 --output gap.png
  adjoint gap assets/digits data/ --steps 20,40,80 --distance energy --output gap.png

Images sampled by the probability-flow ODE are compared with as many sampled by the reverse SDE, as
sets, at several numbers of steps. The limit of the distance for many steps is the gap of the
network's score. Two finite sets of one distribution have a distance, too; its mean is printed
beside. With images of the data, both sets are compared with those as well.
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
    ode: str = option(type=SAMPLER, default="dpmpp-2m", help="Deterministic sampler.")
    sde: str = option(type=SAMPLER, default="sde-dpmpp-2m", help="Stochastic sampler.")
    distance: str = option(
        type=click.Choice(("sliced", "energy")),
        default="sliced",
        help="The squared sliced Wasserstein distance, or the energy distance.",
    )
    num_images: int | None = changed(
        ImageOptions, "num_images", show_default=f"{NUM_IMAGES}, or as --seeds"
    )
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
    write(_figure(gaps, chances), options.output, {"distance": options.distance})
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
            energy_distance,
            ode_sde_gap,
            sliced_wasserstein,
            split_half_distance,
        )

        steps = sorted(self.options.steps)
        biased = self.options.distance == "sliced"
        distance = sliced_wasserstein if biased else energy_distance
        others = [seed + max(self.seeds) + 1 for seed in self.seeds]
        total = 2 * len(steps) * len(self.seeds)
        with tqdm(total=total, unit="image", disable=None) as bar:
            ode = self._sampled(self.options.ode, self.seeds, bar.update)
            sde = self._sampled(self.options.sde, others, bar.update)
            found = ode_sde_gap(ode, sde, steps, distance, self.data)
            if not biased:
                return found, [0.0] * len(steps)
            halves = [split_half_distance(ode(n), distance, groups=self.labels) for n in steps]
            return found, [half / 2 for half in halves]

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
    rows = [("steps", *names, "one distribution")]
    rows += [
        (str(gap.steps), *(f"{value:.4g}" for value in (*gap[1:known], chance)))
        for gap, chance in zip(gaps, chances, strict=True)
    ]
    print(aligned(rows))
    print(
        f"{options.distance} distances of {options.ode} and {options.sde}; last, the mean distance "
        f"of two sets of one distribution -> {options.output}"
    )
