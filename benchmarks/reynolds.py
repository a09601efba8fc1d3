"""Flows of `assets/cylinder` by Reynolds number, beside solved ones; and when it is decided how
much a flow moves.

    python -m benchmarks.reynolds

Every measurement is kept in ``docs/benchmarks/reynolds.json``, so that an interrupted run goes on.
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
from text2pde.evaluation.sentences import SWEEP, ranks, sweep_of
from text2pde.flows.clip import Clip
from text2pde.flows.cylinder import Family, draw_held_out
from text2pde.flows.simulate import Recording, simulate
from text2pde.flows.statistics import past_cylinder, statistics
from text2pde.pipeline import Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import triangulate

STEPS = 20
SOLVED = (60, 85, 110, 135, 155)
SHOWN = (0, 1, 2, 3, 4, 6, 8, 12, 19)
"""The calls whose predictions stand in the table."""


def new_channel() -> Clip:
    """One that training never saw, on its mesh, with nothing in it."""
    (flow,) = draw_held_out(Family(), 1)
    mesh = triangulate(flow.channel)
    return Clip(flow, mesh, np.zeros(1), np.zeros((1, len(mesh.nodes), 3), np.float32))


def strouhal(clip: Clip) -> float:
    return statistics(clip).frequency * clip.flow.clock


@torch.no_grad()
def drawn(pipe: Text2PDEPipeline) -> dict[str, Any]:
    """The sweep that `text2pde evaluate` draws, and what was predicted on the way."""
    requests, predicted = sweep_of(new_channel()), list[Tensor]()
    clips = pipe.draw(
        requests, range(len(requests)), STEPS,
        callback=lambda state: predicted.append(state.predictions[0]),
    )  # fmt: skip
    on_the_way = [
        [
            statistics(pipe.decode(latent, request)).fluctuation
            for latent, request in zip(latents.split(1), requests, strict=True)
        ]
        for latents in tqdm(predicted, "on the way")
    ]
    return {
        "strouhal": [strouhal(clip) for clip in clips],
        "fluctuation": [statistics(clip).fluctuation for clip in clips],
        "on the way": on_the_way,
        "ranks": ranks(clips)._asdict(),
    }


def solved(reynolds: int) -> dict[str, float]:
    """The flow of a Reynolds number in the same channel."""
    request = sweep_of(new_channel())[SWEEP.index(reynolds)]
    clip = simulate(past_cylinder(new_channel()._replace(flow=request.flow)), Recording(frames=48))
    return {"strouhal": strouhal(clip), "fluctuation": statistics(clip).fluctuation}


def beside(found: dict[str, Any], truth: dict[int, dict[str, float]]) -> str:
    rows = [
        [
            str(reynolds),
            *(f"{found[name][place]:.3f}" for name in ("strouhal", "fluctuation")),
            *(f"{truth[reynolds][n]:.3f}" if reynolds in truth else "" for n in truth[SOLVED[0]]),
        ]
        for place, reynolds in enumerate(SWEEP)
    ]
    head = ["Reynolds number", "Strouhal number, drawn", "fluctuation, drawn",
            "Strouhal number, solved", "fluctuation, solved"]  # fmt: skip
    return table(head, rows)


def decided(found: dict[str, Any], rho: list[float]) -> str:
    """How far the fluctuation that is predicted at a call is from that of the finished flow."""
    last = np.array(found["fluctuation"])
    rows = []
    for call in SHOWN:
        off = np.abs(np.array(found["on the way"][call]) / last - 1)
        noise = f"{rho[call]:.3g}" if rho[call] < 1e6 else "∞"
        rows.append([str(call + 1), noise, f"{np.median(off):.1%}", f"{off.max():.0%}"])
    return table(["call", "sigma / alpha", "median difference", "largest"], rows)


def main() -> None:
    torch.set_num_threads(1)
    pipe = load_text2pde(CHECKPOINT, torch.device("cpu"))
    kept = Kept(FOLDER / "reynolds.json", weights_digest())
    found = kept.get("drawn", partial(drawn, pipe))
    truth = {
        reynolds: kept.get(f"solved {reynolds}", partial(solved, reynolds))
        for reynolds in tqdm(SOLVED, "solved")
    }
    path = write(
        "reynolds",
        "Flows by Reynolds number",
        f"`assets/cylinder`, captions of flows in one channel that it never saw, {STEPS} calls of "
        "`dpmpp-2m`; and flows that were solved for in the same channel. The rank correlation of "
        f"the Reynolds number with the Strouhal number is {found['ranks']['strouhal']:.3f}, with "
        f"the fluctuation {found['ranks']['fluctuation']:.3f}, for some flows fade.",
        beside(found, truth),
        "## When it is decided how much a flow moves",
        "At each call the network predicts the finished flow. How far the fluctuation of these "
        "predictions is from that of the flow in the end, over the same flows:",
        decided(found, pipe.grid(STEPS).points.rho.tolist()),
        "Written by `python -m benchmarks.reynolds`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
