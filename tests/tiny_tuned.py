"""Samplers as if they had been tuned, for tests of where they go."""

from __future__ import annotations

import torch

from samplers import Schedule, Start, TunedSampler
from samplers.tuning import About
from samplers.tuning.purpose import Scores, trained_range


def as_if_tuned(
    schedule: Schedule,
    nfe: int = 4,
    *,
    weights: str | None = None,
    guidance: float = 1.0,
    memory: int | None = None,
) -> TunedSampler:
    """A sampler with levels, times and weights that no other has.

    Args:
        memory: how many predictions a row combines; None for all.
    """
    table = Start("unipc-2", "quadratic", None).table(schedule, nfe).remembering(memory)
    generator = torch.Generator().manual_seed(nfe)
    moved = 0.1 * torch.rand(nfe, generator=generator).double()
    moved[0] = 0.0
    change = 0.05 * torch.randn(table.weights.shape, generator=generator).double().tril()
    change[:, 0] -= change.sum(dim=1)
    table = table._replace(times=table.times - moved, weights=table.weights + change)
    scores = Scores(geometric_mean=0.1, quantile_95=0.2, rms=0.1)
    about = About(
        base="unipc-2, quadratic to the trained level",
        learned=["grid", "times", "weights"],
        memory=memory,
        objective="log",
        prediction="epsilon",
        schedule=repr(schedule),
        trained_range=trained_range(schedule),
        weights=weights,
        guidance=guidance,
        conditions="none",
        held_out=64,
        teacher="dpmpp-3m, 60 steps",
        teacher_error=1e-3,
        before=Scores(geometric_mean=0.3, quantile_95=0.4, rms=0.3),
        after=scores,
        licence="CC0-1.0",
    )
    return TunedSampler(table, about)
