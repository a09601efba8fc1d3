"""Sampling from diffusion models: every fixed-grid sampler as a table of numbers.

The names below are the public interface; they are imported on first use (PEP 562), so that
``import samplers`` is quick.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samplers.diffusers_scheduler import SamplerScheduler
    from samplers.errors import NotFiniteError
    from samplers.probability_flow.adaptive import sample_adaptive
    from samplers.probability_flow.integration import Adaptive
    from samplers.registry import Sampler, get_sampler, list_adaptive, list_samplers
    from samplers.sampling import sample

_HOMES = {
    "Adaptive": "samplers.probability_flow.integration",
    "NotFiniteError": "samplers.errors",
    "Sampler": "samplers.registry",
    "SamplerScheduler": "samplers.diffusers_scheduler",
    "get_sampler": "samplers.registry",
    "list_adaptive": "samplers.registry",
    "list_samplers": "samplers.registry",
    "sample": "samplers.sampling",
    "sample_adaptive": "samplers.probability_flow.adaptive",
}

__all__ = [
    "Adaptive",
    "NotFiniteError",
    "Sampler",
    "SamplerScheduler",
    "get_sampler",
    "list_adaptive",
    "list_samplers",
    "sample",
    "sample_adaptive",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
