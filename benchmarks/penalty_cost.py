"""What a penalty adds to the time of a training step.

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

from adjoint import potential_penalty, score_penalty, solver_cost_penalty
from benchmarks.digits import ROOT, SCHEDULE, SHAPE, load_unet
from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.training import Objective, seeded
from samplers.training.denoising import denoising_loss

sys.path.insert(0, str(ROOT))
from examples.fokker_planck.plane import OrnsteinUhlenbeck, PotentialNetwork, score
from examples.fokker_planck.train import POINTS_EACH, TIMES, residual_points

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
    """On the bundled network, with an evaluation of a batch of images."""
    unet, names = load_unet(), ("class_labels",)
    model = Denoiser(unet, SCHEDULE, "v_prediction")
    batch = (torch.randn(IMAGES, *SHAPE), torch.arange(IMAGES) % 10)

    def residual(probes: int) -> Task:
        penalty = score_penalty(model, conditions=names, probes=probes, estimator="stencil")
        return step(penalty, unet, batch)

    def solver(method: str) -> Task:
        return step(solver_cost_penalty(model, conditions=names, method=method), unet, batch)

    return {
        "one evaluation, no gradient": forward(unet, batch[0], torch.ones(IMAGES), batch[1]),
        "denoising loss": step(denoising_loss(model, names), unet, batch),
        "residual, 2 probes": residual(2),
        "residual, 4 probes": residual(4),
        "solver cost, `dpmpp-12`": solver("dpmpp-12"),
        "solver cost, `bogacki-shampine`": solver("bogacki-shampine"),
        "solver cost, `dormand-prince`": solver("dormand-prince"),
    }


def plane() -> dict[str, Task]:
    """On a potential in the plane, with its value at as many points."""
    network, schedule = PotentialNetwork(), OrnsteinUhlenbeck()
    x, t = residual_points(seeded(0))
    points = x.flatten(0, 1)
    every = t.repeat_interleave(len(points) // len(t))
    penalty = potential_penalty(lambda model, x, t: model(x, t), schedule, residual_points)
    loss = denoising_loss(Denoiser(network, schedule, "score", call=score))
    return {
        "one evaluation, no gradient": forward(network, points, every),
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
    call, loss = found["one evaluation, no gradient"], found["denoising loss"]
    rows = [[name, f"{t / call:.1f}", f"{t / loss:.1f}"] for name, t in found.items()]
    head = ["loss and its gradient", "÷ one evaluation", "÷ denoising loss"]
    return table(head, rows)


def main() -> None:
    torch.set_num_threads(1)
    path = write(
        "penalty_cost",
        "Cost of a penalty in a training step",
        "Time of each penalty and its gradient with respect to the weights, relative to one "
        "evaluation of the network and to the denoising loss on as many samples; the fastest of "
        f"{ROUNDS} rounds in which all run in turn, in float32.",
        f"## Digit model, {IMAGES} images",
        ratios(digits()),
        f"## Potential in the plane, {TIMES * POINTS_EACH} points",
        ratios(plane()),
        "Written by `python -m benchmarks.penalty_cost`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
