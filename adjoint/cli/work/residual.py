"""The work of ``adjoint residual``: images in, a picture and a table out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from adjoint.fokker_planck import Level, denoiser_of, residual_profile
from samplers.checkpoint import NetworkCheckpoint, Recipe
from samplers.cli.choices import chosen_labels, chosen_seeds, classes_or_none
from samplers.cli.failure import named_failures
from samplers.cli.images import read_pictures
from samplers.cli.opening import open_network
from samplers.cli.output import is_picture, prepare_folder, write
from samplers.cli.processes import join
from samplers.cli.text import aligned
from samplers.grid import make_grid
from samplers.images.pixels import curve, values_of

NUM_IMAGES = 16
LOWEST, HIGHEST = 0.02, 50.0
"""Noise levels that are measured if none are named, as far as the network was trained for them."""


def run(arguments: argparse.Namespace) -> int:
    """Measure and draw; returns the exit code."""
    if not is_picture(arguments.output):
        raise ValueError(f"The output is {arguments.output}; it is one picture, NAME.png.")
    if arguments.dtype not in ("float32", "float64"):
        raise ValueError(
            f"Derivatives in {arguments.dtype} would be rounding; take --dtype float64 or float32."
        )
    if arguments.levels < 2:
        raise ValueError("One level shows no course; take --levels 2 or more.")
    if arguments.probes < 2:
        raise ValueError("One probe gives a residual that is too large; take --probes 2 or more.")
    processes = join(arguments.device)
    if not processes.main:
        return 0
    checkpoint = open_network(arguments, processes.device)
    own = checkpoint.settings
    with torch.no_grad(), named_failures("take fewer images by --num-images"):
        x0, drawn = _clean(arguments, checkpoint)
        labels = drawn or classes_or_none(
            arguments.label, checkpoint.classes, checkpoint.null_label, len(x0)
        )
        conditions = () if labels is None else (torch.tensor(labels, device=checkpoint.device),)
        model = checkpoint.conditional(
            1.0 if arguments.guidance is None else arguments.guidance,
            arguments.guidance_rescale or 0.0,
        )
        denoiser = denoiser_of(model, own.schedule, own.prediction, *conditions)
        prepare_folder(arguments.output.parent)
        rhos = _levels(arguments, checkpoint)
        with tqdm(total=len(rhos), unit="level", disable=None) as bar:
            levels, estimator = residual_profile(
                denoiser,
                checkpoint.encode(x0),
                rhos,
                probes=arguments.probes,
                seed=arguments.seed,
                tick=bar.update,
            )
    write(_picture(levels), arguments.output, {"estimator": estimator, "dtype": arguments.dtype})
    _report(levels, estimator, arguments)
    return 0


def _clean(
    arguments: argparse.Namespace, checkpoint: NetworkCheckpoint
) -> tuple[Tensor, list[int] | None]:
    """Images without noise [B, C, H, W], and their classes if they were drawn with such."""
    if arguments.images:
        pictures = read_pictures(arguments.images, checkpoint.image_shape)
        levels = torch.cat([picture.levels for picture in pictures])
        return values_of(levels).to(checkpoint.device, checkpoint.dtype), None
    seeds = chosen_seeds(arguments, NUM_IMAGES)
    turn = chosen_labels(arguments.label, checkpoint.classes, checkpoint.null_label)
    labels = None if turn is None else [turn[i % len(turn)] for i in range(len(seeds))]
    recipe = checkpoint.settle(Recipe(steps=20))
    return checkpoint.draw(recipe, seeds, labels, lambda: None).clamp(-1, 1), labels


def _levels(arguments: argparse.Namespace, checkpoint: NetworkCheckpoint) -> list[float]:
    """Noise levels in a geometric row, within what the network was trained for."""
    schedule = checkpoint.settings.schedule
    # Differences reach a little beyond a level, and the network was not trained there.
    least, most = 1.1 * float(schedule.cleanest.rho), 0.9 * float(schedule.noisiest.rho)
    low = arguments.sigma_min or max(LOWEST, least)
    high = arguments.sigma_max or min(HIGHEST, most)
    if not least <= low < high <= most:
        raise ValueError(
            f"The noise levels go from {low:g} to {high:g}; they must rise and lie between "
            f"{least:.3g} and {most:.3g}, for this network was trained up to a little beyond."
        )
    grid = make_grid(
        schedule, arguments.levels - 1, sigma_min=low, sigma_max=high, final="sigma_min"
    )
    levels: list[float] = grid.points.rho.flip(0).tolist()
    return levels


def _picture(levels: Sequence[Level]) -> Image.Image:
    lines = {
        "residual": [(math.log10(at.rho), at.rms) for at in levels],
        "advective part": [(math.log10(at.rho), at.advective) for at in levels],
        "diffusive part": [(math.log10(at.rho), at.diffusive) for at in levels],
    }
    spans = [(_root(at.squared - at.error), _root(at.squared + at.error)) for at in levels]
    known = {"residual": spans} if all(math.isfinite(at.error) for at in levels) else {}
    return curve(lines, "log10 of sigma / alpha", known)


def _root(squared: float) -> float:
    return math.sqrt(max(squared, 0.0))


def _report(levels: Sequence[Level], estimator: str, arguments: argparse.Namespace) -> None:
    rows = [("sigma/alpha", "residual", "squared, with its error", "advective", "diffusive")]
    for at in levels:
        error = f" +- {at.error:.2g}" if math.isfinite(at.error) else ""
        rows.append(
            (
                f"{at.rho:.3g}",
                f"{at.rms:.3g}",
                f"{at.squared:.3g}{error}",
                f"{at.advective:.3g}",
                f"{at.diffusive:.3g}",
            )
        )
    print(aligned(rows))
    form = ", of the gradient's form" if estimator == "pullback" else ""
    print(
        f"root mean squares by {estimator} derivatives in {arguments.dtype}{form} -> "
        f"{arguments.output}"
    )
