"""Flows of `assets/cylinder` by Reynolds number, beside simulated ones; and at which noise levels
the velocity fluctuation is determined.

    python -m benchmarks.reynolds

Every measurement is stored in ``docs/benchmarks/reynolds.json``; an interrupted run continues.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.digits import Kept
from benchmarks.flows import CHECKPOINT, weights_digest
from benchmarks.report import FOLDER, table, write
from text2pde.data.clip import Clip
from text2pde.data.statistics import cylinder_flow_of, wake_statistics
from text2pde.evaluation.prompts import SWEEP, sweep_ranks, sweep_requests
from text2pde.pipeline import Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import triangulate
from text2pde.solver.simulation import Recording, simulate
from text2pde.subject.cylinder.family import CylinderFamily, sample_held_out_flows

STEPS = 20
SOLVED = (60, 85, 110, 135, 155)
SHOWN = (0, 1, 2, 3, 4, 6, 8, 12, 19)
"""The evaluations whose predictions are in the table."""


def new_channel() -> Clip:
    """One that training never saw, on its mesh, with nothing in it."""
    (flow,) = sample_held_out_flows(CylinderFamily(), 1)
    mesh = triangulate(flow.channel)
    return Clip(flow, mesh, np.zeros(1), np.zeros((1, len(mesh.nodes), 3), np.float32))


def strouhal(clip: Clip) -> float:
    return wake_statistics(clip).frequency * clip.scene.time_unit


@torch.no_grad()
def generated(pipe: Text2PDEPipeline) -> dict[str, Any]:
    """The sweep of `text2pde evaluate`, and the prediction at each evaluation."""
    requests, predicted = sweep_requests(new_channel()), list[Tensor]()
    clips = pipe.generate(
        requests, range(len(requests)), STEPS,
        callback=lambda state: predicted.append(state.predictions[0]),
    )  # fmt: skip
    on_the_way = [
        [
            wake_statistics(pipe.decode(latent, request)).fluctuation
            for latent, request in zip(latents.split(1), requests, strict=True)
        ]
        for latents in tqdm(predicted, "on the way")
    ]
    return {
        "strouhal": [strouhal(clip) for clip in clips],
        "fluctuation": [wake_statistics(clip).fluctuation for clip in clips],
        "on the way": on_the_way,
        "ranks": sweep_ranks(clips)._asdict(),
    }


def solved(reynolds: int) -> dict[str, float]:
    """The flow of a Reynolds number in the same channel."""
    request = sweep_requests(new_channel())[SWEEP.index(reynolds)]
    clip = simulate(
        cylinder_flow_of(new_channel()._replace(scene=request.scene)), Recording(frames=48)
    )
    return {"strouhal": strouhal(clip), "fluctuation": wake_statistics(clip).fluctuation}


def beside(found: dict[str, Any], truth: dict[int, dict[str, float]]) -> str:
    rows = [
        [
            str(reynolds),
            *(f"{found[name][place]:.3f}" for name in ("strouhal", "fluctuation")),
            *(f"{truth[reynolds][n]:.3f}" if reynolds in truth else "" for n in truth[SOLVED[0]]),
        ]
        for place, reynolds in enumerate(SWEEP)
    ]
    head = ["Reynolds number", "Strouhal number, generated", "fluctuation, generated",
            "Strouhal number, simulated", "fluctuation, simulated"]  # fmt: skip
    return table(head, rows)


def decided(found: dict[str, Any], rho: list[float]) -> str:
    """The relative error of the fluctuation of the x_0 that is predicted at each evaluation."""
    last = np.array(found["fluctuation"])
    rows = []
    for call in SHOWN:
        off = np.abs(np.array(found["on the way"][call]) / last - 1)
        noise = f"{rho[call]:.3g}" if rho[call] < 1e6 else "∞"
        rows.append([str(call + 1), noise, f"{np.median(off):.1%}", f"{off.max():.0%}"])
    head = ["evaluation", "sigma / alpha", "median relative error", "largest relative error"]
    return table(head, rows)


def main() -> None:
    torch.set_num_threads(1)
    pipe = load_text2pde(CHECKPOINT, torch.device("cpu"))
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, sampler="dpmpp-2m", grid="config"
    )
    kept = Kept(FOLDER / "reynolds.json", weights_digest())
    found = kept.get("generated", partial(generated, pipe))
    truth = {
        reynolds: kept.get(f"solved {reynolds}", partial(solved, reynolds))
        for reynolds in tqdm(SOLVED, "solved")
    }
    path = write(
        "reynolds",
        "Flows by Reynolds number",
        "Flows that `assets/cylinder` generates from captions, in one channel that is not in its "
        f"training data, with {STEPS} evaluations of `dpmpp-2m`; and flows that were simulated in "
        "the same channel. The fluctuation is the rms transverse velocity in the wake, in units "
        "of the mean inlet velocity. The rank correlation of the Reynolds number with the Strouhal "
        f"number is {found['ranks']['strouhal']:.3f}, with the fluctuation "
        f"{found['ranks']['fluctuation']:.3f}: in some generated flows the vortices decay.",
        beside(found, truth),
        "## At which noise levels the fluctuation is determined",
        "At each evaluation the network predicts x_0, the finished flow. The relative error of the "
        "fluctuation of these predictions to that of the sample, over the same flows:",
        decided(found, pipe.grid(STEPS).points.rho.tolist()),
        "Written by `python -m benchmarks.reynolds`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
