"""Layer 6. Restoring images by mean-reverting diffusion, whose mean is the degraded image.

Here live the coordinates in which such a network is a plain denoiser (``process``), what it learns
(``loss``), what degrades images (``degradations``), and how well they were mended (``quality``).
Its schedule is :class:`samplers.schedule.MeanReverting`; samplers are those of the registry, and
none is defined here.
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
