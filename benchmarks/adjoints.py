"""Adjoints on the bundled digits: error, memory, network evaluations, time.

    python -m benchmarks.adjoints [--device cuda]

The gradient is that of the log-probability of a class under the bundled classifier. All adjoints
are timed in turn, round after round; of each the fastest round counts. On a CPU, time is that of
the process, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from adjoint import (
    AbstractAdjoint,
    BacksolveAdjoint,
    CheckpointAdjoint,
    ContinuousAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
    TruncatedAdjoint,
    estimate_cost,
)
from adjoint.rewards import Placement, build_reward
from benchmarks.digits import ROOT, SCHEDULE, SHAPE
from benchmarks.report import table, write
from samplers import sample
from samplers.checkpoint import LoadOptions, NetworkCheckpoint, load_checkpoint
from samplers.grid import make_grid
from samplers.noise import initial_noise
from samplers.registry import get_sampler

STEPS = (10, 20, 50)
COUNT, ROUNDS, LABEL = 2, 2, 3
MIB = 2**20


class Case(NamedTuple):
    """An adjoint of a sampler."""

    adjoint: AbstractAdjoint
    name: str
    sampler: str = "dpmpp-2m"

    def __str__(self) -> str:
        return f"`{self.name}`, `{self.sampler}`"


def cases(steps: int) -> list[Case]:
    return [
        Case(DirectAdjoint(), "DirectAdjoint()"),
        Case(CheckpointAdjoint(), "CheckpointAdjoint()"),
        Case(CheckpointAdjoint(keep=steps // 5), f"CheckpointAdjoint(keep={steps // 5})"),
        Case(CheckpointAdjoint(split=2), "CheckpointAdjoint(split=2)"),
        Case(TruncatedAdjoint(steps // 5), f"TruncatedAdjoint({steps // 5})"),
        Case(ContinuousAdjoint(order=1), "ContinuousAdjoint(order=1)"),
        Case(ContinuousAdjoint(order=2), "ContinuousAdjoint(order=2)"),
        Case(
            ContinuousAdjoint(order=1, steps=steps // 2), f"ContinuousAdjoint(steps={steps // 2})"
        ),
        Case(BacksolveAdjoint(order=1), "BacksolveAdjoint(order=1)"),
        Case(DirectAdjoint(), "DirectAdjoint()", "o-belm"),
        Case(ReversibleAdjoint(), "ReversibleAdjoint()", "o-belm"),
    ]


class Bench:
    """The model, its noise and labels, and the reward."""

    def __init__(self, device: torch.device) -> None:
        checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions(device=device))
        assert isinstance(checkpoint, NetworkCheckpoint)
        self.model, self.device = checkpoint.denoiser(), device
        self.conditions = {"labels": torch.full((COUNT,), LABEL, device=device)}
        options = {"network": str(ROOT / "assets" / "digits-classifier"), "label": LABEL}
        self.reward = build_reward("class-log-probability", options, Placement(device=device))
        self.x = initial_noise(range(COUNT), SHAPE).float().to(device).requires_grad_()
        self.weights = list(checkpoint.parameters())

    def loss(self, case: Case, steps: int) -> Tensor:
        # Below pure noise and above the data, so that every adjoint applies.
        images = sample(
            self.model,
            self.x,
            sampler=case.sampler,
            steps=steps,
            grid="log-snr",
            sigma_min=0.02,
            conditions=self.conditions,
            adjoint=case.adjoint,
        )
        return -self.reward(images).sum()

    def gradients(self, case: Case, steps: int, wanted: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(self.loss(case, steps), list(wanted), allow_unused=True)
        pairs = zip(found, wanted, strict=True)
        return [torch.zeros_like(w) if g is None else g for g, w in pairs]

    def timed(self, case: Case, steps: int, of_weights: bool) -> float:
        """Seconds of a run and its backward pass."""
        wanted = self.weights if of_weights else [self.x]
        for weight in self.weights:
            weight.requires_grad_(of_weights)
        start = self.now()
        self.gradients(case, steps, wanted)
        seconds = self.now() - start
        for weight in self.weights:
            weight.requires_grad_(True)
        return seconds

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def saved(self, case: Case, steps: int) -> int:
        """Bytes that are saved for backward at the end of the run, without those of weights."""
        own = {weight.untyped_storage().data_ptr() for weight in self.weights}
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss(case, steps)
        del loss
        return sum(storages.values())


def deviation(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    difference = sum(
        float((a - b).double().square().sum()) for a, b in zip(found, exact, strict=True)
    )
    return (difference / sum(float(b.double().square().sum()) for b in exact)) ** 0.5


def seconds(bench: Bench, steps: int, of_weights: bool) -> dict[str, float]:
    """The fastest round of each."""
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for case in tqdm(cases(steps), f"{steps} steps", leave=False):
            if isinstance(case.adjoint, TruncatedAdjoint) and not of_weights:
                continue  # it has no gradient of the noise
            taken = bench.timed(case, steps, of_weights)
            best[str(case)] = min(best.get(str(case), taken), taken)
    return best


def ratio(taken: dict[str, float], name: str, direct: str) -> str:
    return f"{taken[name] / taken[direct]:.2f}" if name in taken else "-"


def rows(bench: Bench, steps: int) -> list[list[str]]:
    of_noise, of_weights = (seconds(bench, steps, weights) for weights in (False, True))
    lines = []
    exact: dict[str, list[list[Tensor]]] = {}
    for case in cases(steps):
        grid = make_grid(SCHEDULE, steps, "log-snr", sigma_min=0.02)
        tableau = get_sampler(case.sampler).tableau(grid)
        found = [bench.gradients(case, steps, wanted) for wanted in ([bench.x], bench.weights)]
        known = exact.setdefault(case.sampler, found)
        direct = str(Case(DirectAdjoint(), "DirectAdjoint()", case.sampler))
        cost = case.adjoint.cost(tableau)
        estimate = estimate_cost(
            bench.model, bench.x, case.adjoint, tableau, conditions=bench.conditions
        )
        lines.append(
            [
                str(case),
                *(f"{deviation(a, b):.0e}" for a, b in zip(found, known, strict=True)),
                f"{bench.saved(case, steps) / MIB:.2f}",
                f"{estimate.activations / MIB:.1f}",
                f"{cost.forward} + {cost.recomputed}",
                str(cost.vjps),
                *(ratio(own, str(case), direct) for own in (of_noise, of_weights)),
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    bench = Bench(parser.parse_args().device)
    head = [
        *("adjoint, sampler", "error, noise", "error, weights", "saved, MiB", "activations, MiB"),
        *("NFE", "VJPs", "time, noise", "time, weights"),
    ]
    parts = [(f"## {steps} steps", table(head, rows(bench, steps))) for steps in STEPS]
    path = write(
        "adjoints",
        "Cost and error of adjoints",
        f"Gradients of the log-probability of a {LABEL} under a classifier, for {COUNT} images of "
        "`assets/digits` without guidance, in float32, with respect to the initial noise and to "
        "the weights. Errors are relative to the norm of the gradient of `DirectAdjoint()` with "
        "the same sampler. *Saved* are the bytes that are saved for backward at the end of the "
        "run, *activations* those that are held at once. NFE are evaluations of the run + "
        "recomputed evaluations; VJPs are vector-Jacobian products. Times, forward and backward, "
        "are relative to `DirectAdjoint()` with the same sampler: the fastest of "
        f"{ROUNDS} rounds in which all take turns.",
        *(line for part in parts for line in part),
        "Written by `python -m benchmarks.adjoints`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
