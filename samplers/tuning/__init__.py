r"""Layer 6. Samplers learned for a network: which noise levels, weights and times err least.

- ``table``: the numbers of a sampler with one evaluation per row, and their tableau;
- ``parameters``: the same numbers, unconstrained;
- ``objective``: distances of samples to their targets, and scores;
- ``problem``: samples to train on, and gradients through a table;
- ``processes``: what several processes share;
- ``teacher``: the converged samples;
- ``starts``: the best untuned sampler;
- ``learner``: the iteration, and its state on disk;
- ``loop``: :func:`samplers.tune`;
- ``levels``: half log-SNR, finite or not;
- ``purpose``: what a sampler or a grid is for, in facts that are compared;
- ``file``: reading and writing;
- ``sampler``: the result, and its file.

Nothing here knows the command line, diffusers or a folder of a checkpoint. The public names are
listed in ``__init__.pyi``, and imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
