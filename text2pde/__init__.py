"""Solutions of partial differential equations from text, by latent diffusion on meshes.

The public names are listed in ``__init__.pyi`` and imported on first use (PEP 562), so that
``import text2pde`` is quick. The modules, each of which imports only those before it:

- ``mesh``: triangular meshes;
- ``subject``: what a model is about, as parameters, ranges and captions;
- ``data``: clips, files, statistics;
- ``solver``: the equations, and data sets of their solutions;
- ``autoencoder``: meshes to latents;
- ``diffusion``: the transformer over latents;
- ``pipeline`` and ``training``: both as one pipeline;
- ``evaluation``, ``figures``, ``export``: what comes out;
- ``cli``: the command ``text2pde``.

The pipeline's denoiser is an ordinary one, so that every sampler of :mod:`samplers` works on it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
