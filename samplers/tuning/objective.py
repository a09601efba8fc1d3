r"""How far samples are from their targets: what is minimised, and what is reported.

Errors are relative, and per sample, so that no rare sample decides alone:

.. math:: e_i = \frac{\lVert x_i - x_i^* \rVert}{\lVert x_i^* \rVert}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.choices import DistanceName

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(x, target) -> [B]``: of each sample and its target, both [B, ...]; smaller is better."""

_TINY = 1e-30


def name_of(loss: Loss) -> str:
    """The name of a loss, by which files and the states of runs know it."""
    return getattr(loss, "__qualname__", type(loss).__name__)


def relative_errors(x: Tensor, target: Tensor) -> Tensor:
    """e of each sample [B], in float64."""
    error, size = (v.double().flatten(1).square().sum(dim=1) for v in (x - target, target))
    return (error.clamp(min=_TINY) / size.clamp(min=_TINY)).sqrt()


def log_errors(x: Tensor, target: Tensor) -> Tensor:
    """log e of each sample [B], whose mean is the logarithm of the geometric mean."""
    return relative_errors(x, target).log()


def squared_errors(x: Tensor, target: Tensor) -> Tensor:
    """The mean square of each error [B]."""
    return (x - target).double().flatten(1).square().mean(dim=1)


def balanced_errors(x: Tensor, target: Tensor) -> Tensor:
    """The mean of log e of each sample and the logarithm of the batch's root mean square [B].

    The first makes every sample count alike, the second holds back the rare large errors.
    """
    rms = squared_errors(x, target).mean().clamp(min=_TINY).log() / 2
    return (log_errors(x, target) + rms) / 2


DISTANCES: dict[DistanceName, Loss] = {
    "balanced": balanced_errors,
    "log": log_errors,
    "rms": squared_errors,
}


class Score(NamedTuple):
    """The errors of a set of samples.

    Attributes:
        geometric_mean, quantile_95: of the relative errors e.
        rms: the root mean square of all errors, relative to that of the targets.
    """

    geometric_mean: float
    quantile_95: float
    rms: float

    @classmethod
    def of(cls, x: Tensor, target: Tensor) -> Score:
        errors = relative_errors(x, target)
        rms = (squared_errors(x, target).mean() / target.double().square().mean()).sqrt()
        return cls(
            float(errors.log().mean().exp()), float(torch.quantile(errors, 0.95)), float(rms)
        )

    def no_worse_than(self, other: Score) -> bool:
        """Whether neither mean is larger."""
        return self.geometric_mean <= other.geometric_mean and self.rms <= other.rms
