"""``adjoint gap``: the distance between ODE and SDE samples of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import click

from samplers.cli.common.errors import named_failures, smaller_batches
from samplers.cli.common.options import ConditionOptions, ImageOptions, ModelOptions
from samplers.cli.common.output import check_png, prepare_folder, write
from samplers.cli.common.processes import join
from samplers.cli.common.program import argument, command, option
from samplers.cli.common.text import aligned, counted
from samplers.cli.common.values import COUNTS, PATH, POSITIVE, SAMPLER

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


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """What is measured."""

    section: ClassVar[str] = "Measurement"

    steps: tuple[int, ...] = option(
        "--steps", type=COUNTS, default=(10, 20, 40), help="Numbers of steps of the samplers."
    )
    ode: str = option("--ode", type=SAMPLER, default="dpmpp-2m", help="Deterministic sampler.")
    sde: str = option("--sde", type=SAMPLER, default="sde-dpmpp-2m", help="Stochastic sampler.")
    distance: str = option(
        "--distance",
        type=click.Choice(("sliced", "energy")),
        default="sliced",
        help="The squared sliced Wasserstein distance, or the energy distance.",
    )
    batch_size: int = option("--batch-size", type=POSITIVE, default=16, help="Images at once.")

    def check(self) -> None:
        """Raise ValueError for what cannot be measured."""
        from samplers import get_sampler

        if len(set(self.steps)) < 2:
            raise ValueError(
                f"--steps is {self.steps[0]}, which shows no limit; take two or more, as in "
                "10,20,40."
            )
        if get_sampler(self.ode).stochastic:
            raise ValueError(f"The sampler {self.ode!r} of --ode is stochastic; take another.")
        if not get_sampler(self.sde).stochastic:
            raise ValueError(f"The sampler {self.sde!r} of --sde is deterministic; take another.")


@command(_EXAMPLES)
def run(
    *,
    model: ModelOptions,
    images: tuple[Path, ...] = argument("[IMAGES]...", type=PATH, nargs=-1),
    conditions: ConditionOptions,
    count: ImageOptions,
    gap: GapOptions,
    output: Path = option("--output", type=PATH, required=True, help="Figure, NAME.png."),
) -> None:
    """Measure the distance between ODE and SDE samples.

    IMAGES are files and folders of the data, to compare with.
    """
    check_png(output, "the figure")
    gap.check()
    if not join(model.device).main:
        return
    measurement = _plan(model, images, conditions, count, gap)
    prepare_folder(output.parent)
    with named_failures(smaller_batches(gap.batch_size)):
        gaps, chances = measurement.gaps()
    write(_figure(gaps, chances), output, {"distance": gap.distance})
    _report(gaps, chances, gap)
    print(f"-> {output}")


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
        import torch
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
        with torch.no_grad(), tqdm(total=total, unit="image", disable=None) as bar:
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


def _plan(
    model: ModelOptions,
    images: Sequence[Path],
    conditions: ConditionOptions,
    count: ImageOptions,
    options: GapOptions,
) -> Measurement:
    from adjoint.cli.opening import labels_in_turn
    from samplers.checkpoint import Recipe
    from samplers.cli.common.checkpoints import open_network

    checkpoint = open_network(model)
    seeds = count.chosen_seeds(NUM_IMAGES)
    data = _data(images, checkpoint, len(seeds))
    labels = labels_in_turn(conditions, checkpoint, len(seeds))
    recipe = checkpoint.settle(
        Recipe(guidance=conditions.guidance, guidance_rescale=conditions.guidance_rescale or 0.0)
    )
    return Measurement(options, checkpoint, recipe, seeds, labels, data)


def _data(images: Sequence[Path], checkpoint: NetworkCheckpoint, count: int) -> Tensor | None:
    """As many images of the data as are sampled, if there are any."""
    import torch

    from adjoint.cli.opening import read_levels
    from samplers.images.pixels import values_of

    if count < 4:
        raise ValueError(f"Sets of {count} are too small to measure; take 4 images or more.")
    if not images:
        return None
    levels = read_levels(images, checkpoint.image_shape)
    if len(levels) < count:
        raise ValueError(
            f"There are {counted(len(levels), 'image')} of the data for sets of {count}; give "
            f"more, or take --num-images {len(levels)}."
        )
    return values_of(torch.cat(levels[:count]))


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
        "of two sets of one distribution"
    )
