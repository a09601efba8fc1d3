"""Layer 5. The probability-flow ODE with adaptive step size: samples, likelihoods, latent codes.

``integration`` is the solver with step size control, ``units`` measures its steps by the scale of
the data; ``adaptive`` defines the ODE of a denoiser and samples from it; ``likelihood`` and
``codes`` solve it from data to noise. Fixed-grid samplers do not belong here.
"""

from samplers.probability_flow.adaptive import AdaptiveResult, sample_adaptive
from samplers.probability_flow.codes import decode, encode, interpolate, tempered
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import (
    ExactTrace,
    Hutchinson,
    Likelihood,
    bits_per_dim,
    dequantised,
    log_likelihood,
)

__all__ = [
    "Adaptive",
    "AdaptiveResult",
    "ExactTrace",
    "Hutchinson",
    "Likelihood",
    "bits_per_dim",
    "decode",
    "dequantised",
    "encode",
    "interpolate",
    "log_likelihood",
    "sample_adaptive",
    "tempered",
]
