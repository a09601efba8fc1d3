"""Solutions of partial differential equations from a sentence, by latent diffusion on meshes.

Here will live meshes, the mesh autoencoder, the latent diffusion model, its data and its pipeline.
Its denoiser is an ordinary one, so every sampler of :mod:`samplers`, which this package imports,
works on it: no sampler belongs here, and no gradient of one, which is ``adjoint``'s work.
"""
