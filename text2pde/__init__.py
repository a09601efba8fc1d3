"""Solutions of partial differential equations from a sentence, by latent diffusion on meshes.

Here live meshes (``mesh``, ``mesh_files``), what is simulated (``channel``, ``plume``, ``scene``,
``subjects``), the equations (``solver``), flows as data (``flows``), what a sentence says
(``captions``) and how it is encoded (``text``), the mesh autoencoder (``autoencoder``), diffusion
over its latents (``diffusion``), the pipeline of all of them and its training (``pipeline``,
``pipeline_training``), how good it is (``evaluation``), pictures and the command line. The denoiser
is an ordinary one, so every sampler of :mod:`samplers`, which this package imports, works on it: no
sampler belongs here, and no gradient of one, which is ``adjoint``'s work.
"""
