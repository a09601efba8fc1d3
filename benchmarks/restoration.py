"""Restored photographs by degradation, sampler and NFE.

    python -m benchmarks.restoration --data data/cifar10

Test images of CIFAR-10, each degraded in a way that is the same for all samplers. PSNR and SSIM
compare an image with the one that it was; they are highest for the mean of all images that it may
have been, which is blurred. The patch distance compares all restored images with all originals as
sets, so that a blurred answer costs: the sliced Wasserstein distance of their 7 x 7 patches.

A cell is measured once and kept in ``docs/benchmarks/restoration.json``, so a run that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import Kept
from benchmarks.report import table, write
from samplers import SamplerScheduler, load_sampler
from samplers.checkpoint import LoadOptions, load_restoration
from samplers.diffusers.restoration import RestorationPipeline
from samplers.noise import RowNoise, initial_noise
from samplers.restoration import degrade, psnr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from examples.restoration.train import Photographs  # noqa: E402  of an example

CHECKPOINT = ROOT / "assets" / "restore"
KEPT = ROOT / "docs" / "benchmarks" / "restoration.json"
NFE = (1, 2, 5, 10, 20, 50, 100)
COUNT, PATCH, DIRECTIONS = 64, 7, 256
METHODS = {
    "posterior sampling, respaced (`mr-sde-d-1`)": "mr-sde-d-1",
    "DDIM (`mr-ode-d-1`)": "ddim",
    "`mr-ode-d-2`": "mr-ode-d-2",
    "`mr-sde-d-2`": "mr-sde-d-2",
    "`mr-ode-n-2`": "mr-ode-n-2",
}
TUNED = ROOT / "assets" / "tuned" / "restore"
FEW, FEW_METHODS = (3, 5), ("mr-sde-d-1", "ddim", "mr-ode-d-2", "tuned")
LEGACY = "posterior sampling, subsampled as published (legacy)"


# -------------------------------------------------------------------------------------- metrics


def ssim(images: Tensor, clean: Tensor) -> float:
    """Structural similarity in Gaussian windows of 11 x 11 pixels (Wang et al. 2004)."""
    x, y = ((v.clamp(-1, 1).double() + 1) / 2 for v in (images, clean))
    places = torch.arange(-5, 6.0).double()
    line = torch.exp(-places.square() / (2 * 1.5**2))
    window = (line[:, None] * line[None, :] / line.sum().square())[None, None]

    def mean(v: Tensor) -> Tensor:
        return F.conv2d(v.flatten(0, 1)[:, None], window)

    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    one, two = 0.01**2, 0.03**2
    found = (2 * mx * my + one) * (2 * xy + two)
    return float((found / ((mx * mx + my * my + one) * (xx + yy + two))).mean())


def patch_distance(images: Tensor, clean: Tensor) -> float:
    """The sliced Wasserstein distance W_1 of the sets of all patches, in levels of 255."""
    size = PATCH * PATCH * images.shape[1]
    directions = torch.randn(DIRECTIONS, size, generator=torch.Generator().manual_seed(0))
    directions = F.normalize(directions, dim=1)

    def sliced(x: Tensor) -> Tensor:
        patches = F.unfold(x.clamp(-1, 1), PATCH).transpose(1, 2).flatten(0, 1)
        return (patches @ directions.T).sort(dim=0).values

    distance = (sliced(images) - sliced(clean)).abs().mean()
    return float(distance) * 255 / 2


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "psnr": lambda images, clean: float(psnr(images, clean).mean()),
    "ssim": ssim,
    "patches": patch_distance,
}


# ------------------------------------------------------------------------------------ restoring


class Bench:
    """The pipeline and the test images."""

    def __init__(self, data: Path, device: torch.device) -> None:
        self.pipe = load_restoration(CHECKPOINT, LoadOptions(device=device))
        weights = (CHECKPOINT / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        self.digest = hashlib.sha256(weights).hexdigest()
        self.kept = Kept(KEPT, self.digest)
        photographs = Photographs(data, "test")
        # Spread over the test set; the first are looked at while the network is trained.
        places = range(100, len(photographs), (len(photographs) - 100) // COUNT)
        self.clean = torch.stack([photographs[i][0] for i in places][:COUNT])
        self.seeds = tuple(range(COUNT))

    def degraded(self, task: str) -> Tensor:
        return degrade(self.clean, [task], self.seeds)

    def cell(self, task: str, method: str, nfe: int) -> dict[str, float]:
        """The metrics of a method on a degradation at some NFE."""

        def measure() -> dict[str, float]:
            mu = self.degraded(task)
            if method == LEGACY:
                found = legacy_subsampled(self.pipe, mu, task, self.seeds, nfe)
            else:
                tuned = load_sampler(TUNED / f"restore-{nfe}.json") if method == "tuned" else None
                self.pipe.scheduler = SamplerScheduler.from_config(
                    self.pipe.scheduler.config, sampler=tuned or method
                )
                found = self.pipe.restore(mu, [task] * COUNT, self.seeds, nfe)
            return {name: metric(found, self.clean) for name, metric in METRICS.items()}

        found: dict[str, float] = self.kept.get(f"{task} {method} {nfe}", measure)
        return found

    def before(self, task: str) -> dict[str, float]:
        mu = self.degraded(task)
        return {name: metric(mu, self.clean) for name, metric in METRICS.items()}


def legacy_subsampled(
    pipe: RestorationPipeline, mu: Tensor, task: str, seeds: tuple[int, ...], nfe: int
) -> Tensor:
    """The published baseline at fewer than T steps, which does not reach x_0.

    It evaluates the network at n of the T times, but takes one of the T trained steps after each:
    x covers n / T of the process while the network is conditioned on the times of all of it.
    """
    mu, process, noise = mu.to(pipe.device), pipe.process, RowNoise(seeds, tuple(mu.shape[1:]))
    schedule = process.schedule
    labels = torch.full((len(mu),), list(pipe.config.tasks).index(task), device=pipe.device)
    y = initial_noise(seeds, mu.shape[1:]).to(mu)
    model = process.denoiser(pipe._network)
    for row, t in enumerate(torch.linspace(schedule.steps, 1, nfe).round().double()):
        b, c = (float(schedule.alpha(time)) for time in (t, t - 1))
        a = b / c
        y0 = model(y, t.to(mu).expand(len(mu)), mu=mu, task=labels)
        mean = a * (1 - c * c) / (1 - b * b) * y + c * (1 - a * a) / (1 - b * b) * y0
        variance = (1 - a * a) * (1 - c * c) / (1 - b * b)
        y = mean + variance**0.5 * noise(row).to(mu)
    return process.to_x(y, mu).cpu()


# ----------------------------------------------------------------------------------- the report


def rows_of(bench: Bench, metric: str, task: str) -> list[list[str]]:
    digits = {"psnr": ".2f", "ssim": ".3f", "patches": ".2f"}[metric]
    methods = {**METHODS, LEGACY: LEGACY}
    return [
        [name, *(format(bench.cell(task, method, nfe)[metric], digits) for nfe in NFE)]
        for name, method in methods.items()
    ]


def summary(bench: Bench) -> str:
    """10 NFE beside the highest PSNR at 100 NFE, by degradation."""
    rows = []
    for task in bench.pipe.config.tasks:
        tens = {f"`{method}`": bench.cell(task, method, 10) for method in METHODS.values()}
        hundreds = {f"`{method}`": bench.cell(task, method, 100) for method in METHODS.values()}
        best = max(hundreds, key=lambda name: hundreds[name]["psnr"])
        reached = [name for name in tens if keeps_up(tens[name], hundreds[best])]
        before = bench.before(task)
        rows.append(
            [
                task,
                both(before),
                both(tens["`mr-ode-d-2`"]),
                f"{both(hundreds[best])}, {best}",
                ", ".join(f"{name} ({both(tens[name])})" for name in reached) or "none",
            ]
        )
    head = ["degradation", "degraded image", "`mr-ode-d-2`, 10 NFE", "best sampler, 100 NFE",
            "samplers as good at 10 NFE"]  # fmt: skip
    return table(head, rows)


def few(bench: Bench) -> str:
    """PSNR and patch distance with few evaluations, in the mean over the degradations."""
    rows = []
    for method in FEW_METHODS:
        row = [f"`{method}`" if method != "tuned" else method]
        for nfe in FEW:
            cells = [bench.cell(task, method, nfe) for task in bench.pipe.config.tasks]
            row.append(both({name: mean(cell[name] for cell in cells) for name in METRICS}))
        rows.append(row)
    return table(["sampler", *(f"NFE {nfe}" for nfe in FEW)], rows)


def keeps_up(ours: dict[str, float], best: dict[str, float]) -> bool:
    """Whether it is within 2 % in PSNR and 10 % in patch distance, or better."""
    return ours["psnr"] >= 0.98 * best["psnr"] and ours["patches"] <= 1.1 * best["patches"]


def both(cell: dict[str, float]) -> str:
    return f"{cell['psnr']:.2f} / {cell['patches']:.2f}"


def report(bench: Bench) -> Path:
    parts: list[str] = []
    names = {"psnr": "PSNR", "ssim": "SSIM", "patches": "patch distance"}
    for task in bench.pipe.config.tasks:
        before = bench.before(task)
        parts.append(f"## {task}")
        for metric, name in names.items():
            parts.append(f"{name}; the degraded images have {before[metric]:.3g}:")
            parts.append(table([f"{name} by NFE", *map(str, NFE)], rows_of(bench, metric, task)))
    return write(
        "restoration",
        "Restoration by sampler and NFE",
        f"{COUNT} test images of CIFAR-10 with ten degradations; weights "
        f"`{bench.digest[:12]}…`. Higher is better for PSNR (in dB) and SSIM, lower for the patch "
        "distance (sliced Wasserstein distance of 7 x 7 patches, in grey levels of 255). At one "
        "NFE the result is the network's prediction of x_0 for every sampler but the legacy one.",
        "Each cell is PSNR / patch distance. The best sampler at 100 NFE is that of the highest "
        "PSNR; a sampler is as good at 10 NFE if it is within 2 % in PSNR and 10 % in patch "
        "distance of it, or better:",
        summary(bench),
        "With few evaluations, in the mean over the degradations; the last row are the samplers of "
        "[assets/tuned](../../assets/tuned/README.md), which were learned on training images:",
        few(bench),
        *parts,
        "Written by `python -m benchmarks.restoration`.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--task", help="measure this degradation alone, write no report")
    arguments = parser.parse_args()
    with torch.no_grad():
        bench = Bench(arguments.data, arguments.device)
        methods: list[str] = [*METHODS.values(), LEGACY]
        cells: list[Callable[[], Any]] = [
            partial(bench.cell, task, method, nfe)
            for nfe in NFE
            for task in bench.pipe.config.tasks
            if arguments.task in (None, task)
            for method in methods
        ]
        for cell in tqdm(cells, "cells"):
            cell()
        if arguments.task is None:
            print(report(bench).read_text())


if __name__ == "__main__":
    main()
