"""The work of ``adjoint gap``: two sets of images for each number of steps, a table, a picture."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from adjoint.fokker_planck import (
    Gap,
    energy_distance,
    floor,
    ode_sde_gap,
    sliced_wasserstein,
)
from adjoint.fokker_planck.gap import Distance
from samplers.checkpoint import NetworkCheckpoint, Recipe
from samplers.cli.choices import chosen_labels, chosen_seeds
from samplers.cli.failure import named_failures, smaller_batches
from samplers.cli.images import read_pictures
from samplers.cli.opening import open_network
from samplers.cli.output import is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.cli.text import aligned, counted
from samplers.images.pixels import curve, values_of
from samplers.registry import get_sampler

NUM_IMAGES = 64
DISTANCES: dict[str, Distance] = {"sliced": sliced_wasserstein, "energy": energy_distance}


def run(arguments: argparse.Namespace) -> int:
    """Measure and draw; returns the exit code."""
    _check(arguments)
    processes = join(arguments.device)
    if not processes.main:
        return 0
    checkpoint = open_network(arguments, processes.device)
    seeds = chosen_seeds(arguments, NUM_IMAGES)
    data = _data(arguments, checkpoint, len(seeds))
    turn = chosen_labels(arguments.label, checkpoint.classes, checkpoint.null_label)
    labels = None if turn is None else [turn[i % len(turn)] for i in range(len(seeds))]
    recipe = checkpoint.settle(
        Recipe(guidance=arguments.guidance, guidance_rescale=arguments.guidance_rescale or 0.0)
    )
    prepare_folder(arguments.output.parent)
    distance, steps = DISTANCES[arguments.distance], sorted(arguments.steps)
    # The sets share no noise: two sets of one law would not.
    others = [seed + max(seeds) + 1 for seed in seeds]
    size = arguments.batch_size
    with (
        torch.no_grad(),
        named_failures(smaller_batches(size)),
        tqdm(total=2 * len(steps) * len(seeds), unit="image", disable=None) as bar,
    ):
        ode, sde = (
            _drawing(checkpoint, replace(recipe, sampler=name), own, labels, size, bar.update)
            for name, own in ((arguments.ode, seeds), (arguments.sde, others))
        )
        gaps = ode_sde_gap(ode, sde, steps, distance, data)
        # The energy distance has no bias: of one law it is zero in the mean.
        biased = distance is sliced_wasserstein
        chances = [floor(ode(n), distance, groups=labels) / 2 if biased else 0.0 for n in steps]
    write(_picture(gaps, chances), arguments.output, {"distance": arguments.distance})
    _report(gaps, chances, arguments)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not is_picture(arguments.output):
        raise ValueError(f"The output is {arguments.output}; it is one picture, NAME.png.")
    if len(set(arguments.steps)) < 2:
        raise ValueError("One number of steps shows no course; take two or more, as in 10,20,40.")
    if get_sampler(arguments.ode).stochastic:
        raise ValueError(f"The sampler {arguments.ode!r} of --ode draws noise; take one without.")
    if not get_sampler(arguments.sde).stochastic:
        raise ValueError(f"The sampler {arguments.sde!r} of --sde draws no noise; take one with.")


def _data(
    arguments: argparse.Namespace, checkpoint: NetworkCheckpoint, count: int
) -> Tensor | None:
    """As many images of the data as are drawn, if there are any."""
    if count < 4:
        raise ValueError(f"Sets of {count} have no distance to speak of; take 4 images or more.")
    if not arguments.images:
        return None
    pictures = read_pictures(arguments.images, checkpoint.image_shape)
    if len(pictures) < count:
        raise ValueError(
            f"{counted(len(pictures), 'image')} of the data came for sets of {count}; give more, "
            f"or take --num-images {len(pictures)}."
        )
    return values_of(torch.cat([picture.levels for picture in pictures[:count]]))


def _drawing(
    checkpoint: NetworkCheckpoint,
    recipe: Recipe,
    seeds: Sequence[int],
    labels: Sequence[int] | None,
    size: int,
    tick: Callable[[int], object],
) -> Callable[[int], Tensor]:
    """Draws the set in so many steps; each once."""

    def part(steps: int, first: int) -> Tensor:
        own = seeds[first : first + size]
        asked = None if labels is None else labels[first : first + size]
        images = checkpoint.draw(replace(recipe, steps=steps), own, asked, lambda: None)
        tick(len(own))
        return images.cpu()

    @cache
    def draw(steps: int) -> Tensor:
        return torch.cat([part(steps, first) for first in range(0, len(seeds), size)])

    return draw


def _picture(gaps: Sequence[Gap], chances: Sequence[float]) -> Image.Image:
    names = {"ODE to SDE": "ode_sde", "ODE to data": "ode_data", "SDE to data": "sde_data"}
    lines = {
        name: [(gap.steps, getattr(gap, field)) for gap in gaps] for name, field in names.items()
    }
    lines["chance"] = [(gap.steps, chance) for gap, chance in zip(gaps, chances, strict=True)]
    known = {name: line for name, line in lines.items() if not math.isnan(line[0][1])}
    return curve(known, "number of steps")


def _report(gaps: Sequence[Gap], chances: Sequence[float], arguments: argparse.Namespace) -> None:
    known = 2 if math.isnan(gaps[0].ode_data) else 4
    rows = [("steps", *("ODE to SDE", "ODE to data", "SDE to data")[: known - 1], "chance")]
    rows += [
        (str(gap.steps), *(f"{value:.4g}" for value in (*gap[1:known], chance)))
        for gap, chance in zip(gaps, chances, strict=True)
    ]
    print(aligned(rows))
    print(
        f"{arguments.distance} distances of {arguments.ode} and {arguments.sde}, and what two sets "
        f"of one law have by chance, in the mean -> {arguments.output}"
    )
