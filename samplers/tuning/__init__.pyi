# The public names of samplers.tuning. Read by type checkers, and by lazy_loader.
from .config import Part as Part
from .config import TuningConfig as TuningConfig
from .file import TunedError as TunedError
from .loop import check_nfe as check_nfe
from .loop import tune as tune
from .loop import tune_family as tune_family
from .objective import Loss as Loss
from .objective import Score as Score
from .purpose import Purpose as Purpose
from .sampler import About as About
from .sampler import TunedSampler as TunedSampler
from .sampler import load_sampler as load_sampler
from .starts import Start as Start

__all__: list[str]
