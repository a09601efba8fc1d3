"""Bits per dimension under the bundled digit model, of digits and of Fashion-MNIST.

    python -m benchmarks.likelihood --data data/mnist --fashion data/fashion

The first 500 test digits, each conditioned on its class, and 500 images of Fashion-MNIST, each
conditioned on the digit with the number of its class. Results are stored in
``docs/benchmarks/likelihood.json`` in batches of fifty; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import CPU, ROOT, SCHEDULE, Kept, load_model
from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.images.figures import histogram
from samplers.images.files import write_png
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import bits_per_dim, dequantised, log_likelihood

sys.path.insert(0, str(ROOT / "examples" / "digits"))
from fetch_fashion import clothes
from mnist import FILES, read_idx

KEPT = ROOT / "docs" / "benchmarks" / "likelihood.json"
PICTURE = ROOT / "assets" / "pictures" / "likelihood.png"
IMAGES, BATCH, CLASSES = 500, 50, 10
SETTINGS = Adaptive("bogacki-shampine", rtol=1e-3, atol=1e-3, max_nfe=2_000)

Batches = Sequence[tuple[Tensor, Tensor]]
"""Pairs of images, as bytes, and classes."""


def digits(data: Path) -> Batches:
    images, labels = (torch.from_numpy(read_idx(data / n).copy()) for n in FILES["test"])
    chosen = images[:IMAGES, None], labels[:IMAGES].long()
    return list(zip(*(column.split(BATCH) for column in chosen), strict=True))


def fashion(folder: Path) -> Batches:
    own = [clothes(folder, label)[: IMAGES // CLASSES] for label in range(CLASSES)]
    images = torch.stack(own, dim=1).flatten(0, 1)
    labels = torch.arange(IMAGES) % CLASSES
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def measure(
    model: Denoiser,
    device: torch.device,
    images: Tensor,
    labels: Tensor,
    first: int,
) -> list[float]:
    """Bits per dimension of a batch; the seed of an image is its index in the set."""
    seeds = range(first, first + len(images))
    found = log_likelihood(
        model,
        dequantised(images, seeds).float().to(device),
        seeds=seeds,
        conditions={"class_labels": labels.to(device)},
        settings=SETTINGS,
    )
    assert bool(found.within_tolerance.all())
    bits: list[float] = bits_per_dim(found.log_prob, images[0].numel()).tolist()
    return bits


def all_bits(
    kept: Kept, measured: Callable[[Tensor, Tensor, int], list[float]], name: str, batches: Batches
) -> Tensor:
    bits: list[float] = []
    for number, (images, labels) in enumerate(tqdm(batches, name)):
        bits += kept.get(f"{name} {number}", partial(measured, images, labels, number * BATCH))
    return torch.tensor(bits)


def row(name: str, bits: Tensor) -> list[str]:
    error = float(bits.std()) / math.sqrt(len(bits))
    ends = [f"{float(bits.quantile(q)):.2f}" for q in (0.05, 0.5, 0.95)]
    return [name, str(len(bits)), f"{float(bits.mean()):.3f} ± {error:.3f}", *ends]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--fashion", type=Path, default=Path("data/fashion"))
    parser.add_argument("--device", type=torch.device, default=CPU)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    model, digest = load_model(arguments.device)
    kept, measured = Kept(KEPT, digest), partial(measure, model, arguments.device)
    with torch.no_grad():
        sets = {
            "digits": all_bits(kept, measured, "digits", digits(arguments.data)),
            "clothes": all_bits(kept, measured, "clothes", fashion(arguments.fashion)),
        }
    write_png(histogram(sets, "bits per dimension"), PICTURE, {"images": IMAGES})
    head = ["images", "number", "bits/dim, mean", "5 % quantile", "median", "95 % quantile"]
    path = write(
        "likelihood",
        "Likelihood under `assets/digits`",
        "Upper bounds of the negative log-likelihood in bits per dimension, by the "
        "probability-flow ODE: images are dequantised by uniform noise and noised to the cleanest "
        f"trained level (sigma / alpha = {float(SCHEDULE.cleanest.rho):.3f}); `{SETTINGS.method}` "
        f"at rtol = atol = {SETTINGS.rtol:g} in float32, one Rademacher probe per image. The "
        "standard error is that of the mean over the images. Each digit is conditioned on its "
        "class, each image of clothes (Fashion-MNIST) on the digit with the number of its class.",
        table(head, [row(name, bits) for name, bits in sets.items()]),
        "![Bits per dimension of digits and of clothes](../../assets/pictures/likelihood.png)",
        "Written by `python -m benchmarks.likelihood`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
