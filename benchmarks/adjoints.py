"""Ways back through a run on the bundled digits: error, memory, network calls, time.

    python -m benchmarks.adjoints [--device cuda]

The gradient is that of the log-probability of a class under the bundled classifier. All ways are
timed in turn, round after round; of each the fastest round counts. On a CPU time is that of the
process, so that other work on the machine does not enter.
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
    Adjoint,
    Backsolve,
    Checkpoint,
    Direct,
    Recorded,
    Reversible,
    Truncated,
    estimate,
)
from adjoint.rewards import Place, build_reward
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
    """A way back, on a sampler."""

    adjoint: Adjoint
    sampler: str = "dpmpp-2m"
    name: str = ""

    def __str__(self) -> str:
        return f"`{self.name or self.adjoint}`, `{self.sampler}`"


def cases(steps: int) -> list[Case]:
    return [
        Case(Direct(), name="Direct()"),
        Case(Checkpoint(), name="Checkpoint()"),
        Case(Checkpoint(keep=steps // 5), name=f"Checkpoint(keep={steps // 5})"),
        Case(Checkpoint(split=2), name="Checkpoint(split=2)"),
        Case(Truncated(steps // 5), name=f"Truncated({steps // 5})"),
        Case(Recorded(order=1), name="Recorded(order=1)"),
        Case(Recorded(order=2), name="Recorded(order=2)"),
        Case(Recorded(order=1, steps=steps // 2), name=f"Recorded(steps={steps // 2})"),
        Case(Backsolve(order=1), name="Backsolve(order=1)"),
        Case(Direct(), "o-belm", "Direct()"),
        Case(Reversible(), "o-belm", "Reversible()"),
    ]


class Bench:
    """The network, its noise and labels, and the reward."""

    def __init__(self, device: torch.device) -> None:
        checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions(device=device))
        assert isinstance(checkpoint, NetworkCheckpoint)
        self.checkpoint, self.device = checkpoint, device
        self.labels = torch.full((COUNT,), LABEL)
        options = {"network": str(ROOT / "assets" / "digits-classifier"), "label": LABEL}
        self.reward = build_reward("class-log-probability", options, Place(device=device))
        self.x = initial_noise(range(COUNT), SHAPE).float().to(device).requires_grad_()
        self.weights = list(checkpoint.parameters())

    def model(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.checkpoint.conditional()(x, t, labels)

    def labelled(self, x: Tensor, t: Tensor) -> Tensor:
        """The network with the labels of a whole batch."""
        return self.model(x, t, self.labels)

    def loss(self, case: Case, steps: int) -> Tensor:
        # Below pure noise and above the data, so that every way can serve.
        drawn = sample(
            self.model,
            self.x,
            schedule=SCHEDULE,
            prediction="v_prediction",
            sampler=case.sampler,
            steps=steps,
            sigma_min=0.02,
            conditions=(self.labels,),
            adjoint=case.adjoint,
        )
        return -self.reward(drawn).sum()

    def gradients(self, case: Case, steps: int, wanted: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(self.loss(case, steps), list(wanted), allow_unused=True)
        pairs = zip(found, wanted, strict=True)
        return [torch.zeros_like(w) if g is None else g for g, w in pairs]

    def timed(self, case: Case, steps: int, of_weights: bool) -> float:
        """Seconds of a run and its way back."""
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

    def kept(self, case: Case, steps: int) -> int:
        """Bytes that wait for the way back when the run is done, those of weights left out."""
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
            if isinstance(case.adjoint, Truncated) and not of_weights:
                continue  # the noise gets no gradient
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
        tableau = get_sampler(case.sampler).tableau(make_grid(SCHEDULE, steps, sigma_min=0.02))
        found = [bench.gradients(case, steps, wanted) for wanted in ([bench.x], bench.weights)]
        known = exact.setdefault(case.sampler, found)
        direct = str(Case(Direct(), case.sampler, "Direct()"))
        cost = case.adjoint.cost(tableau)
        held = estimate(case.adjoint, tableau, bench.labelled, bench.x).activations
        lines.append(
            [
                str(case),
                *(f"{deviation(a, b):.0e}" for a, b in zip(found, known, strict=True)),
                f"{bench.kept(case, steps) / MIB:.2f}",
                f"{held / MIB:.1f}",
                f"{cost.forward} + {cost.again}",
                str(cost.products),
                *(ratio(own, str(case), direct) for own in (of_noise, of_weights)),
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    bench = Bench(parser.parse_args().device)
    head = [
        *("way back, sampler", "error, noise", "error, weights", "kept, MiB", "activations, MiB"),
        *("calls", "products", "time, noise", "time, weights"),
    ]
    parts = [(f"## {steps} steps", table(head, rows(bench, steps))) for steps in STEPS]
    path = write(
        "adjoints",
        "Ways back through a run",
        f"The gradient of the classifier's log-probability of a {LABEL} on {COUNT} images of "
        "`assets/digits`, no guidance, float32, to the starting noise and to the weights. Errors "
        "are relative to the norm of the exact gradient, that of `Direct()` with the same sampler. "
        "Kept is what waits for the way back when the run is done; activations, of how many bytes "
        "are held at once on the way. Calls are those of the run and those that are made again. "
        "Times are ratios to `Direct()` with the same sampler, forwards and backwards, within this "
        f"run: the fastest of {ROUNDS} rounds in which all take turns.",
        *(line for part in parts for line in part),
        "Written by `python -m benchmarks.adjoints`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
