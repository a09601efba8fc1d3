"""One of several processes that tune a sampler together."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import distributed

from samplers.schedule import VPDiscrete
from samplers.tuning import Start, TunedSampler, TuningConfig, tune
from tests.mixture import PLANE

CONFIG = TuningConfig(
    iterations=12, batch_size=15, held_out=17, check_every=4, teacher_steps=60, radius=0.05
)


def learn(folder: Path | None = None) -> TunedSampler:
    model = PLANE.model(VPDiscrete.linear(), "epsilon")
    x_T = model.initial((2,), range(50), dtype=torch.float64)
    start = Start("unipc-2", "quadratic", 0.1)
    return tune(model, x_T, 5, config=CONFIG, start=start, folder=folder)


def join_and_learn(rank: int, count: int, folder: Path) -> None:
    """Learn with the others, and save the sampler as each process has it."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    learn(folder).save(folder / f"{rank}.json")
    distributed.destroy_process_group()
