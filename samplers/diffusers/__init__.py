"""Layer 6. Integration with diffusers: a scheduler, a pipeline and modular blocks.

``config`` reads scheduler configs into ``settings``; ``scheduler`` runs a tableau as a scheduler's
``step``; ``denoiser`` makes a denoiser of a pipeline's network; ``restoration`` and ``blocks`` are
pipelines with a loop of ours. The mathematics of samplers does not belong here.
"""
