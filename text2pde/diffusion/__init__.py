"""Diffusion over the latents of flows: a transformer that is told a sentence, numbers, a frame.

Here live what it is told (``conditions``), the network (``transformer``), what it learns
(``learning``) and its training (``run``). Nothing here knows meshes or equations; what comes out is
a plain denoiser.
"""

from text2pde.diffusion.conditions import Conditions, without
from text2pde.diffusion.transformer import PRESETS, FlowTransformer

__all__ = ["PRESETS", "Conditions", "FlowTransformer", "without"]
