"""Flows that `assets/cylinder` generates from one sentence: by sampler, their phases, the cost.

    python -m benchmarks.flows

Every measurement is stored in ``docs/benchmarks/flows.json``; an interrupted run continues.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.digits import ROOT, Kept
from benchmarks.report import mean_and_error, table, write
from samplers import load_sampler
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from text2pde.data.clip import Clip
from text2pde.data.statistics import cylinder_flow_of, wake_statistics
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde
from text2pde.solver.meshing import mesh_of
from text2pde.solver.simulation import Recording, simulate
from text2pde.subject.cylinder.captions import read_cylinder_flow

CHECKPOINT = ROOT / "assets" / "cylinder"
KEPT = ROOT / "docs" / "benchmarks" / "flows.json"
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
SAMPLERS = (
    ("ancestral", 1000), ("ancestral", 50), ("ddim", 20), ("dpmpp-2m", 20), ("dpmpp-2m", 10),
    ("unipc-2", 20), ("heun", 10), ("sde-dpmpp-2m", 20), ("dpmpp-2m", 5), ("ddim", 5),
)  # fmt: skip
TUNED = ROOT / "assets" / "tuned" / "cylinder"
FEW = tuple(
    (name, steps)
    for steps in (4, 5, 8)
    for name in ("default", "tuned")
    if name == "default" or (TUNED / f"cylinder-{steps}.json").exists()
)
"""The default sampler on its grid, and those of ``assets/tuned``."""
COUNT, PHASES = 8, 48


def settings_of(sampler: str, steps: int) -> dict[str, Any]:
    """The sampler and the grid of a row."""
    match sampler:
        case "default":
            return {"sampler": DEFAULT_SAMPLER, "grid": DEFAULT_SPACING}
        case "tuned":
            return {"sampler": load_sampler(TUNED / f"cylinder-{steps}.json")}
    return {"sampler": sampler, "grid": "config"}


def generate(pipe: Text2PDEPipeline, sampler: str, steps: int, seeds: Sequence[int]) -> list[Clip]:
    """Flows of the sentence, all on one mesh."""
    pipe.scheduler = type(pipe.scheduler).from_config(
        {**pipe.scheduler.config, "grid": None}, **settings_of(sampler, steps)
    )
    flow = read_cylinder_flow(SENTENCE)
    request = Request(flow, SENTENCE, mesh_of(flow))
    with torch.no_grad():
        return pipe.generate([request] * len(seeds), seeds, steps)


def name_of(sampler: str) -> str:
    if sampler == "tuned":
        return sampler
    return f"`{DEFAULT_SAMPLER}`, `{DEFAULT_SPACING}`" if sampler == "default" else f"`{sampler}`"


def moves(pipe: Text2PDEPipeline, sampler: str, steps: int) -> dict[str, Any]:
    """Frequencies and fluctuations of several flows, and the NFE of each."""
    found = [wake_statistics(clip) for clip in generate(pipe, sampler, steps, range(COUNT))]
    return {
        "calls": pipe.tableau(steps).calls,
        "frequency": [one.frequency for one in found],
        "fluctuation": [one.fluctuation for one in found],
    }


def phases(pipe: Text2PDEPipeline) -> list[float]:
    """Of the transverse velocity, two diameters behind the cylinder, in radians."""
    return [_phase(clip) for clip in generate(pipe, "dpmpp-2m", 20, range(PHASES))]


def _phase(clip: Clip) -> float:
    channel = cylinder_flow_of(clip).channel
    probe = np.array([channel.x + 2 * channel.diameter, channel.y])
    node = int(np.hypot(*(clip.mesh.nodes - probe).T).argmin())
    transverse = clip.fields[:, node, 1] - clip.fields[:, node, 1].mean()
    turns = 2 * np.pi * wake_statistics(clip).frequency * clip.times
    return float(np.angle((transverse * np.exp(-1j * turns)).sum()))


def rayleigh(angles: Sequence[float]) -> float:
    """How probable it is that even phases look so uneven (Zar 1999, eq. 27.4)."""
    count = len(angles)
    length = abs(np.exp(1j * np.array(angles)).sum())
    return math.exp(math.sqrt(1 + 4 * count + 4 * (count**2 - length**2)) - (1 + 2 * count))


def cost(pipe: Text2PDEPipeline) -> dict[str, float]:
    """Seconds of one core for one clip, generated and simulated."""
    flow = read_cylinder_flow(SENTENCE)
    generate(pipe, "dpmpp-2m", 1, [0])  # the encoder is loaded, and the mesh's package
    found = {}
    for name, steps in (("dpmpp-2m", 20), ("dpmpp-2m", 10)):
        begun = time.process_time()
        generate(pipe, name, steps, [0])
        found[f"generated, {steps} NFE"] = time.process_time() - begun
    for settling, what in ((60.0, "simulated from rest"), (0.0, "simulated, recorded frames only")):
        begun = time.process_time()
        simulate(flow, Recording(frames=pipe.config.frames, settling=settling))
        found[what] = time.process_time() - begun
    return found


def weights_digest() -> str:
    """Of the weights."""
    found = hashlib.sha256()
    for path in sorted(CHECKPOINT.rglob("*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    pipe = load_text2pde(CHECKPOINT, torch.device("cpu"))
    kept = Kept(KEPT, weights_digest())
    rows = []
    for sampler, steps in tqdm([*SAMPLERS, *FEW], "samplers"):
        found = kept.get(f"{sampler} {steps}", partial(moves, pipe, sampler, steps))
        numbers = [mean_and_error(found[name]) for name in ("frequency", "fluctuation")]
        rows.append(
            [name_of(sampler), str(found["calls"]), *(f"{m:.3f} ± {e:.3f}" for m, e in numbers)]
        )
    angles = kept.get("phases", partial(phases, pipe))
    spent = kept.get("cost", partial(cost, pipe))
    path = write(
        "flows",
        "Flows from a sentence",
        f"`assets/cylinder`, “{SENTENCE}”, {COUNT} flows per row: vortex shedding frequency in Hz "
        "and rms transverse velocity in the wake, in units of the mean inlet velocity, each with "
        "its standard error over the flows. The first row takes one step per trained noise level; "
        "the grid is that of the checkpoint, unless another is named.",
        table(["sampler", "NFE", "frequency, Hz", "velocity fluctuation"], rows),
        "**Phases.** The sentence does not determine the phase of the vortices. Rayleigh's test of "
        f"uniformity on {PHASES} flows gives p = {rayleigh(angles):.2f}.",
        f"**Cost** of one clip of {pipe.config.frames} frames, in CPU seconds of one core, meshing "
        "included:",
        table(["", "seconds"], [[name, f"{value:.1f}"] for name, value in spent.items()]),
        "Written by `python -m benchmarks.flows`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
