"""Sampling from diffusion models: every fixed-grid sampler is a table of coefficients.

The public names are listed in ``__init__.pyi`` and imported on first use (PEP 562), so that
``import samplers`` is quick and imports neither torch nor diffusers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
