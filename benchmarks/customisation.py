"""What a metric teaches a network: an effect as an embedding, and a style as weights.

    python -m benchmarks.customisation

The runs of ``examples/effects/bold.toml`` and ``examples/style/glow.toml``, and their alternatives
at equal numbers of network calls, a vector-Jacobian product counted as one, or as two if weights
are learned. Each is a run of ``adjoint finetune`` in ``runs/``, and goes on if it was interrupted.

A drawn digit is a success if it has what was wanted, more than 95 of 100 digits of its class had
before, and is still read as its class by a second classifier, which no run has asked. What was
wanted is measured by other means than the reward: as ink, and as grey levels between ink and paper.
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

from adjoint.finetune import FinetuneConfig, Weights, finetune, read_config
from adjoint.finetune.models import NetworkModel, load_model
from adjoint.rewards import build_reward
from benchmarks.report import table, write
from samplers.checkpoint import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "digits")]
from noisy_classifier import load_noisy_classifier  # noqa: E402  of an example

from examples.audit.audit import interval  # noqa: E402  of an example

SHOWN, FIRST, QUANTILE = 500, 100_000, 0.95
"""Digits that are measured, the seed of the first, and how far those before must be exceeded."""


def ink(images: Tensor) -> Tensor:
    """The share of the picture that is ink: [B]."""
    return ((images.clamp(-1, 1) + 1) / 2).mean((1, 2, 3))


def halo(images: Tensor) -> Tensor:
    """The share of the picture that is neither ink nor paper, between levels 0.15 and 0.7: [B]."""
    level = (images + 1) / 2
    return ((level > 0.15) & (level < 0.7)).double().mean((1, 2, 3))


@dataclass(frozen=True)
class Task:
    """A config, what is wanted of its digits, and the ways that may be taken to it."""

    name: str
    config: str
    wanted: Callable[[Tensor], Tensor]
    ways: tuple[tuple[str, dict[str, Any]], ...]


EXACT: tuple[str, dict[str, Any]] = ("exact gradient, `Checkpoint()`", {})
ADJOINT_DPM = ("AdjointDPM, `Recorded(order=1)`", {"adjoint": {"way": "recorded", "order": 1}})
LAST = ("the last step alone, `Truncated(1)`", {"adjoint": {"way": "truncated", "last": 1}})
TASKS = (
    Task("effect", "examples/effects/bold.toml", ink, (EXACT, ADJOINT_DPM, LAST)),
    Task("style", "examples/style/glow.toml", halo, (EXACT, ADJOINT_DPM, LAST)),
)


# ---------------------------------------------------------------------------------------- calls


def calls(config: FinetuneConfig) -> int:
    """Network calls of one image and its gradient."""
    model = load_model(config, torch.device("cpu"))
    assert isinstance(model, NetworkModel)  # digits are drawn without a prompt
    cost = config.adjoint.cost(model.tableau)
    product = 2 if isinstance(config.optimised, Weights) else 1
    return cost.forward + cost.again + product * cost.products


def equal(task: Task, changes: dict[str, Any]) -> FinetuneConfig:
    """The config of a way, with as many steps as make as many calls as the exact gradient's."""
    first = read_config(ROOT / task.config)
    folder = "-".join([first.output.name, *(str(v) for v in changes.get("adjoint", {}).values())])
    config = read_config(ROOT / task.config, {**changes, "output": f"runs/{folder}"})
    steps = first.training.steps * calls(first) // calls(config)
    return replace(config, training=replace(config.training, steps=steps))


# ----------------------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Judge:
    """What digits were before, and who reads them."""

    network: Callable[[Tensor, Tensor], Tensor]
    wanted: Callable[[Tensor], Tensor]
    bar: Tensor

    @classmethod
    def of(cls, wanted: Callable[[Tensor], Tensor]) -> Judge:
        before = wanted(drawn(ROOT / "assets" / "digits", FIRST + SHOWN))
        bars = [before[c::10].quantile(QUANTILE) for c in range(10)]
        network = load_noisy_classifier(ROOT / "assets" / "digits-noisy-classifier")
        return cls(network, wanted, torch.stack(bars))

    def rows(self, images: Tensor) -> list[str]:
        """Shares of digits that have what was wanted, are read as theirs, and both."""
        labels = torch.arange(len(images)) % 10
        has = self.wanted(images) > self.bar[labels]
        seen = self.network(images.clamp(-1, 1), torch.zeros(len(images))).argmax(dim=1)
        read = seen == labels
        return [share(has), share(read), f"{share(has & read)} ({within(has & read)})"]


def drawn(folder: Path, first: int) -> Tensor:
    """Digits of a checkpoint, the classes in turn."""
    checkpoint = load_checkpoint(folder, LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    recipe = checkpoint.settle(Recipe(steps=10))
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
    """Climb by random changes of what is learned, each kept if it is better on the same noise.

    budget: network calls. Two runs on one batch are compared for each change. Returns the
    checkpoint that was found.
    """
    saved = folder / "checkpoint"
    if saved.exists():
        return saved
    model = load_model(config, torch.device("cpu"))
    part = model.part(config.optimised, config.training.seed)
    learned = [weight for weight in part.parameters() if weight.requires_grad]
    terms = [(t.weight, build_reward(t.name, t.options)) for t in config.rewards]
    generator = torch.Generator().manual_seed(config.training.seed)
    size, per_image = config.training.batch_size, config.drawing.steps
    asked = torch.tensor([model.asked[i % len(model.asked)] for i in range(size)])

    def value(seeds: list[int]) -> float:
        images = model.draw(part, seeds, asked, None)
        return float(sum(w * reward(images, asked).mean() for w, reward in terms))

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
    model.save(part, config.optimised, folder)
    return saved


# ---------------------------------------------------------------------------------- the report


def measure(task: Task) -> tuple[str, str]:
    """The table of a task, and a line on what it cost."""
    judge = Judge.of(task.wanted)
    first = equal(task, {})
    budget = first.training.steps * first.training.batch_size * calls(first)
    rows = [["before", "-", *judge.rows(drawn(ROOT / "assets" / "digits", FIRST))]]
    for name, changes in task.ways:
        config = equal(task, changes)
        with torch.enable_grad():
            finetune(config)
        found = judge.rows(drawn(config.output / "checkpoint", FIRST))
        rows.append([name, f"{config.training.steps}", *found])
    folder = first.output.with_name(f"{first.output.name}-random")
    searched = random_search(read_config(ROOT / task.config), budget, folder)
    rows.append(["random search", "-", *judge.rows(drawn(searched, FIRST))])
    head = ["", "steps", "has it", "read as its class", "both (95 %)"]
    return table(head, rows), f"{budget:,} network calls for each."


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
        "What a metric teaches a network of digits",
        f"{SHOWN} digits of new noise each, `dpmpp-2m` in 10 steps. *Has it*: more ink, or more "
        f"levels between ink and paper, than {QUANTILE:.0%} of digits of its class had before. "
        "*Read*: by a second classifier, which no run has asked. A vector-Jacobian product counts "
        "as one call, and as two where weights are learned.",
        *paragraphs,
        "Written by `python -m benchmarks.customisation`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
