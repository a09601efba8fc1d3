"""Reconstruction error of test digits that are encoded and decoded, by method and tolerance.

    python -m benchmarks.codes --data data/mnist

Each digit is encoded and decoded conditionally on its class. Codes of exact data would be standard
normal.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import ROOT, load_model
from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.probability_flow.adaptive import AdaptiveResult
from samplers.probability_flow.codes import decode, encode
from samplers.probability_flow.integration import Adaptive

sys.path.insert(0, str(ROOT / "examples" / "digits"))
from mnist import digits  # of an example

IMAGES = 16
METHODS = ("bogacki-shampine", "dormand-prince")
TOLERANCES = (1e-3, 1e-4, 1e-5)


class RoundTrip(NamedTuple):
    """Encoding and decoding: errors of the images in [-1, 1], mean NFE of both, and the
    deviation of the numbers of the codes."""

    error: float
    worst: float
    calls: float
    deviation: float


def round_trip(model: Denoiser, x_0: Tensor, labels: Tensor, settings: Adaptive) -> RoundTrip:
    """Of images [B, ...] with their classes [B]."""

    def went(way: Callable[..., AdaptiveResult], x: Tensor) -> AdaptiveResult:
        found = way(model, x, conditions={"class_labels": labels}, settings=settings)
        assert bool(found.within_tolerance.all())
        return found

    code = went(encode, x_0)
    back = went(decode, code.x)
    error = back.x - x_0
    return RoundTrip(
        float(error.square().mean().sqrt()),
        float(error.abs().max()),
        float((code.nfe + back.nfe).double().mean()),
        float(code.x.std()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    model, digest = load_model()
    images, labels = digits(arguments.data, "test").tensors
    rows = []
    every = [(method, tolerance) for method in METHODS for tolerance in TOLERANCES]
    for method, tolerance in tqdm(every, "codes"):
        settings = Adaptive(method, rtol=tolerance, atol=tolerance, max_nfe=20_000)
        with torch.no_grad():
            found = round_trip(model, images[:IMAGES], labels[:IMAGES], settings)
        figures = (f"{found.error:.1e}", f"{found.worst:.1e}", f"{found.calls:.0f}")
        rows.append([method, f"{tolerance:g}", *figures, f"{found.deviation:.3f}"])
    head = ["method", "tolerance", "RMS error", "largest error of a pixel",
            "NFE, encoding and decoding", "standard deviation of codes"]  # fmt: skip
    path = write(
        "codes",
        "Reconstruction from latent codes",
        f"The first {IMAGES} test digits, encoded by the probability-flow ODE and decoded again, "
        f"each conditioned on its class, by `assets/digits` (weights `{digest[:12]}…`) in float32; "
        "pixels lie in [-1, 1].",
        table(head, rows),
        "Written by `python -m benchmarks.codes`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
