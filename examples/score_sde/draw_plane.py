"""Sample the networks that ``train_plane.py`` trained; plot and evaluate the samples.

    python examples/score_sde/draw_plane.py --picture assets/pictures/plane.png

Prints a table for the README. Distances are sliced Wasserstein distances to fresh data.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from samplers import Denoiser, sample
from samplers.images import Cell, Figure, table, write_png
from samplers.training import CHECKPOINT, WeightingName, load_average, seeded

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.points import density
from examples.score_sde.plane import (
    SCHEDULES,
    SQUARES,
    WEIGHTINGS,
    ScoreNetwork,
    add_output,
    checkerboard,
    run_folder,
    share_beside,
)

COUNT = 50_000
SAMPLER, STEPS = "dpmpp-2m", 50
LINES = 100
"""Directions in which points are projected to compare them."""
PIXELS = 176
EDGE = 0.65 * SQUARES
"""Half the side of an image: the board with a margin."""
HEADINGS = {"ve": "VE", "vp": "VP", "sub-vp": "sub-VP"}


class Measured(NamedTuple):
    """Points and how far they are from the distribution of the data."""

    points: Tensor
    distance: float
    beside: float


Models = dict[WeightingName, dict[str, Measured]]
"""By weighting and by SDE."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Plot the samples of the score networks.")
    add_output(parser)
    parser.add_argument("--picture", type=Path, default=Path("plane.png"))
    arguments = parser.parse_args()
    fresh = checkerboard(COUNT, seeded(0, 1))
    data = measure(checkerboard(COUNT, seeded(0, 2)), fresh)
    try:
        models = {
            weighting: {
                name: measure(draw(arguments.output, name, weighting), fresh) for name in SCHEDULES
            }
            for weighting in WEIGHTINGS
        }
        settings = {"sampler": SAMPLER, "steps": STEPS, "points": COUNT}
        write_png(picture(models, data), arguments.picture, settings)
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(markdown(models, data))


def picture(models: Models, data: Measured) -> Figure:
    """A row for each weighting: the data, and the samples of each SDE."""
    rows = [(name, [cell(data), *map(cell, row.values())]) for name, row in models.items()]
    title = f"Score networks on a checkerboard: {SAMPLER}, {STEPS} steps"
    return table(title, ["data", *(HEADINGS[name] for name in SCHEDULES)], rows)


def markdown(models: Models, data: Measured) -> str:
    lines = ["| SDE | weighting | distance | beside the squares |", "|---|---|---:|---:|"]
    for weighting, row in models.items():
        lines += [line(f"{HEADINGS[sde]} | `{weighting}`", row[sde]) for sde in row]
    return "\n".join([*lines, line("fresh data |", data)])


@torch.no_grad()
def draw(output: Path, name: str, weighting: str) -> Tensor:
    """Points from the network of one SDE and one weighting."""
    schedule = SCHEDULES[name]
    network = ScoreNetwork(schedule)
    checkpoint = run_folder(output, name, weighting) / CHECKPOINT
    if not checkpoint.exists():
        raise FileNotFoundError(
            f"{checkpoint} does not exist; run "
            f"`train_plane.py --schedule {name} --weighting {weighting}` first."
        )
    load_average(checkpoint, network)
    noise = torch.randn(COUNT, 2, generator=seeded(0, 3)) * float(schedule.noisiest.sigma)
    return sample(Denoiser(network.eval(), schedule, "score"), noise, sampler=SAMPLER, steps=STEPS)


def measure(points: Tensor, fresh: Tensor) -> Measured:
    angles = math.pi * torch.arange(LINES) / LINES
    lines = torch.stack([angles.cos(), angles.sin()])
    return Measured(points, sliced_wasserstein(points, fresh, lines), share_beside(points))


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor) -> float:
    r"""The 2-Wasserstein distance of projections to a line, in the root mean square over lines.

    .. math:: SW_2^2 = E_\theta \, W_2^2(\theta \cdot X, \theta \cdot Y)

    x, y: as many samples each (count, n); ``directions`` (n, lines), of length 1. On a line,
    sorting pairs the samples (Bonneel, Rabin, Peyré and Pfister 2015,
    https://doi.org/10.1007/s10851-014-0506-3).
    """
    apart = (x @ directions).sort(dim=0).values - (y @ directions).sort(dim=0).values
    return float(apart.double().square().mean().sqrt())


def cell(measured: Measured) -> Cell:
    # Ink for twice the mean on the dark squares.
    image = density(measured.points, EDGE, 4 / SQUARES**2, PIXELS)
    return Cell(image, f"distance {measured.distance:.3f}")


def line(name: str, measured: Measured) -> str:
    return f"| {name} | {measured.distance:.3f} | {100 * measured.beside:.1f} % |"


if __name__ == "__main__":
    main()
