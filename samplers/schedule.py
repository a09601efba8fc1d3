r"""Layer 0. Noise schedules: how much signal and how much noise a sample holds at time t.

Every schedule describes the marginals of one diffusion process,

.. math:: x_t = \alpha_t x_0 + \sigma_t \varepsilon, \qquad \varepsilon \sim N(0, I),

by two float64 functions of a continuous time t, differentiable in t. The half log-SNR
``lam = log(alpha / sigma)`` falls strictly with t, so it is a clock as good as t, and the
one in which most samplers are written. ``t`` is always what the network is told.

Nothing here knows networks, grids or samplers.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Point(NamedTuple):
    """One time of a schedule: three float64 tensors of one shape."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def lam(self) -> Tensor:
        """Half the logarithm of the signal-to-noise ratio, log(alpha / sigma)."""
        return self.alpha.log() - self.sigma.log()

    @property
    def rho(self) -> Tensor:
        """Noise per unit of signal, sigma / alpha: the sigma of EDM and of Karras et al."""
        return self.sigma / self.alpha

    @property
    def clean(self) -> bool:
        """Whether a single point holds no noise at all (log-SNR = +inf)."""
        return bool(self.sigma == 0)

    @property
    def pure_noise(self) -> bool:
        """Whether a single point holds no signal at all (log-SNR = -inf)."""
        return bool(self.alpha == 0)

    @property
    def finite(self) -> bool:
        """Whether the log-SNR of a single point is finite."""
        return not (self.clean or self.pure_noise)


class Schedule(abc.ABC):
    """Continuous ``alpha(t)`` and ``sigma(t)`` on [t_min, t_max], and the inverse of ``lam``."""

    t_min: float
    t_max: float

    @abc.abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha at time t; -inf where nothing of the signal is left."""

    @abc.abstractmethod
    def log_sigma(self, t: Tensor) -> Tensor:
        """log sigma at time t; -inf where there is no noise."""

    @abc.abstractmethod
    def time(self, lam: Tensor) -> Tensor:
        """The time at which the half log-SNR is ``lam``: the inverse of :meth:`lam`."""

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return self.log_sigma(t).exp()

    def lam(self, t: Tensor) -> Tensor:
        """Half log-SNR, log(alpha / sigma)."""
        return self.log_alpha(t) - self.log_sigma(t)

    def point(self, t: Tensor) -> Point:
        t = t.to(torch.float64)
        return Point(t, self.alpha(t), self.sigma(t))

    def at_lam(self, lam: Tensor) -> Point:
        """The point of half log-SNR ``lam``."""
        return self.point(self.time(lam))

    def clean(self) -> Point:
        """The end of sampling: the data itself, at the scale of the data."""
        t, one = torch.tensor([self.t_min, 1.0], dtype=torch.float64)
        return Point(t, one, torch.zeros_like(one))

    def at_fraction(self, u: Tensor) -> Tensor:
        """The time at a fraction u of the trained range; 0 is the cleanest, 1 the noisiest."""
        return self.t_min + u * (self.t_max - self.t_min)

    def fraction(self, t: Tensor) -> Tensor:
        """The fraction of the trained range at time t: the inverse of :meth:`at_fraction`."""
        return (t - self.t_min) / (self.t_max - self.t_min)

    def drift(self, t: Tensor) -> Tensor:
        r"""f(t) = d log(alpha) / dt of the forward SDE dx = f x dt + g dw."""
        return _derivative(self.log_alpha, t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        r"""g(t)^2 = -2 sigma^2 d lam / dt of the forward SDE dx = f x dt + g dw."""
        return -2 * self.sigma(t).square() * _derivative(self.lam, t)

    @cached_property
    def noisiest(self) -> Point:
        return self.point(torch.tensor(self.t_max, dtype=torch.float64))

    @cached_property
    def cleanest(self) -> Point:
        """The cleanest point the network was trained at; its noise may be zero."""
        return self.point(torch.tensor(self.t_min, dtype=torch.float64))


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    # Each value depends on its own time alone, so the gradient of the sum holds every derivative.
    derivative: Tensor = torch.func.grad(lambda time: function(time).sum())(t)
    return derivative


class VariancePreserving(Schedule):
    r"""Schedules with alpha^2 + sigma^2 = 1: all follow from log alpha and its inverse."""

    @abc.abstractmethod
    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """The time at which log alpha has the given value."""

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(2 * self.log_alpha(t))) / 2

    def time(self, lam: Tensor) -> Tensor:
        return self.time_of_log_alpha(-softplus(-2 * lam, threshold=1e3) / 2)


@dataclass(frozen=True)
class VPLinear(VariancePreserving):
    r"""VP SDE with beta(t) = beta_min + t (beta_max - beta_min), t in [t_min, 1].

    ``log alpha = -t beta_min / 2 - t^2 (beta_max - beta_min) / 4``
    (Song et al. 2021, appendix C, https://arxiv.org/abs/2011.13456).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)
        _check_range(self.t_min, self.t_max, 1.0)

    def log_alpha(self, t: Tensor) -> Tensor:
        return -t * (self.beta_min / 2 + t * (self.beta_max - self.beta_min) / 4)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        # The root of the quadratic that does not cancel for small t.
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 - 4 * slope * log_alpha)
        return -4 * log_alpha / (self.beta_min + root)


