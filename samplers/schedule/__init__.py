r"""Layer 0. Noise schedules: how much signal and how much noise a sample holds at time t.

Every schedule describes the marginals of one diffusion process,

.. math:: x_t = \alpha_t x_0 + \sigma_t \varepsilon, \qquad \varepsilon \sim N(0, I),

by two float64 functions of a continuous time t, differentiable in t. The half log-SNR
``lam = log(alpha / sigma)`` decreases strictly in t, so it is a time variable as good as t, and the
one in which most samplers are written.

``base`` holds the interface; each other module holds one family. Nothing here knows networks,
grids or samplers.
"""

from samplers.schedule.base import Point, Schedule, shifted
from samplers.schedule.discrete import VPDiscrete
from samplers.schedule.flow_matching import FlowMatching
from samplers.schedule.mean_reverting import MeanReverting
from samplers.schedule.variance_exploding import EDM, VE, EDMPreconditioned, VarianceExploding
from samplers.schedule.variance_preserving import (
    SubVP,
    VariancePreserving,
    VPCosine,
    VPLinear,
    VPScaledLinear,
)

__all__ = [
    "EDM",
    "VE",
    "EDMPreconditioned",
    "FlowMatching",
    "MeanReverting",
    "Point",
    "Schedule",
    "SubVP",
    "VPCosine",
    "VPDiscrete",
    "VPLinear",
    "VPScaledLinear",
    "VarianceExploding",
    "VariancePreserving",
    "shifted",
]
