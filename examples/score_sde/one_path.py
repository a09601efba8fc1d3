"""One seed at more and more steps: along one Brownian path the samples converge.

    python examples/score_sde/one_path.py --output one_path.png

Each row is a sampler and a kind of noise, from the same initial noise; under each image is its root
mean square distance to the one with twice as many steps.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from samplers import (
    LoadOptions,
    NetworkCheckpoint,
    NoiseKind,
    initial_noise,
    load_checkpoint,
    sample,
)
from samplers.images import Cell, sheet, table, to_images, write_png

STEPS = (10, 20, 40, 80, 160, 320, 640)
ROWS: tuple[tuple[str, NoiseKind], ...] = (
    ("sde-dpmpp-2m", "independent"),
    ("sde-dpmpp-2m", "brownian"),
    ("sde-dpmpp-1", "brownian"),
    ("euler-maruyama", "brownian"),
)
SIGMA_MAX, SIGMA_MIN = 40.0, 0.03
"""Fixed ends, in units of sigma / alpha: more steps then refine the same problem."""


def main() -> None:
    parser = argparse.ArgumentParser(description="One seed at more and more steps.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=Path("assets/digits"))
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--output", type=Path, default=Path("one_path.png"))
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(arguments.checkpoint, LoadOptions())
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise SystemExit(f"error: {arguments.checkpoint} takes a prompt; give one of classes.")
    with torch.no_grad():
        rows = [
            (f"{name}, {noise}", cells(checkpoint, name, noise, arguments.labels))
            for name, noise in tqdm(ROWS)
        ]
    title = "One seed at more and more steps, with the RMS distance to the image at twice the steps"
    figure = table(title, [f"{n} steps" for n in STEPS], rows)
    write_png(figure, arguments.output, {"steps": STEPS, "labels": arguments.labels})
    print(f"-> {arguments.output}")


def cells(
    checkpoint: NetworkCheckpoint, name: str, noise: NoiseKind, labels: list[int]
) -> list[Cell]:
    drawn = [draw(checkpoint, name, noise, labels, steps) for steps in STEPS]
    distances = [
        f"RMS {float((finer - image).square().mean().sqrt()):.3f}"
        for image, finer in pairwise(drawn)
    ]
    lines = [*distances, "finest"]
    sheets = [sheet(to_images(images), len(labels)) for images in drawn]
    return [Cell(*pair) for pair in zip(sheets, lines, strict=True)]


def draw(
    checkpoint: NetworkCheckpoint, name: str, noise: NoiseKind, labels: list[int], steps: int
) -> Tensor:
    seeds = range(len(labels))
    return sample(
        checkpoint.denoiser(),
        initial_noise(seeds, checkpoint.shape).float(),
        sampler=name,
        steps=steps,
        grid="log-snr",
        sigma_max=SIGMA_MAX,
        sigma_min=SIGMA_MIN,
        seeds=seeds,
        noise=noise,
        conditions=checkpoint.conditions(labels),
    )


if __name__ == "__main__":
    main()
