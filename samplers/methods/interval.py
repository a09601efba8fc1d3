r"""One step of an exponential integrator, shared by the families built on the log-SNR.

With ``lam = log(alpha / sigma)`` and eta scaling the noise of the reverse SDE (0 is the
probability-flow ODE, 1 the reverse SDE; Song et al. 2021, eq. 6 and 13), the exact solution from
s to t, h = lam_t - lam_s, is in data prediction

.. math:: x_t = \frac{\sigma_t}{\sigma_s} e^{-\eta h} x_s + (1 + \eta) \alpha_t
    \int_0^h e^{-(1 + \eta)(h - \tau)} D \, d\tau + \sigma_t \sqrt{1 - e^{-2 \eta h}} \, z

and in noise prediction

.. math:: x_t = \frac{\alpha_t}{\alpha_s} x_s - (1 + \eta) \sigma_t
    \int_0^h e^{h - \tau} \varepsilon \, d\tau + \sigma_t \sqrt{\eta (e^{2h} - 1)} \, z

(Lu et al. 2022, *DPM-Solver++*, https://arxiv.org/abs/2211.01095). Both are
``decay * x_s + gain(1) * f + noise * z`` if the prediction f does not change within the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from samplers.draft import Combination, Draft, Evaluation
from samplers.phi import lagrange_weights, phi
from samplers.schedule import Point

Predicting = Literal["data", "noise"]


@dataclass(frozen=True)
class Interval:
    r"""A step between two points of finite log-SNR, and the coefficients of its exact solution.

    With h the step in the half log-SNR, from s to t, and f the prediction:

    ==========  ===================================  ======================================
    number      data prediction, f = D               noise prediction, f = eps
    ==========  ===================================  ======================================
    decay       sigma_t / sigma_s e^(-eta h)         alpha_t / alpha_s
    gain_k      (1 + eta) h alpha_t phi_k(z),        -(1 + eta) h sigma_t phi_k(z),
                z = -(1 + eta) h                     z = h
    noise       sigma_t sqrt(1 - e^(-2 eta h))       sigma_t sqrt(eta (e^(2 h) - 1))
    ==========  ===================================  ======================================

    with ``phi_1(z) = (e^z - 1) / z`` and ``phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z``. If f does not
    change within the step, ``x_t = decay x_s + gain_1 f + noise z`` is exact.
    """

    now: Point
    nxt: Point
    predicting: Predicting
    eta: float = 0.0

    @property
    def h(self) -> Tensor:
        return self.nxt.lam - self.now.lam

    @property
    def z(self) -> Tensor:
        """The argument of the phi functions."""
        return -(1 + self.eta) * self.h if self.predicting == "data" else self.h

    @property
    def decay(self) -> Tensor:
        if self.predicting == "data":
            return self.nxt.sigma / self.now.sigma * torch.exp(-self.eta * self.h)
        return self.nxt.alpha / self.now.alpha

    @property
    def noise(self) -> Tensor:
        if self.predicting == "data":
            return self.nxt.sigma * torch.sqrt(-torch.expm1(-2 * self.eta * self.h))
        return self.nxt.sigma * torch.sqrt(self.eta * torch.expm1(2 * self.h))

    def clock(self, point: Point) -> Tensor:
        r"""The method's time variable at a point, in which its noise is a Brownian path.

        In data prediction ``e^{2 eta lam}``, the signal-to-noise ratio if eta = 1; in noise
        prediction rho^2 = (sigma / alpha)^2. The difference over a step is its noise variance, up
        to the factors of later steps, so the coupling is exact.
        """
        if self.predicting == "data":
            return torch.exp(2 * self.eta * point.lam)
        return point.rho.square()

    @property
    def local_error(self) -> float:
        """The error of an SDE step's variance from constant eps; zero in data prediction."""
        if self.predicting == "data":
            return 0.0
        return self.eta * (1 + self.eta) * float(torch.expm1(self.h.detach())) ** 2

    def gain(self, k: int) -> Tensor:
        """The coefficient of ``f^(k-1) h^(k-1)``: the step's scale times phi_k."""
        rate = (1 + self.eta) * self.h
        scale = self.nxt.alpha if self.predicting == "data" else -self.nxt.sigma
        return scale * rate * phi(k, self.z)

    def weights(self, lams: list[Tensor]) -> list[Tensor]:
        """Coefficients of the predictions made at ``lams``: exact for the polynomial through
        them."""
        rate = (1 + self.eta) * self.h
        scale = self.nxt.alpha if self.predicting == "data" else -self.nxt.sigma
        nodes = [(lam - self.now.lam) / self.h for lam in lams]
        return [scale * rate * weight for weight in lagrange_weights(nodes, self.z)]

    def f(self, evaluation: Evaluation) -> Combination:
        """The integrand of this step, D or eps of an evaluation."""
        return evaluation.data if self.predicting == "data" else evaluation.noise


def ddim(known: Evaluation, nxt: Point) -> Combination:
    r"""The DDIM step in data prediction, which holds for every log-SNR, finite or not.

    .. math:: x_t = \frac{\sigma_t}{\sigma_s} x_s
        + \Big(\alpha_t - \frac{\sigma_t}{\sigma_s} \alpha_s\Big) D

    At sigma_t = 0 it returns the prediction of x_0; at alpha_s = 0 it starts from pure noise.
    """
    ratio = nxt.sigma / known.at.sigma
    return ratio * known.x + (nxt.alpha - ratio * known.at.alpha) * known.data


def finite_intervals(draft: Draft) -> Iterator[tuple[Evaluation, Point]]:
    """Evaluate at the beginning of each interval; cross those of infinite log-SNR by DDIM.

    Yields ``(known, nxt)`` for every other interval; the method appends the point at ``nxt``.
    """
    for now, nxt in draft.intervals():
        known = draft.evaluate()
        if now.finite and nxt.finite:
            yield known, nxt
        else:
            draft.append(ddim(known, nxt), nxt)
