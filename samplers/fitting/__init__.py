r"""Layer 6. Noise levels fitted to a network: the grid on which a sampler errs least.

- ``pilots``: converged trajectories of a few samples;
- ``estimate``: the error of a sampler on any grid, without network evaluations;
- ``levels``: grids as a few unconstrained numbers;
- ``search``: steps on the estimate, each confirmed by a real run;
- ``geometry``: the choice of GITS;
- ``fitted``: the result, and its file;
- ``fit``: :func:`samplers.fit_grid`.

Nothing here is learned by gradients (that is ``tuning``), and nothing knows the command line,
diffusers or a folder of a checkpoint. The public names are listed in ``__init__.pyi``, and imported
on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
