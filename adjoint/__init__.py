"""Gradients through sampling: adjoints of every sampler, rewards, and what is learned from them.

An adjoint is the argument ``adjoint`` of :func:`samplers.sample`; it says how the gradient of the
finished sample is backpropagated to the initial noise, the conditions and the weights::

    from adjoint import CheckpointAdjoint

    x_0 = sample(model, x_T, adjoint=CheckpointAdjoint())
    loss(x_0).backward()

The public names are listed in ``__init__.pyi`` and imported on first use (PEP 562), so that
``import adjoint`` is quick; further ones are in :mod:`adjoint.rewards` (metrics of images),
:mod:`adjoint.finetune` (training by a reward) and :mod:`adjoint.fokker_planck` (the residual of a
score, regularisers, distances of distributions).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
