"""A scheduler, a network and noise for loops as pipelines write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from samplers import SamplerScheduler
from samplers.diffusers.classes import HasConfig

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
VP = {"_class_name": "DDIMScheduler", "clip_sample": False, "timestep_spacing": "trailing"}


def made(config: Mapping[str, Any] | HasConfig = VP, **kwargs: Any) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(config, **kwargs)
    assert isinstance(scheduler, SamplerScheduler)
    return scheduler


def network(x: Tensor, t: Tensor | float) -> Tensor:
    """An eps- or flow-network that treats every number of x alike."""
    return torch.tanh(x) + 0.1 * torch.cos(torch.as_tensor(t) / 100)


def noise(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(seed))
