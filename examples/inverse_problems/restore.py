"""Solve inverse problems with a diffusion model of the images as the prior.

    python examples/inverse_problems/restore.py assets/digits --data data/mnist \\
        --output assets/pictures/restored_digits.png
    python examples/inverse_problems/restore.py assets/colour --data data/cifar10 \\
        --tasks grey,square,downsampled --output assets/pictures/restored_colour.png

The images are test images, which the model has not seen: digits for a grey model, horses for a
colour model. A row of the figure is one image: the original, its measurement, and several solutions
by each of the two methods. It prints root mean squares for each task:

- error: of the measurement of the solutions, A x - y;
- distance: of the unmeasured part, to that of the original;
- diversity: of the unmeasured part, between two solutions. Samples of the posterior are as far from
  each other as from the original.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from samplers import (
    Checkpoint,
    CheckpointError,
    Guidance,
    InverseProblem,
    LinearOperator,
    LoadOptions,
    NetworkCheckpoint,
    Replacement,
    colourisation,
    downsampling,
    initial_noise,
    inpainting,
    load_checkpoint,
    solve_inverse_problem,
)
from samplers.images import Cell, table, to_images, write_png
from samplers.inverse_problems import unmeasured

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]
from mnist import digits  # noqa: E402  the scripts' neighbours

from examples.colour.cifar10 import cifar10  # noqa: E402

SAMPLER, VISITS = "ancestral", 5
METHODS: dict[str, Guidance | Replacement] = {
    "guidance": Guidance(),
    "replacement": Replacement(visits=VISITS),
}
CLASS = "horse"
"""Of the colour images."""

Shape = tuple[int, ...]


def lower_half(shape: Shape) -> LinearOperator:
    """The lower half is missing."""
    mask = torch.ones(shape[1:])
    mask[shape[1] // 2 :] = 0
    return inpainting(mask, shape)


def square(shape: Shape) -> LinearOperator:
    """A square in the middle is missing, of three sevenths of the side."""
    mask, (height, width) = torch.ones(shape[1:]), shape[1:]
    mask[2 * height // 7 : 5 * height // 7, 2 * width // 7 : 5 * width // 7] = 0
    return inpainting(mask, shape)


TASKS: dict[str, Callable[[Shape], LinearOperator]] = {
    "lower-half": lower_half,
    "square": square,
    "downsampled": lambda shape: downsampling(shape, 4),
    "grey": colourisation,
}


def main() -> None:
    arguments = parse_arguments()
    try:
        checkpoint = open_checkpoint(arguments.checkpoint)
        originals = read_images(arguments.data, checkpoint.shape[0])
        chosen = originals[arguments.images]
        rows = []
        for task in arguments.tasks:
            rows += solve_task(checkpoint, task, chosen, arguments)
    except (OSError, ValueError, IndexError, CheckpointError) as error:
        sys.exit(f"error: {error}")
    title = f"{SAMPLER}, {arguments.steps} steps, replacement: each step repeated {VISITS} times"
    columns = ["original", "measured", *(n for n in METHODS for _ in range(arguments.answers))]
    figure = table(title, columns, rows)
    names = ("steps", "answers", "seed", "tasks", "images")
    recipe = {name: getattr(arguments, name) for name in names}
    write_png(figure, arguments.output, {"sampler": SAMPLER, **recipe})
    print(f"The figure is {arguments.output}.")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Solve inverse problems with a diffusion prior.")
    parser.add_argument("checkpoint", type=Path, help="diffusers folder of a network over pixels")
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST or CIFAR-10")
    parser.add_argument("--output", type=Path, required=True, help="the figure")
    parser.add_argument("--tasks", type=tasks, default=["lower-half", "square", "downsampled"])
    parser.add_argument("--images", type=numbers, default=[1, 4, 11], help="which test images")
    parser.add_argument("--answers", type=int, default=4, help="solutions of each problem")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def tasks(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(TASKS)}")
    return names


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def open_checkpoint(folder: Path) -> NetworkCheckpoint:
    checkpoint: Checkpoint = load_checkpoint(folder, LoadOptions())
    if not isinstance(checkpoint, NetworkCheckpoint):
        raise CheckpointError(
            f"{folder} is conditioned on a prompt; a network of pixels is needed."
        )
    return checkpoint


def read_images(folder: Path, channels: int) -> Tensor:
    """The test images [N, C, H, W] in [-1, 1]."""
    if channels == 1:
        images: Tensor = digits(folder, "test").tensors[0]
        return images
    return cifar10(folder, "test", CLASS)


def solve_task(
    checkpoint: NetworkCheckpoint, task: str, originals: Tensor, arguments: argparse.Namespace
) -> list[tuple[str, list[Cell]]]:
    """A row of the table for each original; prints what was measured."""
    operator = TASKS[task](checkpoint.shape)
    y = operator.forward(originals)
    seen = torch.nn.functional.interpolate(
        y.expand(-1, len(originals[0]), -1, -1), originals.shape[2:]
    )
    rows = [[x, m] for x, m in zip(originals, seen, strict=True)]
    for name, method in METHODS.items():
        began = time.perf_counter()
        found = [solve(checkpoint, operator, m, method, arguments) for m in y.split(1)]
        seconds = time.perf_counter() - began
        report(f"{task}, {name}", operator, originals, y, found, seconds)
        for row, answers in zip(rows, found, strict=True):
            row.extend(answers)
    return [(task, [Cell(image) for image in to_images(torch.stack(row))]) for row in rows]


@torch.no_grad()
def solve(
    checkpoint: NetworkCheckpoint,
    operator: LinearOperator,
    y: Tensor,
    method: Guidance | Replacement,
    arguments: argparse.Namespace,
) -> Tensor:
    """Several answers [K, C, H, W] to one measurement y [1, ...]."""
    seeds = range(arguments.seed, arguments.seed + arguments.answers)
    null = checkpoint.null_label
    return solve_inverse_problem(
        checkpoint.denoiser(),
        initial_noise(seeds, checkpoint.shape).float(),
        InverseProblem(operator, y),
        method=method,
        sampler=SAMPLER,
        steps=arguments.steps,
        seeds=seeds,
        conditions=checkpoint.conditions(None if null is None else [null] * len(seeds)),
    )


def report(
    name: str,
    operator: LinearOperator,
    originals: Tensor,
    y: Tensor,
    found: list[Tensor],
    seconds: float,
) -> None:
    """Print the three numbers of a task and a method."""
    error = torch.stack([operator.forward(x) - m for x, m in zip(found, y, strict=True)])
    unknown = torch.stack([unmeasured(operator, x) for x in found])
    distance = unknown - unmeasured(operator, originals)[:, None]
    first, second = torch.triu_indices(unknown.shape[1], unknown.shape[1], offset=1)
    between = unknown[:, first] - unknown[:, second]
    print(
        f"{name:35} error {rms(error):.1e}   distance {rms(distance):.3f}   "
        f"diversity {rms(between):.3f}   {seconds:.0f} s"
    )


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


if __name__ == "__main__":
    main()
