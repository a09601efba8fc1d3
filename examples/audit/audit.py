"""Search for initial noise whose digits a classifier misclassifies, though they keep their class.

    python examples/audit/audit.py --output assets/pictures/audit.png

The noise moves on a sphere, away from where it started, until the classifier errs. Three searches
have equal numbers of network evaluations, a vector-Jacobian product counted as one:

- steps along the exact gradient of the classifier's surprisal, through the whole sampler;
- the same with AdjointDPM's gradient, that of the ODE along the trajectory;
- random points, at increasing distance.

A digit fools the classifier if it predicts another class than the digit was conditioned on, while a
second classifier, which was trained separately on noisy digits and takes no part in the search,
still predicts that class. Intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from adjoint import AbstractAdjoint, CheckpointAdjoint, ContinuousAdjoint, build_reward
from samplers import (
    CheckpointError,
    LoadOptions,
    NetworkCheckpoint,
    initial_noise,
    load_checkpoint,
    probe_noise,
    sample,
)
from samplers.images import Cell, Figure, table, to_images, write_png

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "digits"))
from classifier import load_classifier  # noqa: E402  a script's neighbour
from noisy_classifier import load_noisy_classifier  # noqa: E402

SAMPLER = "dpmpp-2m"
EVALUATIONS = 3
"""Of a gradient, for each step: of the run, recomputed, and the vector-Jacobian product."""
WITHIN, STRIDE = 0.6, 0.05
"""How far the noise may move, and how far it moves in a step, as angles."""
SHOWN = 8


class Found(NamedTuple):
    """The images [N, 1, 28, 28] of a search, and the predictions of both classifiers.

    Attributes:
        predicted: by the classifier that is to be fooled.
        judged: by the second classifier.
    """

    images: Tensor
    predicted: Tensor
    judged: Tensor


class Audit:
    """The models, and digits that both classifiers get right."""

    def __init__(self, count: int, steps: int) -> None:
        checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions())
        assert isinstance(checkpoint, NetworkCheckpoint)  # the bundled one
        for weight in checkpoint.parameters():
            weight.requires_grad_(False)
        self.model, self.shape, self.steps = checkpoint.denoiser(), checkpoint.shape, steps
        self.classifier = load_classifier(ROOT / "assets" / "digits-classifier")
        network = str(ROOT / "assets" / "digits-classifier")
        self.reward = build_reward("class-surprisal", {"network": network})
        self.second = load_noisy_classifier(ROOT / "assets" / "digits-noisy-classifier")
        self.noise, self.labels = self._right(count)

    def _right(self, count: int) -> tuple[Tensor, Tensor]:
        """Noise of digits of all classes in turn, on which both classifiers are right."""
        labels = torch.arange(2 * count) % 10
        noise = initial_noise(range(2 * count), self.shape).float()
        found = self.found(noise, labels)
        right = ((found.predicted == labels) & (found.judged == labels)).nonzero().flatten()[:count]
        return noise[right], labels[right]

    def sample(
        self, noise: Tensor, labels: Tensor, adjoint: AbstractAdjoint | None = None
    ) -> Tensor:
        return sample(
            self.model,
            noise,
            sampler=SAMPLER,
            steps=self.steps,
            grid="trailing",
            conditions={"labels": labels},
            adjoint=adjoint,
        )

    def surprisal(self, images: Tensor, labels: Tensor) -> Tensor:
        """-log p(label | image) under the classifier that is to be fooled."""
        return self.reward(images, labels)

    @torch.no_grad()
    def found(self, noise: Tensor, labels: Tensor) -> Found:
        images = self.sample(noise, labels).clamp(-1, 1)
        judged: Tensor = self.second(images, torch.zeros(len(images))).argmax(dim=1)
        predicted: Tensor = self.classifier(images).argmax(dim=1)
        return Found(images, predicted, judged)

    def fooled(self, images: Tensor) -> Tensor:
        """Whether the classifier errs: [N]."""
        predicted: Tensor = self.classifier(images.detach().clamp(-1, 1)).argmax(dim=1)
        return predicted != self.labels

    def by_gradient(self, adjoint: AbstractAdjoint, name: str, iterations: int) -> Found:
        """Steps of one length along the gradient, on the sphere and within its cap."""
        noise = self.noise
        for _ in tqdm(range(iterations), name, leave=False):
            noise = noise.detach().requires_grad_()
            images = self.sample(noise, self.labels, adjoint)
            value = self.surprisal(images, self.labels)
            (slope,) = torch.autograd.grad(value.sum(), noise)
            moved = _within(_turned(noise.detach(), slope, STRIDE), self.noise)
            done = self.fooled(images)[:, None, None, None]
            noise = torch.where(done, noise.detach(), moved)
        return self.found(noise.detach(), self.labels)

    @torch.no_grad()
    def at_random(self, draws: int) -> Found:
        """The first of random points, at increasing distance, at which the classifier errs."""
        kept, done = self.noise, torch.zeros(len(self.noise), dtype=torch.bool)
        for number in tqdm(range(draws), "random search", leave=False):
            direction = probe_noise(range(len(kept)), number, self.shape).float()
            noise = _turned(self.noise, direction, WITHIN * (number + 1) / draws)
            errs = self.fooled(self.sample(noise, self.labels)) & ~done
            kept = torch.where(errs[:, None, None, None], noise, kept)
            done = done | errs
        return self.found(kept, self.labels)


def _turned(noise: Tensor, direction: Tensor, angle: float) -> Tensor:
    """The noise, rotated by an angle towards a direction along the sphere of its norm."""
    flat, slope = noise.flatten(1), direction.flatten(1)
    length = flat.norm(dim=1, keepdim=True)
    unit = flat / length
    slope = slope - (slope * unit).sum(dim=1, keepdim=True) * unit
    slope = slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-12)
    turned: Tensor = length * (math.cos(angle) * unit + math.sin(angle) * slope)
    return turned.reshape(noise.shape)


def _within(noise: Tensor, centre: Tensor) -> Tensor:
    """The noise, projected to the angle WITHIN of the centre if it is beyond."""
    cosine = torch.cosine_similarity(noise.flatten(1), centre.flatten(1))
    border = _turned(centre, noise, WITHIN)
    beyond = cosine < math.cos(WITHIN)
    return torch.where(beyond[:, None, None, None], border, noise)


def interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson's interval of 95 %."""
    z = 1.96
    share, spread = successes / count, z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(description="Fool the classifier of digits.")
    parser.add_argument("--count", type=int, default=50, help="digits")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--iterations", type=int, default=15, help="of the gradient searches")
    parser.add_argument("--output", type=Path, default=Path("audit.png"), help="the picture")
    arguments = parser.parse_args()
    try:
        audit = Audit(arguments.count, arguments.steps)
        iterations = arguments.iterations
        budget = iterations * EVALUATIONS * arguments.steps
        searches: dict[str, Callable[[], Found]] = {
            "exact gradient": partial(
                audit.by_gradient, CheckpointAdjoint(), "exact gradient", iterations
            ),
            "AdjointDPM": partial(
                audit.by_gradient, ContinuousAdjoint(order=1), "AdjointDPM", iterations
            ),
            "random search": partial(audit.at_random, iterations * EVALUATIONS),
        }
        found = {"the digits": audit.found(audit.noise, audit.labels)}
        found |= {name: search() for name, search in searches.items()}
        write_png(
            picture(audit, found),
            arguments.output,
            {"steps": arguments.steps, "iterations": iterations},
        )
    except (ArithmeticError, OSError, ValueError, CheckpointError) as error:
        sys.exit(f"error: {error}")
    print(f"{len(audit.labels)} digits, {budget} network evaluations each")
    for name, result in list(found.items())[1:]:
        print(line(name, result, audit.labels))


def line(name: str, found: Found, labels: Tensor) -> str:
    wrong, still = found.predicted != labels, found.judged == labels
    fooled = int((wrong & still).sum())
    low, high = interval(fooled, len(labels))
    return (
        f"| {name} | {int(wrong.sum()) / len(labels):.0%} | {int(still.sum()) / len(labels):.0%} | "
        f"{fooled / len(labels):.0%} ({low:.0%} to {high:.0%}) |"
    )


def picture(audit: Audit, found: dict[str, Found]) -> Figure:
    """A row for each search: its digits, and the predictions of the classifier."""
    rows = []
    for name, result in found.items():
        shown = to_images(result.images[:SHOWN])
        cells = [
            Cell(image, f"predicted {int(label)}")
            for image, label in zip(shown, result.predicted, strict=False)
        ]
        rows.append((name, cells))
    headings = [str(int(label)) for label in audit.labels[:SHOWN]]
    return table("Digits that fool a classifier, by search", headings, rows)


if __name__ == "__main__":
    main()
