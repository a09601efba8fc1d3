"""What a step costs outside of the network, beside the schedulers of diffusers.

    python -m benchmarks.step_cost [--device cuda]

All are timed in turn, round after round, so that whatever else the machine does falls on all of
them; of each the fastest round counts. The arithmetic floor is the bare multiply-adds of
DPM-Solver++(2M): two for the prediction of x_0, three for the next point.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from benchmarks.report import table, write
from samplers import SamplerScheduler
from samplers.grid import make_grid
from samplers.noise import RowNoise
from samplers.registry import get_sampler
from samplers.schedule import VPDiscrete
from samplers.solve import Solver

SHAPE = (2, 4, 64, 64)
STEPS = 20
ROUNDS = 30
CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Run(NamedTuple):
    """A run of a sampler, which returns its NFE, and its preparation, which is not timed."""

    prepare: Callable[[], object]
    steps: Callable[[], int]


def ours(name: str, latents: Tensor, output: Tensor) -> Run:
    """The loop of this package, with all coefficients computed in advance."""
    tableau = get_sampler(name).tableau(make_grid(VPDiscrete.scaled_linear(), STEPS))
    solver = Solver(tableau, "epsilon", RowNoise((0, 1), SHAPE[1:]))

    def run() -> int:
        state = solver.init(latents)
        while not solver.done(state):
            state = solver.advance(state, output)
        return tableau.calls

    return Run(lambda: None, run)


def scheduler(make: Callable[[], object], latents: Tensor, output: Tensor) -> Run:
    """A scheduler's ``step``, between two calls of ``set_timesteps``."""
    made = make()

    def run() -> int:
        x = latents
        for t in made.timesteps:  # type: ignore[attr-defined]
            x = made.step(output, t, x, return_dict=False)[0]  # type: ignore[attr-defined]
        return len(made.timesteps)  # type: ignore[attr-defined]

    def prepare() -> None:
        made.set_timesteps(STEPS, device=latents.device)  # type: ignore[attr-defined]

    return Run(prepare, run)


def floor(latents: Tensor, output: Tensor) -> Run:
    a, b, c, d, e = torch.rand(5).to(latents).unbind()

    def run() -> int:
        x, older = latents, latents
        for _ in range(STEPS):
            x0 = (x * a).addcmul_(output, b)
            x, older = (x * c).addcmul_(x0, d).addcmul_(older, e), x0
        return STEPS

    return Run(lambda: None, run)


def microseconds(runs: dict[str, Run], wait: Callable[[], None]) -> dict[str, float]:
    """The fastest round of each, per network evaluation, synchronised with the device."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run.prepare()
            wait()
            start = time.perf_counter()
            calls = run.steps()
            wait()
            best[name] = min(best[name], (time.perf_counter() - start) / calls * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    device: torch.device = parser.parse_args().device
    cuda = device.type == "cuda"
    torch.manual_seed(0)
    latents, output = torch.randn(SHAPE).to(device), torch.randn(SHAPE).to(device)
    theirs = {
        "DPMSolverMultistep": lambda: DPMSolverMultistepScheduler(**CONFIG),
        "UniPCMultistep": lambda: UniPCMultistepScheduler(**CONFIG),
        "DEISMultistep": lambda: DEISMultistepScheduler(**CONFIG),
        "DPMSolverSDE": lambda: DPMSolverSDEScheduler(**CONFIG, noise_sampler_seed=0),
    }
    names = ["dpmpp-2m", "dpmpp-3m-corrected", "unipc-2", "deis-3", "sde-dpmpp-2m"]
    runs = {"arithmetic floor of 2M": floor(latents, output)}
    runs |= {name: ours(name, latents, output) for name in names}
    runs["dpmpp-2m as SamplerScheduler"] = scheduler(
        lambda: SamplerScheduler(**CONFIG, sampler="dpmpp-2m"), latents, output
    )
    runs |= {f"diffusers {name}": scheduler(make, latents, output) for name, make in theirs.items()}
    with torch.no_grad():
        cost = microseconds(runs, torch.cuda.synchronize if cuda else lambda: None)
    head = ["sampler", "µs per evaluation", *(f"÷ {name}" for name in theirs)]
    rows = [
        [name, f"{value:.0f}", *(f"{value / cost[f'diffusers {other}']:.3f}" for other in theirs)]
        for name, value in cost.items()
    ]
    shape = "×".join(map(str, SHAPE))
    path = write(
        "step_cost_cuda" if cuda else "step_cost",
        "Cost of a step outside the network" + (", on a GPU" if cuda else ""),
        f"{torch.cuda.get_device_name(device) + '. ' if cuda else ''}"
        f"Latents of {shape} in float32, {STEPS} steps, the fastest of {ROUNDS} rounds in which "
        "all run in turn. The columns on the right are the time divided by that of a scheduler of "
        "diffusers in the same run. The arithmetic floor is the bare multiply-adds of "
        "`dpmpp-2m`. `sde-dpmpp-2m` generates its noise sample by sample, on the CPU and in "
        "float64, which is most of its cost.",
        table(head, rows),
        f"Written by `python -m benchmarks.step_cost{' --device cuda' if cuda else ''}`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
