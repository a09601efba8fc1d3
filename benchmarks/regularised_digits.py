"""The effect of penalties on the digits network: residual, gap, quality, NFE of a solver.

    python -m benchmarks.regularised_digits --data data/mnist [--runs runs/regularised]
        [--device cuda]

Measures the bundled network and those that ``examples/fokker_planck/train_digits.py`` trained
further, without a penalty and with each. A run is measured once and kept in
``docs/benchmarks/regularised_digits.json``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adjoint import residual_profile
from adjoint.fokker_planck import debiased, sliced_wasserstein
from benchmarks.digits import ROOT, Judge, Kept, real_images
from benchmarks.report import mean_and_error, table, write
from samplers.checkpoint import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint
from samplers.images.figures import curves
from samplers.images.files import write_png
from samplers.noise import initial_noise
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.probability_flow.integration import Adaptive

sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]
from classifier import load_classifier  # noqa: E402  an example's

from examples.fokker_planck.train_digits import CHECKPOINT, run_folder  # noqa: E402

KEPT = ROOT / "docs" / "benchmarks" / "regularised_digits.json"
PICTURE = ROOT / "assets" / "pictures" / "regularised-residual.png"
COUNT, BATCH, PARTS = 1000, 100, 5
"""Images of either sampler, those sampled at once, and the sets that are compared."""
STEPS = 25
ODE, SDE = "dpmpp-2m", "sde-dpmpp-2m"
LEVELS = np.geomspace(0.03, 40, 9).tolist()
NOISY, PROBES = 32, 4
TOLERANCE, SOLVED = 1e-3, 50
TRIED = (
    *(("none", 0.0), ("residual", 0.1), ("residual", 1.0)),
    *(("solver-cost", 500.0), ("solver-cost", 2000.0)),
)


def _title(name: str, weight: float) -> str:
    return "no penalty" if name == "none" else f"{name} penalty, weight {weight:g}"


RUNS = {
    "bundled network": CHECKPOINT,
    **{_title(*tried): run_folder(Path(), *tried) / "pipeline" for tried in TRIED},
}


def load(path: Path, device: torch.device) -> NetworkCheckpoint:
    checkpoint = load_checkpoint(path, LoadOptions(device=device))
    assert isinstance(checkpoint, NetworkCheckpoint)
    return checkpoint


@torch.no_grad()
def measure(path: Path, data: Path, device: torch.device) -> dict[str, Any]:
    checkpoint, real = load(path, device), real_images(data, "test")
    judge = Judge(load_classifier(ROOT / "assets" / "digits-classifier"), real)
    labels = torch.arange(COUNT) % 10
    ode = images(checkpoint, ODE, range(COUNT))
    sde = images(checkpoint, SDE, range(COUNT, 2 * COUNT))
    pairs = zip(ode.chunk(PARTS), sde.chunk(PARTS), strict=True)
    gaps = [debiased(a, b, sliced_wasserstein) for a, b in pairs]
    return {
        "gap": mean_and_error(gaps),
        "frechet_ode": judge.law(ode, labels)["frechet"],
        "frechet_sde": judge.law(sde, labels)["frechet"],
        "agreement_sde": judge.law(sde, labels)["agreement"],
        "residual": residuals(checkpoint, real[:NOISY]),
        "nfe": mean_and_error(calls(checkpoint)),
    }


def images(checkpoint: NetworkCheckpoint, sampler: str, seeds: Sequence[int]) -> Tensor:
    recipe = checkpoint.settle(Recipe(sampler=sampler, steps=STEPS, grid="trailing"))
    drawn = []
    for first in tqdm(range(0, len(seeds), BATCH), sampler, leave=False):
        own = seeds[first : first + BATCH]
        classes = [s % 10 for s in own]
        drawn.append(checkpoint.draw(recipe, own, classes, lambda: None).cpu())
    return torch.cat(drawn).clamp(-1, 1)


def residuals(checkpoint: NetworkCheckpoint, x0: Tensor) -> list[tuple[float, float, float]]:
    """(rho, the mean of |R|^2 / d, its standard error), at real digits without a label."""
    checkpoint.network.double()
    x0 = x0.to(checkpoint.device).double()
    none = checkpoint.conditions([checkpoint.null_label or 0] * NOISY)
    model = checkpoint.denoiser()
    levels, _ = residual_profile(model, x0, LEVELS, conditions=none, probes=PROBES)
    checkpoint.network.float()
    return [(level.rho, level.squared, level.error) for level in levels]


def calls(checkpoint: NetworkCheckpoint) -> list[int]:
    """NFE of each image at the tolerance."""
    model, seeds = checkpoint.denoiser(), tuple(range(SOLVED))
    x_T = initial_noise(seeds, checkpoint.shape).float() * float(model.schedule.noisiest.sigma)
    found = sample_adaptive(
        model,
        x_T.to(checkpoint.device),
        conditions=checkpoint.conditions([seed % 10 for seed in seeds]),
        settings=Adaptive(rtol=TOLERANCE, atol=TOLERANCE),
        sigma_min=0.02,
    )
    return [int(nfe) for nfe in found.nfe]


# ------------------------------------------------------------------------------------ the report


Results = dict[str, dict[str, Any]]


def quality(results: Results) -> str:
    rows = []
    for name, found in results.items():
        total = [level[1] for level in found["residual"]]
        errors = [level[2] for level in found["residual"]]
        rows.append(
            [
                name,
                f"{np.mean(total):.4f} ± {np.linalg.norm(errors) / len(errors):.4f}",
                "{:.2f} ± {:.2f}".format(*found["gap"]),
                f"{found['frechet_ode']:.2f}",
                f"{found['frechet_sde']:.2f}",
                f"{found['agreement_sde']:.1%}",
                "{:.1f} ± {:.1f}".format(*found["nfe"]),
            ]
        )
    head = ["network", "residual", "ODE-SDE distance", "Fréchet distance, ODE",
            "Fréchet distance, SDE", "class agreement, SDE", "NFE, adaptive"]  # fmt: skip
    return table(head, rows)


def picture(results: Results) -> None:
    lines = {
        name: [(rho, math.sqrt(max(squared, 0.0))) for rho, squared, _ in
               found["residual"]]
        for name, found in results.items()
    }  # fmt: skip
    figure = curves(lines, "noise level sigma / alpha", "residual, root mean square", log_x=True)
    write_png(figure, PICTURE, {"images": NOISY})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    parser.add_argument("--runs", type=Path, default=Path("runs/regularised"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    kept = Kept(KEPT, "in 400 steps from seed 0")
    for name, path in RUNS.items():
        place = path if path.is_absolute() else arguments.runs / path
        if name in kept.read() or place.exists():
            kept.get(name, partial(measure, place, arguments.data, arguments.device))
    results = {name: kept.read()[name] for name in RUNS if name in kept.read()}
    picture(results)
    print(
        write(
            "regularised_digits",
            "Penalties on the digit model",
            "The bundled network, and the same after 400 more training steps with batch size 32 by "
            "`examples/fokker_planck/train_digits.py`: without a penalty, with a penalty on the "
            "Fokker-Planck residual, and with one on the local error of an adaptive solver.",
            "The residual is the mean of |R|²/d over nine noise levels from 0.03 to 40 and "
            f"{NOISY} real digits. The ODE-SDE distance is the squared sliced Wasserstein distance "
            f"between {COUNT:,} images of `{ODE}` and as many of `{SDE}` in {STEPS} steps, minus "
            "its expectation for two sets of one distribution; mean and standard error over "
            f"{PARTS} parts. The Fréchet distances are those of the same images to real ones. The "
            f"last column is the mean NFE of `{Adaptive().method}` at a tolerance of "
            f"{TOLERANCE:g} over {SOLVED} digits.",
            quality(results),
            "Written by `python -m benchmarks.regularised_digits`.",
        )
    )


if __name__ == "__main__":
    main()
