"""Layer 6. Image restoration by mean-reverting diffusion, whose mean is the degraded image.

Here live the coordinates in which such a network is an ordinary denoiser (``process``), training
losses (``loss``), degradations (``degradations``), and metrics (``quality``). The schedule is
:class:`samplers.schedule.MeanReverting`; samplers are those of the registry.
"""

from samplers.restoration.degradations import (
    DEGRADATIONS,
    Degradation,
    degrade,
    get_degradation,
)
from samplers.restoration.loss import restoration_loss
from samplers.restoration.process import Predicts, RestorationProcess, restore
from samplers.restoration.quality import psnr

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "Predicts",
    "RestorationProcess",
    "degrade",
    "get_degradation",
    "psnr",
    "restoration_loss",
    "restore",
]
