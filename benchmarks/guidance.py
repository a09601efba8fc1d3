"""Guidance at equal network evaluations on the bundled digits.

    python -m benchmarks.guidance --data data/mnist

Every kind of guidance takes as many steps of DPM-Solver++(2M) as fit into the same number of
network evaluations, from the same initial noise. The interval is the one that Kynkäänniemi et al.
(2024) found for another network and other images; nothing was chosen by these numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import (
    NULL,
    ROOT,
    SCHEDULE,
    SHAPE,
    Judge,
    frechet_distance,
    load_model,
    real_images,
)
from benchmarks.report import table, write
from samplers import (
    Denoiser,
    GuidanceInterval,
    TrainingConfig,
    adaptive_projected_guidance,
    autoguidance,
    classifier_free_guidance,
    make_grid,
    sample,
)

sys.path.insert(0, str(ROOT / "examples" / "digits"))
from classifier import load_classifier
from train import build_unet, train_unet

IMAGES, NFE, BATCH = 200, 20, 50
SCALE = 2.0
LOW, HIGH = 0.28, 2.9
SAMPLER = "dpmpp-2m"
NOTHING = {"class_labels": NULL}
WEAKER = ROOT / "runs" / "benchmarks" / "weaker"
TRAINING = TrainingConfig(
    steps=400, batch_size=64, learning_rate=1e-3, warmup=16, average_decay=0.99
)
SETS = 30
"""Sets of real images, for the scatter of the distance."""

Guide = Callable[[Denoiser], Denoiser]

GUIDES: dict[str, Guide] = {
    "none": lambda model: model,
    "classifier-free": lambda model: classifier_free_guidance(model, NOTHING, SCALE),
    f"classifier-free, σ/α from {LOW} to {HIGH}": lambda model: classifier_free_guidance(
        model, NOTHING, GuidanceInterval(SCALE, LOW, HIGH)
    ),
    "adaptive projected": lambda model: adaptive_projected_guidance(model, NOTHING, SCALE),
}
"""Those that need no second network."""


def weaker(data: Path) -> Denoiser:
    """The same network after few steps of training, on the noise schedule of the bundled one."""
    average = train_unet(build_unet(0), data, WEAKER, TRAINING).eval()
    return Denoiser(average, SCHEDULE, "v_prediction")


def guides(data: Path) -> dict[str, Guide]:
    worse = weaker(data)
    name = f"autoguidance, by {TRAINING.steps} steps of training"
    return {**GUIDES, name: lambda model: autoguidance(model, worse, SCALE)}


class Run(NamedTuple):
    """Images [N, 1, 28, 28], with the steps and the network evaluations of each."""

    images: Tensor
    steps: int
    nfe: int


def run(model: Denoiser, labels: Tensor) -> Run:
    """Images of these classes, by the most steps whose evaluations fit."""
    steps = max(n for n in range(1, NFE + 1) if nfe_of(model, n) <= NFE)
    parts = [
        sample(
            model,
            model.initial(SHAPE, [int(seed) for seed in seeds]),
            sampler=SAMPLER,
            steps=steps,
            grid="trailing",
            conditions={"class_labels": labels[seeds]},
            return_info=True,
        )
        for seeds in torch.arange(len(labels)).split(BATCH)
    ]
    images = torch.cat([part.x_0 for part in parts]).clamp(-1, 1)
    return Run(images, steps, parts[0].nfe)


def nfe_of(model: Denoiser, steps: int) -> int:
    """The network evaluations of each image, with one evaluation of the model per step."""
    grid = make_grid(SCHEDULE, steps, "trailing")
    return sum(int(model.nfe(grid[step])) for step in range(steps))


def floor(judge: Judge, data: Path) -> str:
    """The distance of sets of real training images, as many as are sampled, to the test images."""
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[: SETS * IMAGES]
    sets = real_images(data, "train")[order].split(IMAGES)
    found = [frechet_distance(judge.classifier.features(each), judge.real) for each in sets]
    return f"{mean(found):.2f} ± {stdev(found):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    data = parser.parse_args().data
    every = guides(data)
    with torch.no_grad():
        model, digest = load_model()
        judge = Judge(load_classifier(ROOT / "assets" / "digits-classifier"), real_images(data))
        labels, rows = torch.arange(IMAGES) % 10, []
        for name, guide in tqdm(every.items()):
            found = run(guide(model), labels)
            law = judge.law(found.images, labels)
            numbers = (f"{law['agreement']:.1%}", f"{law['frechet']:.2f}")
            rows.append([name, str(found.steps), str(found.nfe), *numbers])
        scatter = floor(judge, data)
    page = write(
        "guidance",
        "Guidance at equal NFE on `assets/digits`",
        f"Weights `{digest[:12]}…`. {IMAGES} images, the classes in turn, by `{SAMPLER}` on the "
        f"`trailing` grid with as many steps as fit into {NFE} network evaluations of each image; "
        f"guidance {SCALE:g}. The interval is that of Kynkäänniemi et al. (2024) for ImageNet, "
        "taken over as it is; the weaker network of autoguidance is the same one, less trained.",
        "Fréchet distance to the real test images in the classifier's penultimate features, and "
        "the share of images that the classifier assigns to their class. A distance of so few "
        f"images is too large: {SETS} sets of {IMAGES} real training images have {scatter} "
        "(standard deviation).",
        table(["guidance", "steps", "NFE", "class agreement", "Fréchet distance"], rows),
        "Written by `python -m benchmarks.guidance`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
