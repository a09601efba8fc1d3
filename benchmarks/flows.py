"""Flows of `assets/cylinder` from one sentence: samplers, the phases of vortices, and the cost.

    python -m benchmarks.flows

Every measurement is kept in ``docs/benchmarks/flows.json``, so that an interrupted run goes on.
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
from text2pde.captions import flow_of
from text2pde.flows.clip import Clip
from text2pde.flows.simulate import Recording, simulate
from text2pde.flows.statistics import past_cylinder, statistics
from text2pde.pipeline import Request, Text2PDEPipeline, load_text2pde

CHECKPOINT = ROOT / "assets" / "cylinder"
KEPT = ROOT / "docs" / "benchmarks" / "flows.json"
SENTENCE = "Water flows past a cylinder of radius 0.05 m at Reynolds number 120"
SAMPLERS = (
    ("ancestral", 1000), ("ancestral", 50), ("ddim", 20), ("dpmpp-2m", 20), ("dpmpp-2m", 10),
    ("unipc-2", 20), ("heun", 10), ("sde-dpmpp-2m", 20), ("dpmpp-2m", 5), ("ddim", 5),
)  # fmt: skip
COUNT, PHASES = 8, 48


def draw(pipe: Text2PDEPipeline, sampler: str, steps: int, seeds: Sequence[int]) -> list[Clip]:
    """Flows of the sentence, all on one mesh."""
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, sampler=sampler)
    flow = flow_of(SENTENCE)
    request = Request(flow, SENTENCE, pipe.subject.mesh(flow))
    with torch.no_grad():
        return pipe.draw([request] * len(seeds), seeds, steps)


def moves(pipe: Text2PDEPipeline, sampler: str, steps: int) -> dict[str, Any]:
    """Frequencies and fluctuations of several flows, and the network calls of each."""
    found = [statistics(clip) for clip in draw(pipe, sampler, steps, range(COUNT))]
    return {
        "calls": pipe.tableau(steps).calls,
        "frequency": [one.frequency for one in found],
        "fluctuation": [one.fluctuation for one in found],
    }


def phases(pipe: Text2PDEPipeline) -> list[float]:
    """Of the velocity across, two diameters behind the cylinder, in radians."""
    return [_phase(clip) for clip in draw(pipe, "dpmpp-2m", 20, range(PHASES))]


def _phase(clip: Clip) -> float:
    channel = past_cylinder(clip).channel
    probe = np.array([channel.x + 2 * channel.diameter, channel.y])
    node = int(np.hypot(*(clip.mesh.nodes - probe).T).argmin())
    across = clip.fields[:, node, 1] - clip.fields[:, node, 1].mean()
    turns = 2 * np.pi * statistics(clip).frequency * clip.times
    return float(np.angle((across * np.exp(-1j * turns)).sum()))


def rayleigh(angles: Sequence[float]) -> float:
    """How probable it is that even phases look so uneven (Zar 1999, eq. 27.4)."""
    count = len(angles)
    length = abs(np.exp(1j * np.array(angles)).sum())
    return math.exp(math.sqrt(1 + 4 * count + 4 * (count**2 - length**2)) - (1 + 2 * count))


def cost(pipe: Text2PDEPipeline) -> dict[str, float]:
    """Seconds of one core for one clip, drawn and solved for, one after the other."""
    flow = flow_of(SENTENCE)
    draw(pipe, "dpmpp-2m", 1, [0])  # the encoder is loaded, and the mesh's package
    found = {}
    for name, steps in (("dpmpp-2m", 20), ("dpmpp-2m", 10)):
        begun = time.process_time()
        draw(pipe, name, steps, [0])
        found[f"drawn, {steps} calls"] = time.process_time() - begun
    for settling, what in ((60.0, "solved from rest"), (0.0, "solved, its frames alone")):
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
    for sampler, steps in tqdm(SAMPLERS, "samplers"):
        found = kept.get(f"{sampler} {steps}", partial(moves, pipe, sampler, steps))
        numbers = [mean_and_error(found[name]) for name in ("frequency", "fluctuation")]
        rows.append(
            [f"`{sampler}`", str(found["calls"]), *(f"{m:.3f} ± {e:.3f}" for m, e in numbers)]
        )
    angles = kept.get("phases", partial(phases, pipe))
    spent = kept.get("cost", partial(cost, pipe))
    path = write(
        "flows",
        "Flows from a sentence",
        f"`assets/cylinder`, “{SENTENCE}”, {COUNT} flows a row: the frequency of the vortices in "
        "Hz and the root mean square of the velocity across in the wake, in units of the inlet's, "
        "with standard errors. The first row has as many calls as there are noise levels.",
        table(["sampler", "network calls", "frequency", "fluctuation"], rows),
        f"**Phases.** The sentence does not say where the vortices are. Of {PHASES} flows, phases "
        f"would be as uneven as they are with a probability of {rayleigh(angles):.2f} if all were "
        "equally likely (Rayleigh's test).",
        f"**Cost** of one clip of {pipe.config.frames} frames, in seconds of one core; the mesh is "
        "made in both:",
        table(["", "seconds"], [[name, f"{value:.1f}"] for name, value in spent.items()]),
        "Written by `python -m benchmarks.flows`.",
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
