"""What a penalty adds to a training step, in calls of the network.

    python -m benchmarks.penalty_cost

All are timed in turn, round after round, in time of the process on one thread, so that other work
on the machine does not enter; of each the fastest round counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from adjoint.fokker_planck import potential_penalty, score_penalty
from adjoint.solver_cost import solver_cost_penalty
from benchmarks.digits import ROOT, SCHEDULE, SHAPE, load_unet
from benchmarks.report import table, write
from samplers.training import Objective, seeded
from samplers.training.denoising import denoising_loss

sys.path.insert(0, str(ROOT))
from examples.fokker_planck.plane import OrnsteinUhlenbeck, PotentialNetwork, score
from examples.fokker_planck.train import PLACES, TIMES, places
from examples.fokker_planck.train_digits import call

IMAGES, ROUNDS = 8, 7
Task = Callable[[], object]


def forward(model: nn.Module, *inputs: Tensor) -> Task:
    def run() -> None:
        with torch.no_grad():
            model(*inputs)

    return run


def step(objective: Objective, model: nn.Module, batch: tuple[Tensor, ...]) -> Task:
    """The objective and its gradient to the weights."""

    def run() -> None:
        model.zero_grad(set_to_none=True)
        objective(model, batch, seeded(0)).backward()

    return run


def digits() -> dict[str, Task]:
    """On the bundled network, from its call on a batch of images."""
    unet = load_unet()
    batch = (torch.randn(IMAGES, *SHAPE), torch.arange(IMAGES) % 10)

    def residual(probes: int) -> Task:
        penalty = score_penalty(call, SCHEDULE, "v_prediction", probes=probes, estimator="stencil")
        return step(penalty, unet, batch)

    def solver(method: str) -> Task:
        return step(solver_cost_penalty(call, SCHEDULE, "v_prediction", method=method), unet, batch)

    return {
        "a call": forward(unet, batch[0], torch.ones(IMAGES), batch[1]),
        "denoising loss": step(denoising_loss(SCHEDULE, "v_prediction", call), unet, batch),
        "residual, 2 probes": residual(2),
        "residual, 4 probes": residual(4),
        "solver cost, `dpmpp-12`": solver("dpmpp-12"),
        "solver cost, `bogacki-shampine`": solver("bogacki-shampine"),
        "solver cost, `dormand-prince`": solver("dormand-prince"),
    }


def plane() -> dict[str, Task]:
    """On a potential in the plane, from its value at as many points."""
    network, schedule = PotentialNetwork(), OrnsteinUhlenbeck()
    x, t = places(seeded(0))
    points = x.flatten(0, 1)
    every = t.repeat_interleave(len(points) // len(t))
    penalty = potential_penalty(lambda model, x, t: model(x, t), schedule, places)
    loss = denoising_loss(schedule, "score", score)
    return {
        "a call": forward(network, points, every),
        "denoising loss": step(loss, network, (points,)),
        "residual of the potential": step(penalty, network, ()),
    }


def fastest(tasks: dict[str, Task]) -> dict[str, float]:
    best = dict.fromkeys(tasks, float("inf"))
    for _ in tqdm(range(ROUNDS), "rounds"):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            best[name] = min(best[name], time.process_time() - start)
    return best


def ratios(tasks: dict[str, Task]) -> str:
    found = fastest(tasks)
    call, loss = found["a call"], found["denoising loss"]
    rows = [[name, f"{t / call:.1f}", f"{t / loss:.1f}"] for name, t in found.items()]
    return table(["with its gradient", "in calls", "in denoising losses"], rows)


def main() -> None:
    torch.set_num_threads(1)
    path = write(
        "penalty_cost",
        "The cost of a penalty in a training step",
        "The time of a penalty and its gradient, beside that of the denoising loss on as many "
        f"samples; the fastest of {ROUNDS} rounds in which all run in turn, in float32.",
        f"## The network of digits, {IMAGES} images",
        ratios(digits()),
        f"## A potential in the plane, {TIMES * PLACES} points",
        ratios(plane()),
        "Written by `python -m benchmarks.penalty_cost`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
