"""Diffusion over the latents of clips, conditioned on text, parameters or a first frame.

Here live the text encoder (``text_encoder``), what the network is conditioned on (``conditions``),
the network and its sizes (``transformer``), and its loss (``objective``). Nothing here knows meshes
or equations.
"""
