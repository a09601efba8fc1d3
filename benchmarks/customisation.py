"""Fine-tuning by a reward: an effect as an embedding, and a style as weights.

    python -m benchmarks.customisation

The runs of ``examples/effects/bold.toml`` and ``examples/style/glow.toml``, and their alternatives
at equal numbers of network evaluations, a vector-Jacobian product counted as one, or as two if
weights are trained. Each is a run of ``adjoint finetune`` in ``runs/``, and is resumed if it was
interrupted.

A sampled digit is a success if it has more of the effect than 95 of 100 digits of its class had
before, and is still classified as its class by a second classifier, which no run has used. The
effect is measured by other means than the reward: as ink, and as grey levels between ink and
paper.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from adjoint.finetune import (
    FinetuneConfig,
    OptimiseWeights,
    read_finetune_config,
    run_finetuning,
)
from adjoint.finetune.models import NetworkModel, load_model
from adjoint.rewards import build_reward
from benchmarks.report import table, write
from samplers.checkpoint import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]
from noisy_classifier import load_noisy_classifier  # noqa: E402  of an example

from examples.audit.audit import interval  # noqa: E402  of an example

SHOWN, FIRST, QUANTILE = 500, 100_000, 0.95
"""Digits that are measured, the seed of the first, and the quantile to exceed."""


def ink(images: Tensor) -> Tensor:
    """The share of the image that is ink: [B]."""
    return ((images.clamp(-1, 1) + 1) / 2).mean((1, 2, 3))


def halo(images: Tensor) -> Tensor:
    """The share of the image that is neither ink nor paper, between levels 0.15 and 0.7: [B]."""
    level = (images + 1) / 2
    return ((level > 0.15) & (level < 0.7)).double().mean((1, 2, 3))


@dataclass(frozen=True)
class Task:
    """A config, the measure of its effect, and the adjoints that are compared."""

    name: str
    config: str
    effect: Callable[[Tensor], Tensor]
    adjoints: tuple[tuple[str, dict[str, Any]], ...]


EXACT: tuple[str, dict[str, Any]] = ("exact gradient, `CheckpointAdjoint()`", {})
ADJOINT_DPM = (
    "AdjointDPM, `ContinuousAdjoint()`",
    {"adjoint": {"name": "continuous", "order": 1}},
)
LAST = (
    "the last step alone, `TruncatedAdjoint(1)`",
    {"adjoint": {"name": "truncated", "last": 1}},
)
TASKS = (
    Task("effect", "examples/effects/bold.toml", ink, (EXACT, ADJOINT_DPM, LAST)),
    Task("style", "examples/style/glow.toml", halo, (EXACT, ADJOINT_DPM, LAST)),
)


# --------------------------------------------------------------------------------- evaluations


def evaluations(config: FinetuneConfig) -> int:
    """Network evaluations of one image and its gradient."""
    model = load_model(config, torch.device("cpu"))
    assert isinstance(model, NetworkModel)  # digits are sampled without a prompt
    cost = config.adjoint.cost(model.tableau)
    product = 2 if isinstance(config.optimised, OptimiseWeights) else 1
    return cost.forward + cost.recomputed + product * cost.vjps


def equal(task: Task, changes: dict[str, Any]) -> FinetuneConfig:
    """The config with changes, and as many steps as need as many evaluations as the original."""
    first = read_finetune_config(ROOT / task.config)
    folder = "-".join([first.output.name, *(str(v) for v in changes.get("adjoint", {}).values())])
    config = read_finetune_config(ROOT / task.config, {**changes, "output": f"runs/{folder}"})
    steps = first.training.steps * evaluations(first) // evaluations(config)
    return replace(config, training=replace(config.training, steps=steps))


# ----------------------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Judge:
    """The effect of digits before training, and the classifier that judges them."""

    network: Callable[[Tensor, Tensor], Tensor]
    effect: Callable[[Tensor], Tensor]
    bar: Tensor

    @classmethod
    def of(cls, effect: Callable[[Tensor], Tensor]) -> Judge:
        before = effect(sampled(ROOT / "assets" / "digits", FIRST + SHOWN))
        bars = [before[c::10].quantile(QUANTILE) for c in range(10)]
        network = load_noisy_classifier(ROOT / "assets" / "digits-noisy-classifier")
        return cls(network, effect, torch.stack(bars))

    def rows(self, images: Tensor) -> list[str]:
        """Shares of digits that have the effect, are classified as their class, and both."""
        labels = torch.arange(len(images)) % 10
        has = self.effect(images) > self.bar[labels]
        seen = self.network(images.clamp(-1, 1), torch.zeros(len(images))).argmax(dim=1)
        read = seen == labels
        return [share(has), share(read), f"{share(has & read)} ({within(has & read)})"]


def sampled(folder: Path, first: int) -> Tensor:
    """Digits of a checkpoint, the classes in turn."""
    checkpoint = load_checkpoint(folder, LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    recipe = checkpoint.settle(Recipe(sampler="dpmpp-2m", steps=10, grid="trailing"))
    batches = [range(start, start + 100) for start in range(first, first + SHOWN, 100)]
    labels = [i % 10 for i in range(100)]
    return torch.cat([checkpoint.draw(recipe, seeds, labels, lambda: None) for seeds in batches])


def share(hits: Tensor) -> str:
    return f"{float(hits.double().mean()):.0%}"


def within(hits: Tensor) -> str:
    """The interval of 95 %."""
    low, high = interval(int(hits.sum()), len(hits))
    return f"{low:.0%} to {high:.0%}"


# ------------------------------------------------------------------------------- random search


def random_search(config: FinetuneConfig, budget: int, folder: Path) -> Path:
    """Hill climbing by random changes, each accepted if it is better on the same noise.

    Two runs on one batch are compared for each change. Returns the checkpoint that was found.

    Args:
        config: the run to compare with.
        budget: network evaluations.
        folder: of the checkpoint.
    """
    saved = folder / "checkpoint"
    if saved.exists():
        return saved
    model = load_model(config, torch.device("cpu"))
    trained = model.trainable(config.optimised, config.training.seed)
    learned = [weight for weight in trained.parameters() if weight.requires_grad]
    terms = [(t.weight, build_reward(t.name, t.options)) for t in config.rewards]
    generator = torch.Generator().manual_seed(config.training.seed)
    assert isinstance(model, NetworkModel)
    size, per_image = config.training.batch_size, model.tableau.calls
    turn = model.conditions
    condition = torch.tensor([turn[i % len(turn)] for i in range(size)])

    def value(seeds: list[int]) -> float:
        images = model.sample(trained, seeds, condition, None)
        return float(sum(w * reward(images, condition).mean() for w, reward in terms))

    scale = config.training.learning_rate
    for _ in tqdm(range(budget // (2 * size * per_image)), "random search", leave=False):
        seeds = torch.randint(2**62, (size,), generator=generator).tolist()
        before = value(seeds)
        changes = [scale * torch.randn(w.shape, generator=generator) for w in learned]
        for weight, change in zip(learned, changes, strict=True):
            weight.data += change
        better = value(seeds) > before
        # One in five should succeed (Rechenberg 1973).
        scale *= 1.5 if better else 1.5**-0.25
        if not better:
            for weight, change in zip(learned, changes, strict=True):
                weight.data -= change
    folder.mkdir(parents=True, exist_ok=True)
    model.save(trained, config.optimised, folder)
    return saved


# ---------------------------------------------------------------------------------- the report


def measure(task: Task) -> tuple[str, str]:
    """The table of a task, and a line on what it cost."""
    judge = Judge.of(task.effect)
    first = equal(task, {})
    budget = first.training.steps * first.training.batch_size * evaluations(first)
    rows = [["before", "-", *judge.rows(sampled(ROOT / "assets" / "digits", FIRST))]]
    for name, changes in task.adjoints:
        config = equal(task, changes)
        with torch.enable_grad():
            run_finetuning(config)
        found = judge.rows(sampled(config.output / "checkpoint", FIRST))
        rows.append([name, f"{config.training.steps}", *found])
    folder = first.output.with_name(f"{first.output.name}-random")
    searched = random_search(read_finetune_config(ROOT / task.config), budget, folder)
    rows.append(["random search", "-", *judge.rows(sampled(searched, FIRST))])
    head = ["gradient", "training steps", "has the effect", "correct class", "both (95 % interval)"]
    return table(head, rows), f"{budget:,} network evaluations for each row."


TITLES = {
    "effect": "## Bold strokes as a shared embedding (`examples/effects/bold.toml`)",
    "style": "## A halo as weights (`examples/style/glow.toml`)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    paragraphs: list[str] = []
    with torch.no_grad():
        for task in TASKS:
            found, cost = measure(task)
            paragraphs += [TITLES[task.name], cost, found]
    path = write(
        "customisation",
        "Fine-tuning the digits by a reward",
        f"{SHOWN} digits from new noise for each row, `dpmpp-2m` in 10 steps. *Has the effect*: "
        "more ink, or more grey levels between ink and paper, than "
        f"{QUANTILE:.0%} of the digits of its class before training. *Correct class*: by a second "
        "classifier, which took no part in training. All rows have the same number of network "
        "evaluations; a vector-Jacobian product counts as one, or as two if weights are trained.",
        *paragraphs,
        "Written by `python -m benchmarks.customisation`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