@dataclass(frozen=True)
class VPScaledLinear(VariancePreserving):
    r"""VP SDE with sqrt(beta) linear in t, the continuous form of Stable Diffusion's schedule.

    ``beta(t) = (a + t d)^2`` with ``a = sqrt(beta_min)``, ``d = sqrt(beta_max) - a``, hence
    ``log alpha = -((a + t d)^3 - a^3) / (6 d)``.
    """

    beta_min: float = 0.85
    beta_max: float = 12.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)
        _check_range(self.t_min, self.t_max, 1.0)

    @property
    def _line(self) -> tuple[float, float]:
        a = math.sqrt(self.beta_min)
        return a, math.sqrt(self.beta_max) - a

    def log_alpha(self, t: Tensor) -> Tensor:
        a, d = self._line
        return -t * (a * a / 2 + t * d * (a / 2 + t * d / 6))

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        a, d = self._line
        cube = a**3 - 6 * d * log_alpha
        return (cube ** (1 / 3) - a) / d


@dataclass(frozen=True)
class VPCosine(VariancePreserving):
    r"""``alpha(t) = cos(pi/2 (t + s)/(1 + s)) / cos(pi/2 s/(1 + s))`` (Nichol and Dhariwal 2021,
    eq. 17, https://arxiv.org/abs/2102.09672).

    alpha vanishes at t = 1; ``t_max`` stops short of it, as in DPM-Solver's code.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.9946

    def __post_init__(self) -> None:
        if not self.s >= 0:
            raise ValueError(f"VPCosine offset s is {self.s}; it must be zero or positive.")
        _check_range(self.t_min, self.t_max, 1.0)

    @property
    def _log_cos_zero(self) -> float:
        return math.log(math.cos(math.pi / 2 * self.s / (1 + self.s)))

    def log_alpha(self, t: Tensor) -> Tensor:
        angle = math.pi / 2 * (t + self.s) / (1 + self.s)
        return torch.log(torch.cos(angle)) - self._log_cos_zero

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        angle = torch.arccos(torch.exp(log_alpha + self._log_cos_zero))
        return angle * (1 + self.s) * 2 / math.pi - self.s


@dataclass(frozen=True, eq=False)
class VPDiscrete(VariancePreserving):
    r"""The continuous form of a model trained at N discrete steps with ``alphas_cumprod``.

    ``t`` is the trained index, 0 to N - 1, and may lie between: log alpha is linear there
    (as in DPM-Solver, Lu et al. 2022, https://arxiv.org/abs/2206.00927). If the last step holds no
    signal (zero terminal SNR), alpha itself is linear on the last interval.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alphas_cumprod).detach().to("cpu", torch.float64)
        object.__setattr__(self, "alphas_cumprod", table)
        _check_alphas_cumprod(table)

    @classmethod
    def from_betas(cls, betas: Tensor) -> VPDiscrete:
        """From the variances of the forward steps, alphas_cumprod = cumprod(1 - betas)."""
        return cls(torch.cumprod(1 - betas.to(torch.float64), dim=0))

    @classmethod
    def linear(cls, start: float = 1e-4, end: float = 0.02, steps: int = 1000) -> VPDiscrete:
        """Betas linear in the index, the schedule of DDPM."""
        return cls.from_betas(torch.linspace(start, end, steps, dtype=torch.float64))

    @classmethod
    def scaled_linear(
        cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000
    ) -> VPDiscrete:
        """Square roots of the betas linear in the index, the schedule of Stable Diffusion."""
        roots = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
        return cls.from_betas(roots.square())

    @classmethod
    def cosine(cls, steps: int = 1000, max_beta: float = 0.999, s: float = 0.008) -> VPDiscrete:
        """Nichol and Dhariwal's schedule at ``steps`` indices, betas capped at ``max_beta``."""
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos(math.pi / 2 * (u + s) / (1 + s)).square()
        return cls.from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=max_beta))

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return float(len(self.alphas_cumprod) - 1)

    @cached_property
    def _nodes(self) -> Tensor:
        """log alpha at the trained steps, the last one only if it is finite."""
        log_alphas = self.alphas_cumprod.log() / 2
        return log_alphas[:-1] if self._zero_terminal else log_alphas

    @property
    def _zero_terminal(self) -> bool:
        return bool(self.alphas_cumprod[-1] == 0)

    def log_alpha(self, t: Tensor) -> Tensor:
        value = interpolated(self._nodes, t)
        if not self._zero_terminal:
            return value
        beyond = (t - self._last_finite).clamp(min=0)
        return torch.where(beyond > 0, self._nodes[-1] + torch.log1p(-beyond), value)

    def time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        value = inverted(self._nodes, log_alpha)
        if not self._zero_terminal:
            return value
        beyond = -torch.expm1((log_alpha - self._nodes[-1]).clamp(max=0))
        return torch.where(beyond > 0, self._last_finite + beyond, value)

    @property
    def _last_finite(self) -> int:
        return len(self._nodes) - 1


