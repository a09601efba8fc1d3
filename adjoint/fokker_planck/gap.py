"""The gap between samples of the probability-flow ODE and of the reverse SDE.

With the exact score and small steps both have the distribution of the data. The gap that remains as
the steps go to zero is due to the score, and bounded by its residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from adjoint.fokker_planck.distances import Distance, sliced_wasserstein


class Gap(NamedTuple):
    """Distances at one number of steps; those to the data are NaN without data."""

    steps: int
    ode_sde: float
    ode_data: float
    sde_data: float


def ode_sde_gap(
    ode: Callable[[int], Tensor],
    sde: Callable[[int], Tensor],
    steps: Sequence[int],
    distance: Distance = sliced_wasserstein,
    data: Tensor | None = None,
) -> list[Gap]:
    """The distances of ODE samples, SDE samples and data, at several numbers of steps.

    Args:
        ode, sde: from a number of steps to samples [N, ...], by a deterministic and by a stochastic
            sampler. The limit of the gap for many steps is due to the score, not to the steps.
        distance: of two sets of samples.
        data: samples of the data, of the same shape.
    """
    found = []
    for count in steps:
        one, other = ode(count), sde(count)
        of_data = [math.nan if data is None else distance(x, data) for x in (one, other)]
        found.append(Gap(count, distance(one, other), *of_data))
    return found
