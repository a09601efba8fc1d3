"""Solutions of partial differential equations from a sentence, by latent diffusion on meshes.

Here live meshes (``mesh``), a channel and what flows through it (``channel``), the equations
(``solver``), flows as data (``flows``), what a sentence says (``captions``), the mesh autoencoder
(``autoencoder``), pictures and the command line; the latent diffusion model and its pipeline are to
come. Its denoiser will be an ordinary one, so every sampler of :mod:`samplers`, which this package
imports, works on it: no sampler belongs here, and no gradient of one, which is ``adjoint``'s work.
"""