def interpolated(nodes: Tensor, t: Tensor) -> Tensor:
    """The function that is ``nodes[i]`` at t = i, and linear between and beyond."""
    nodes = nodes.to(t.device)
    index = t.detach().floor().long().clamp(0, len(nodes) - 2)
    left, right = nodes[index], nodes[index + 1]
    return left + (t - index) * (right - left)


def inverted(nodes: Tensor, value: Tensor) -> Tensor:
    """The t at which falling ``nodes``, interpolated, have the value."""
    nodes = nodes.to(value.device)
    index = torch.searchsorted(-nodes, -value.detach()) - 1
    index = index.clamp(0, len(nodes) - 2)
    left, right = nodes[index], nodes[index + 1]
    return index + (left - value) / (left - right)


@dataclass(frozen=True)
class SubVP(Schedule):
    r"""Sub-VP SDE: VP's alpha, ``sigma = 1 - alpha^2`` (Song et al. 2021, appendix C)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    @cached_property
    def _vp(self) -> VPLinear:
        return VPLinear(self.beta_min, self.beta_max, self.t_min, self.t_max)

    def __post_init__(self) -> None:
        _check_betas(self.beta_min, self.beta_max)
        _check_range(self.t_min, self.t_max, 1.0)

    def log_alpha(self, t: Tensor) -> Tensor:
        return self._vp.log_alpha(t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return torch.log(-torch.expm1(2 * self.log_alpha(t)))

    def time(self, lam: Tensor) -> Tensor:
        # alpha / (1 - alpha^2) = e^lam is a quadratic in alpha: log alpha = -asinh(e^-lam / 2).
        return self._vp.time_of_log_alpha(-torch.asinh(torch.exp(-lam) / 2))


class VarianceExploding(Schedule):
    """Schedules with alpha = 1."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True)
