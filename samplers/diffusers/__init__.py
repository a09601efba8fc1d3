"""Layer 6. Integration with diffusers: a scheduler, a pipeline and modular blocks.

``classes`` finds the class of a scheduler config, ``config`` reads it into ``settings``;
``scheduler`` runs a tableau as a scheduler's ``step``, ``conversion`` makes its config of another
class's, and ``timesteps`` is what pipelines see of it; ``denoiser`` makes a denoiser of a
pipeline's network; ``restoration`` and ``blocks`` are pipelines with a loop of ours. The
mathematics of samplers does not belong here.

The public names are listed in ``__init__.pyi``, and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
