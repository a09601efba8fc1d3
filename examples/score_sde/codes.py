"""Latent codes of the bundled digits, as in figure 3 and appendix D of Song et al. 2021.

    python examples/score_sde/codes.py --data data/mnist --output assets/pictures/codes.png

Three uses of the probability-flow ODE, all with ``samplers.checkpoint.Flow``:

- spherical interpolation between the latent codes of two test images;
- one latent code at several temperatures;
- one initial noise at several tolerances: the NFE falls, the image hardly changes.

The arithmetic is that of ``samplers encode``, ``decode`` and ``interpolate``.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from samplers import (
    Adaptive,
    LoadOptions,
    NetworkCheckpoint,
    Recipe,
    initial_noise,
    interpolate,
    load_checkpoint,
    tempered,
)
from samplers.checkpoint import Flow
from samplers.images import Cell, table, to_images, write_png

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "examples" / "digits")]
from mnist import digits  # noqa: E402  a script's neighbour

PAIRS = ((0, 3), (1, 7), (61, 84))
"""Numbers of test images."""
FRAMES = 7
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
LABEL, SEED = 3, 4
CODES = Adaptive("bogacki-shampine", rtol=1e-4, atol=1e-4, max_nfe=2_000)
"""As of `samplers encode`."""
Row = tuple[str, list[Cell]]


def main() -> None:
    parser = argparse.ArgumentParser(description="A figure of latent codes of digits.")
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--output", type=Path, default=Path("codes.png"))
    arguments = parser.parse_args()
    try:
        checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions())
        assert isinstance(checkpoint, NetworkCheckpoint)
        images, labels = digits(arguments.data, "test").tensors
        flow = Flow(checkpoint, checkpoint.settle(Recipe()), CODES, lambda: None)
        with torch.no_grad():
            rows = [between(flow, images[list(pair)], labels[list(pair)]) for pair in PAIRS]
            rows += [temperatures(flow), tolerances(flow)]
        figure = table(
            "Latent codes of assets/digits by the probability-flow ODE", [""] * FRAMES, rows
        )
        write_png(figure, arguments.output, {"pairs": PAIRS, "label": LABEL, "seed": SEED})
    except (ArithmeticError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"The figure is {arguments.output}.")


def between(flow: Flow, images: Tensor, labels: Tensor) -> Row:
    """From one test image to another, unconditionally."""
    null = flow.checkpoint.null_label
    assert null is not None
    codes = flow.encode(images, [null, null]).x
    frames = flow.decode(interpolate(codes[0], codes[1], FRAMES), [null] * FRAMES).x
    first, last = labels.tolist()
    shares = ["first" if i == 0 else "last" if i == FRAMES - 1 else "" for i in range(FRAMES)]
    return f"from {first} to {last}", cells(frames, shares)


def temperatures(flow: Flow) -> Row:
    """One latent code, scaled towards and away from the mean of its distribution."""
    code = initial_noise((SEED,), flow.checkpoint.shape)
    codes = torch.cat([tempered(code, temperature) for temperature in TEMPERATURES])
    found = flow.decode(codes.float(), [LABEL] * len(codes))
    return "temperature", cells(found.x, [f"{temperature:g}" for temperature in TEMPERATURES])


def tolerances(flow: Flow) -> Row:
    """One initial noise, by the tolerance of the ODE solver."""
    drawn = []
    for tolerance in TOLERANCES:
        settings = Adaptive("bogacki-shampine", tolerance, tolerance, max_nfe=1000)
        drawn.append(replace(flow, settings=settings).draw([SEED], [LABEL]))
    counts = [int(found.nfe) for found in drawn]
    lines = [f"{e:g}: NFE {n}" for e, n in zip(TOLERANCES, counts, strict=True)]
    return "tolerance", cells(torch.cat([found.x for found in drawn]), lines)


def cells(images: Tensor, lines: list[str]) -> list[Cell]:
    pairs = zip(to_images(images), lines, strict=True)
    return [Cell(image, line) for image, line in pairs]


if __name__ == "__main__":
    main()
