"""Layer 6. Samplers as functions of k-diffusion's signature, for its loops and for ComfyUI.

``levels`` reads what a model says of its noise levels, and makes the grid of the caller's;
``noise`` chooses the noise, ``run`` evaluates the model; ``function`` checks options and calls
them. Nothing is imported from k-diffusion or ComfyUI, and the mathematics of samplers does not
belong here.
"""

from samplers.k_diffusion.function import SamplingFunction, sampler

__all__ = ["SamplingFunction", "sampler"]
