"""The gap between samples of the probability-flow ODE and of the reverse SDE.

With the exact score and small steps both have the distribution of the data. The gap that remains as
the steps go to zero is due to the score, and bounded by its residual. Where the score is wrong
enough, some samples escape, and a squared distance is that of these few samples alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from adjoint.fokker_planck.distances import Distance, sliced_wasserstein
from adjoint.fokker_planck.escape import Box, Escape, bulk_of, escaped, range_of


class Gap(NamedTuple):
    """Distances at one number of steps; those to the data are NaN without data.

    Attributes:
        steps: the number of steps.
        ode_sde, ode_data, sde_data: the distances.
        inside: the distance of ODE and SDE samples within the box, NaN if there are fewer than two.
        box: the interval in which coordinates should lie.
        ode, sde: the samples outside the box.
    """

    steps: int
    ode_sde: float
    ode_data: float
    sde_data: float
    inside: float
    box: Box
    ode: Escape
    sde: Escape

    @property
    def escapes_dominate(self) -> bool:
        """Whether samples outside the box make up more than half of the distance."""
        if self.ode.share == self.sde.share == 0:
            return False
        return not self.ode_sde - self.inside <= abs(self.ode_sde) / 2  # so it is with NaN

    @property
    def warning(self) -> str:
        """Which samples dominate the distance."""
        (low, high), furthest = self.box, max(self.ode.furthest, self.sde.furthest)
        return (
            f"At {self.steps} steps {self.ode.share:.2%} of the ODE's samples and "
            f"{self.sde.share:.2%} of the SDE's lie outside [{low:.4g}, {high:.4g}], as far as "
            f"{furthest:.4g}, and make up most of their distance, which is {self.ode_sde:.4g}, but "
            f"{self.inside:.4g} for the others; trim them, or report both numbers."
        )


def ode_sde_gap(
    ode: Callable[[int], Tensor],
    sde: Callable[[int], Tensor],
    steps: Sequence[int],
    distance: Distance = sliced_wasserstein,
    data: Tensor | None = None,
    *,
    box: Box | None = None,
    trim: bool = False,
) -> list[Gap]:
    """The distances of ODE samples, SDE samples and data, at several numbers of steps.

    Args:
        ode, sde: from a number of steps to samples [N, ...], by a deterministic and by a stochastic
            sampler. The limit of the gap for many steps is due to the score, not to the steps.
        distance: of two sets of samples.
        data: samples of the data, of the same shape.
        box: samples outside are counted as escaped; by default the range of the data, a tenth wider
            at both sides, or without data that of all but the outermost hundredth of the
            coordinates of the SDE's samples, three times as wide.
        trim: leave out the samples outside the box, and so many of the last of the larger set that
            both sets have one size. This hides a defect of the score: report the share, too.

    Warns if samples outside the box make up more than half of a distance.
    """
    found = [measure_gap(ode(n), sde(n), n, distance, data, box=box, trim=trim) for n in steps]
    for gap in found:
        if gap.escapes_dominate:
            warnings.warn(gap.warning, stacklevel=2)
    return found


def measure_gap(
    ode: Tensor,
    sde: Tensor,
    steps: int,
    distance: Distance = sliced_wasserstein,
    data: Tensor | None = None,
    *,
    box: Box | None = None,
    trim: bool = False,
) -> Gap:
    """:func:`ode_sde_gap` of two sets of samples, without a warning."""
    chosen = box or (bulk_of(sde) if data is None else range_of(data))
    escapes = escaped(ode, chosen), escaped(sde, chosen)

    def inside(one: Tensor, other: Tensor) -> float:
        a, b = (x[chosen.holds(x)] for x in (one, other))
        count = min(len(a), len(b))
        return distance(a[:count], b[:count]) if count > 1 else math.nan

    of_pair = inside if trim else distance
    ode_data, sde_data = (math.nan if data is None else of_pair(x, data) for x in (ode, sde))
    none = escapes[0].share == escapes[1].share == 0
    whole = of_pair(ode, sde)
    within = whole if none or trim else inside(ode, sde)
    return Gap(steps, whole, ode_data, sde_data, within, chosen, *escapes)
