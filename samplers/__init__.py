"""Sampling from diffusion models: every fixed-grid sampler as a table of numbers.

From the bottom: :mod:`samplers.schedule`, :mod:`samplers.noise`, :mod:`samplers.prediction`,
:mod:`samplers.grid`, :mod:`samplers.tableau`, :mod:`samplers.solve`, :mod:`samplers.methods`,
:mod:`samplers.registry`, :mod:`samplers.sample`, :mod:`samplers.adaptive`; on top of these inverse
problems, the scheduler for diffusers, the training loop and the command line. A module imports
from those before it only.
"""

from typing import TYPE_CHECKING

from samplers.adaptive import sample_adaptive
from samplers.integrate import Adaptive
from samplers.registry import Sampler, get_sampler, list_adaptive, list_samplers
from samplers.sample import sample

if TYPE_CHECKING:
    from samplers.diffusers_scheduler import SamplerScheduler

__all__ = [
    "Adaptive",
    "Sampler",
    "SamplerScheduler",
    "get_sampler",
    "list_adaptive",
    "list_samplers",
    "sample",
    "sample_adaptive",
]


def __getattr__(name: str) -> object:
    # diffusers takes seconds to import, and only its users need the scheduler.
    if name == "SamplerScheduler":
        from samplers.diffusers_scheduler import SamplerScheduler

        return SamplerScheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
