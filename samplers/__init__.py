"""Sampling from diffusion models: every fixed-grid sampler as a table of numbers.

From the bottom: :mod:`samplers.schedule`, :mod:`samplers.noise`, :mod:`samplers.prediction`,
:mod:`samplers.grid`, :mod:`samplers.tableau`, :mod:`samplers.solve`, :mod:`samplers.methods`,
:mod:`samplers.registry`, :mod:`samplers.sample`. A module imports from those before it only.
"""

from samplers.registry import Sampler, get_sampler, list_samplers
from samplers.sample import sample

__all__ = ["Sampler", "get_sampler", "list_samplers", "sample"]
