"""Layer 6. The border to diffusers: schedulers, pipelines and modular blocks over the tableaux.

``config`` reads scheduler configs into ``settings``; ``scheduler`` runs a tableau as a scheduler's
``step``; ``denoiser`` is the network of a pipeline as a model; ``restoration`` and ``blocks`` are
pipelines that own their loop. No sampler's mathematics lives here.
"""
