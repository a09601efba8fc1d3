"""Diffusion over the latents of flows: a transformer that is told a sentence, numbers, a frame.

Here live what it is told (``conditions``), the network (``transformer``) and its sizes
(``presets``), and what it learns (``learning``). Nothing here knows meshes or equations; what comes
out is a plain denoiser.
"""
