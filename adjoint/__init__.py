"""Gradients through sampling: how one passes back through a tableau, and what it is used for.

Here will live the exact gradient with checkpoints, AdjointDPM, truncated and reversible gradients,
the Fokker-Planck penalty, rewards, and fine-tuning by a metric. Samplers, schedules and networks'
predictions belong to :mod:`samplers`, which this package imports; meshes and equations belong to
``text2pde``, which it does not.
"""