class VE(VarianceExploding):
    r"""``sigma(t) = sigma_min (sigma_max / sigma_min)^t``, t in [0, 1].

    (Song et al. 2021, appendix C, https://arxiv.org/abs/2011.13456)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)
        _check_range(self.t_min, self.t_max, 1.0)

    def log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min)

    def time(self, lam: Tensor) -> Tensor:
        return (-lam - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(VarianceExploding):
    r"""``sigma(t) = t``: the network is told the noise level itself (Karras et al. 2022, table 1,
    https://arxiv.org/abs/2206.00364)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.sigma_min

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.sigma_max

    def log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def time(self, lam: Tensor) -> Tensor:
        return torch.exp(-lam)


@dataclass(frozen=True)
class EDMPreconditioned(Schedule):
    r"""EDM in the coordinates of the network inside its preconditioning, ``c_in(rho) x``.

    With ``rho`` the noise level of EDM and s = ``sigma_data``, the state is
    ``x / sqrt(rho^2 + s^2)``, so ``alpha = 1 / sqrt(rho^2 + s^2)`` and ``sigma = rho alpha``; the
    network is told ``t = log(rho) / 4`` (Karras et al. 2022, table 1). diffusers stores EDM
    models so.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        _check_sigmas(self.sigma_min, self.sigma_max)
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data is {self.sigma_data}; it must be positive.")

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return math.log(self.sigma_min) / 4

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return math.log(self.sigma_max) / 4

    def log_alpha(self, t: Tensor) -> Tensor:
        return -torch.log(torch.exp(8 * t) + self.sigma_data**2) / 2

    def log_sigma(self, t: Tensor) -> Tensor:
        return 4 * t + self.log_alpha(t)

    def time(self, lam: Tensor) -> Tensor:
        return -lam / 4


Fraction = TypeVar("Fraction", float, Tensor)


def shifted(u: Fraction, shift: float) -> Fraction:
    """Fractions of a range moved towards its noisy end, ``s u / (1 + (s - 1) u)``.

    (Esser et al. 2024, eq. 23, https://arxiv.org/abs/2403.03206.) A shift of 1 leaves them.
    """
    return shift * u / (1 + (shift - 1) * u)


@dataclass(frozen=True)
class FlowMatching(Schedule):
    r"""Straight paths, ``alpha = 1 - t`` and ``sigma = t`` (Lipman et al. 2023; Liu et al. 2023).

    ``shift`` moves evenly spaced times towards the noise, see :func:`shifted`.
    """

    shift: float = 1.0
    u_min: float = 1e-3

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ValueError(f"The flow shift is {self.shift}; it must be positive.")
        _check_range(self.u_min, 1.0, 1.0)

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return shifted(self.u_min, self.shift)

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return 1.0

    def at_fraction(self, u: Tensor) -> Tensor:
        return shifted(self.u_min + u * (1 - self.u_min), self.shift)

    def fraction(self, t: Tensor) -> Tensor:
        u = t / (self.shift - (self.shift - 1) * t)  # exactly 1 at 1, which shifted() is not
        return (u - self.u_min) / (1 - self.u_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def time(self, lam: Tensor) -> Tensor:
        return torch.sigmoid(-lam)


def _check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min < beta_max < math.inf:
        raise ValueError(
            f"beta_min = {beta_min} and beta_max = {beta_max}; need 0 < beta_min < beta_max."
        )


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min = {sigma_min} and sigma_max = {sigma_max}; need 0 < sigma_min < sigma_max."
        )


def _check_range(t_min: float, t_max: float, end: float) -> None:
    if not 0 <= t_min < t_max <= end:
        raise ValueError(f"Times from {t_min} to {t_max}; need 0 <= t_min < t_max <= {end}.")


def _check_alphas_cumprod(table: Tensor) -> None:
    if table.ndim != 1 or len(table) < 2:
        raise ValueError(
            f"alphas_cumprod has shape {tuple(table.shape)}; it must be a vector of at least 2."
        )
    inside = bool((table < 1).all()) and bool((table[:-1] > 0).all()) and bool(table[-1] >= 0)
    if not inside or bool((table[1:] >= table[:-1]).any()):
        raise ValueError(
            "alphas_cumprod must fall strictly and stay between 0 and 1 "
            "(0 is allowed for the last step); check the betas it was made from."
        )
