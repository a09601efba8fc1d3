"""Gradients through sampling: how one passes back through a tableau, and what it is used for.

Here live the ways back (``direct``, ``checkpoint``, ``truncated``, ``reversible``,
``continuous``), what they cost, gradients through pipelines, rewards, and what is made with them.
Samplers, schedules and networks'
predictions belong to :mod:`samplers`, which this package imports; meshes and equations belong to
``text2pde``, which it does not.
"""

from adjoint.base import Adjoint, Cost
from adjoint.checkpoint import Checkpoint
from adjoint.continuous import Backsolve, Recorded
from adjoint.direct import Direct
from adjoint.measure import Estimate, estimate, verify
from adjoint.pipelines import differentiable
from adjoint.reversible import Reversible
from adjoint.truncated import Truncated

__all__ = [
    "Adjoint",
    "Backsolve",
    "Checkpoint",
    "Cost",
    "Direct",
    "Estimate",
    "Recorded",
    "Reversible",
    "Truncated",
    "differentiable",
    "estimate",
    "verify",
]
