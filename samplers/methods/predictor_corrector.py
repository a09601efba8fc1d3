r"""Predictor-corrector samplers: Langevin steps between the steps of a reverse SDE.

(Song et al. 2021, section 4.2 and algorithm 1, https://arxiv.org/abs/2011.13456.) After the
predictor has reached a noise level, the corrector moves the sample at that level towards its
marginal, by Langevin dynamics with the step 2 r^2 sigma^2, r being the *signal-to-noise ratio* of
the paper (``snr``):

.. math:: x \leftarrow x + \epsilon \, s(x, t) + \sqrt{2 \epsilon} \, z
    = x - \delta \sigma \varepsilon + \sqrt{2 \delta} \, \sigma z,
    \qquad \epsilon = \delta \sigma^2, \quad \delta = 2 r^2

Nothing is corrected at the initial noise, whose distribution is exact, nor at sigma = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from samplers.checks import check_whole
from samplers.draft import Draft
from samplers.grid import Grid
from samplers.methods.dpm_solver import check_eta
from samplers.methods.reverse_sde import Predictor
from samplers.schedule import Point
from samplers.tableau import Scaling, Tableau

Corrector = Literal["langevin", "annealed-langevin"]

# The steps of annealed Langevin dynamics follow from the schedule, those of Langevin from norms.
_SCALING: Mapping[Corrector, Scaling] = {"langevin": "batch-norm", "annealed-langevin": "none"}


def predictor_corrector(
    grid: Grid,
    *,
    predictor: Predictor,
    corrector: Corrector,
    corrector_steps: int = 1,
    snr: float = 0.16,
    eta: float = 1.0,
) -> Tableau:
    r"""A predictor step to each noise level, then ``corrector_steps`` Langevin steps there.

    .. math:: x \leftarrow x - \delta \sigma \varepsilon + \sqrt{2 \delta} \, \sigma z,
              \qquad \delta = 2 r^2

    Args:
        corrector: ``annealed-langevin`` takes the step above, which follows from the schedule
            alone: samples do not depend on each other, and the bias vanishes with ``snr``.
            ``langevin`` is the paper's, without the factor 1 - beta_i of its algorithm 5 for VP:
            delta is multiplied by the squared ratio of the norms of z and eps, each averaged over
            the batch, so its bias falls with the batch size only. (Norms of each sample alone are
            not offered: even on N(0, I_16) the variance would be 1.26.)
        corrector_steps: 1 or more; each evaluates the network once.
        snr: r, zero or positive; 0.16 in the paper's experiments on CIFAR-10.
        eta: the predictor's share of the reverse SDE's noise.
    """
    check_eta(eta)
    check_whole("corrector_steps", corrector_steps)
    if not 0 <= snr < 1:
        raise ValueError(f"snr is {snr}; it must be at least 0 and below 1.")
    draft = Draft(grid)
    for _, nxt in draft.intervals():
        predictor(draft, draft.evaluate(), nxt, eta)
        for _ in range(corrector_steps if nxt.finite else 0):
            _correct(draft, nxt, snr, _SCALING[corrector])
    return draft.tableau()


def _correct(draft: Draft, at: Point, snr: float, scaling: Scaling) -> None:
    delta = 2 * snr * snr
    x = draft.x - delta * at.sigma * draft.evaluate().noise
    # On data concentrated at one point the variance grows by (1 - delta)^2 + 2 delta.
    draft.append(x + math.sqrt(2 * delta) * at.sigma * draft.z, at, delta**2 / 2, scaling)
