# The public names of samplers.fitting. Read by type checkers, and by lazy_loader.
from .fit import fit_grid as fit_grid
from .fitted import AboutGrid as AboutGrid
from .fitted import Criterion as Criterion
from .fitted import FittedGrid as FittedGrid
from .fitted import load_grid as load_grid

__all__: list[str]
