"""Runs of the scheduler that are split, shared, copied or begun in the middle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from samplers import SamplerScheduler

diffusers.utils.logging.set_verbosity_error()

VP = {"_class_name": "DDIMScheduler", "clip_sample": False, "timestep_spacing": "trailing"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def made(config: Mapping[str, Any] = VP, **kwargs: Any) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(config, **kwargs)
    assert isinstance(scheduler, SamplerScheduler)
    return scheduler


def network(x: Tensor, t: Tensor | float) -> Tensor:
    """An eps- or flow-network that treats every number of x alike."""
    return torch.tanh(x) + 0.1 * torch.cos(torch.as_tensor(t) / 100)


def noise(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(seed))


# Noise added by pipelines and training scripts


def img2img(scheduler: SamplerScheduler, steps: int = 5, begin: int = 2) -> None:
    """An image-to-image run from the step ``begin`` to the end."""
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(begin * scheduler.order)
    x = noise()
    for t in scheduler.timesteps[begin * scheduler.order :]:
        x = scheduler.step(network(x, t), t, x).prev_sample


def planned(scheduler: SamplerScheduler) -> None:
    scheduler.set_timesteps(5)


def begun(scheduler: SamplerScheduler) -> None:
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2)


def cancelled(scheduler: SamplerScheduler) -> None:
    begun(scheduler)
    scheduler.step(noise(), scheduler.timesteps[2], noise())


@pytest.mark.parametrize("before", [planned, begun, cancelled, img2img])
def test_a_trainer_may_share_the_scheduler_of_a_run(
    before: Callable[[SamplerScheduler], None],
) -> None:
    theirs, ours = diffusers.DDIMScheduler(), made(sampler="ddim")
    before(ours)
    x, z, t = noise(), noise(seed=1), torch.tensor([10, 900])
    torch.testing.assert_close(ours.add_noise(x, z, t), theirs.add_noise(x, z, t))
    torch.testing.assert_close(
        ours.get_velocity(x, z, t), theirs.get_velocity(x, z, t), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("before", [planned, begun, cancelled, img2img])
def test_a_trainer_may_share_a_flow_scheduler(before: Callable[[SamplerScheduler], None]) -> None:
    ours = made(FLOW, sampler="ddim")
    before(ours)
    x, z, t = noise(), noise(seed=1), torch.tensor([10.0, 900.0])
    u = (t / 1000)[:, None, None]
    torch.testing.assert_close(ours.scale_noise(x, t, z), (1 - u) * x + u * z)


@pytest.mark.parametrize("config", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm-solver-3"])
def test_noise_at_a_timestep_is_that_of_its_row(sampler: str, config: dict[str, Any]) -> None:
    """Inpainting pipelines pass the next timestep, also within a step."""
    scheduler = made(config, sampler=sampler, grid="karras")
    scheduler.set_timesteps(5)
    x, z = noise(), noise(seed=1)
    for row, t in zip(scheduler.tableau.rows, scheduler.timesteps, strict=True):
        expected = (row.at.alpha * x + row.at.sigma * z).float()
        torch.testing.assert_close(scheduler.add_noise(x, z, t), expected, rtol=1e-5, atol=1e-6)
