"""Layer 5. The probability-flow ODE with adaptive steps: samples, likelihoods and latent codes.

``integration`` chooses the steps of each sample and knows no network; ``adaptive`` makes a network
the slope of the ODE; ``likelihood`` and ``codes`` follow it from data to noise. No sampler of a
fixed grid lives here.
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
