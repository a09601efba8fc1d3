"""Layer 5. The probability-flow ODE with adaptive steps: samples, likelihoods and latent codes.

``integration`` chooses the steps of each sample and knows no network; ``adaptive`` makes a network
the slope of the ODE; ``likelihood`` and ``codes`` follow it from data to noise. No sampler of a
fixed grid lives here.
"""
