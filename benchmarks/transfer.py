"""Tuned samplers away from what they were tuned for: guidance, evaluations, classes, weights.

    python -m benchmarks.transfer --data data/mnist

Samplers of ``assets/tuned/digits`` (tuned without guidance, on all classes) beside the default, on
the bundled digits. Other weights are those after a hundred more steps of training on ``--data``. A
run that was interrupted continues.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.defaults import Errors
from benchmarks.digits import NULL, ROOT, SCHEDULE, SHAPE, Kept, load_model, load_unet
from benchmarks.models import Case
from benchmarks.report import FOLDER, table, write
from benchmarks.tuning import FIRST_SEED, of_network
from samplers import Denoiser, TunedSampler, TuningConfig, classifier_free_guidance, sample, tune
from samplers.training import LabelDropout, TrainingConfig, denoising_loss, train

sys.path.insert(0, str(ROOT / "examples" / "digits"))
from mnist import digits

KEPT, RUN = FOLDER / "transfer.json", ROOT / "runs" / "benchmarks" / "raw"
SAMPLES = 20
GUIDANCES, GUIDED = (1.0, 1.5, 2.0, 3.0), (5, 8)
NUMBERS, FROM = (5, 6, 7, 8, 10), 8
ALL, TAUGHT = range(10), range(5)
TAUGHT_NFE = 5
CONFIG = TuningConfig(held_out=32, iterations=60, batch_size=8, teacher_steps=50)
TRAINED_ON = 96
RAW = TrainingConfig(steps=100, batch_size=64, learning_rate=3e-4, average_decay=0.0)


class Row(NamedTuple):
    """What is measured, by whose sampler, and with how many evaluations of a sample."""

    case: Case
    tuned: TunedSampler
    nfe: int

    def measure(self) -> tuple[Errors, Errors]:
        """The errors of the tuned sampler, and those of the default."""
        x_T, model = self.case.noise, self.case.model
        with torch.no_grad():
            found = sample(model, x_T, sampler=self.tuned), sample(model, x_T, steps=self.nfe)
            own, default = (Errors.of(self.case.errors(x_0)) for x_0 in found)
        return own, default


def digits_case(model: Denoiser, classes: Sequence[int] = ALL) -> Case:
    labels = torch.tensor([classes[i % len(classes)] for i in range(SAMPLES)])
    conditions = {"class_labels": labels}
    seeds = range(SAMPLES)
    return Case("digits", "pixel", model, conditions, SHAPE, seeds, converged=("unipc-3", 100))


@cache
def network() -> Denoiser:
    return load_model()[0]


@cache
def guided(scale: float) -> Case:
    towards = classifier_free_guidance(network(), {"class_labels": NULL}, scale)
    return digits_case(network() if scale == 1 else towards)


def of_guidance(data: Path) -> Iterator[tuple[str, Row]]:
    for nfe in GUIDED:
        for scale in GUIDANCES:
            for name, tuned_at in (("digits", 1), ("digits-guidance-2", 2)):
                tuned = of_network(name).get(nfe)
                if tuned is not None:
                    words = f"guidance {scale:g}, NFE {nfe}: tuned at {tuned_at}"
                    yield words, Row(guided(scale), tuned, nfe)


def of_numbers(data: Path) -> Iterator[tuple[str, Row]]:
    shipped = of_network("digits")
    for nfe in NUMBERS:
        words = f"NFE {nfe}: interpolated from {FROM}" if nfe != FROM else f"NFE {nfe}: tuned there"
        yield words, Row(guided(1), shipped[FROM].resampled(nfe), nfe)
        if nfe != FROM and nfe in shipped:
            yield f"NFE {nfe}: tuned there", Row(guided(1), shipped[nfe], nfe)


def of_classes(data: Path) -> Iterator[tuple[str, Row]]:
    for classes, words in ((TAUGHT, "0 to 4"), (range(5, 10), "5 to 9")):
        case = digits_case(network(), classes)
        yield f"classes {words}: tuned on 0 to 4", Row(case, taught(), TAUGHT_NFE)
        yield f"classes {words}: tuned on all", Row(case, of_network("digits")[5], TAUGHT_NFE)


@cache
def taught() -> TunedSampler:
    """A sampler that was tuned on half the classes."""
    x_T = network().initial(SHAPE, range(FIRST_SEED, FIRST_SEED + TRAINED_ON))
    labels = torch.tensor([TAUGHT[i % len(TAUGHT)] for i in range(TRAINED_ON)])
    conditions = {"class_labels": labels}
    return tune(network(), x_T, TAUGHT_NFE, conditions=conditions, config=CONFIG, progress=True)


def of_weights(data: Path) -> Iterator[tuple[str, Row]]:
    case = digits_case(Denoiser(trained_on(data), SCHEDULE, "v_prediction"))
    for nfe in (5, 8, 10):
        tuned = of_network("digits")[nfe]
        yield f"NFE {nfe}: weights it was tuned for", Row(guided(1), tuned, nfe)
        yield f"NFE {nfe}: a hundred more steps of training", Row(case, tuned, nfe)


def trained_on(data: Path) -> nn.Module:
    """The bundled network after more training, without the average of weights."""
    unet = load_unet().train()
    model = Denoiser(unet, SCHEDULE, "v_prediction")
    objective = denoising_loss(model, ("class_labels",), LabelDropout(0.1, NULL))
    return train(unet, digits(data, "train"), objective, RAW, RUN).eval()


PARTS = {
    "Another guidance": of_guidance,
    "Another number of evaluations": of_numbers,
    "Other classes": of_classes,
    "Other weights": of_weights,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"))
    data = parser.parse_args().data
    warnings.simplefilter("ignore")
    kept = Kept(KEPT, load_model()[1])
    sections = []
    for title, rows in PARTS.items():
        lines = []
        for words, row in tqdm([*rows(data)], title):
            own, default = (Errors(*e) for e in kept.get(f"{title}: {words}", partial(row.measure)))
            lines.append(
                [
                    words,
                    f"{own.geometric_mean:.3f} ({own.rms:.3f})",
                    f"{default.geometric_mean:.3f} ({default.rms:.3f})",
                    f"{own.geometric_mean / default.geometric_mean:.2f}",
                ]
            )
        sections += [f"## {title}", table(["", "tuned", "default", "ratio"], lines)]
    page = write(
        "transfer",
        "Tuned samplers away from what they were tuned for",
        f"Samplers of [assets/tuned/digits](../../assets/tuned/README.md) on {SAMPLES} samples of "
        "the bundled digits: geometric means of the distance from the converged sample, relative "
        "to its norm, with the root mean square in brackets; the ratio is one of geometric means.",
        *sections,
        "Written by `python -m benchmarks.transfer`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
