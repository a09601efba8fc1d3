"""The interface of a noise schedule, and the checks that schedules share."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor


class Point(NamedTuple):
    """One time of a schedule: three float64 tensors of one shape."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def lam(self) -> Tensor:
        """The half log-SNR, log(alpha / sigma)."""
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
    data_scale: float = 1.0
    """The root mean square of the data x_0: 1 for pixels in [-1, 1] and for latents of unit
    variance. Grids of spacing ``log-flow`` and the Adams methods depend on it; see
    :func:`samplers.measure_data_scale`."""

    starts_at_sigma: ClassVar[bool] = False
    """Whether initial noise has standard deviation sigma. If not, it is 1, as in diffusers for
    schedules with alpha^2 + sigma^2 near 1 at the noisy end."""

    @abc.abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha at time t; -inf where there is no signal."""

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

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d alpha / dt and d sigma / dt."""
        return _derivative(self.alpha, t), _derivative(self.sigma, t)

    def initial_std(self, start: Point) -> Tensor:
        """The standard deviation of initial noise at the point where a grid starts."""
        return start.sigma if self.starts_at_sigma else torch.ones_like(start.sigma)

    def with_data_scale(self, scale: float) -> Self:
        """The same schedule, of data whose root mean square is ``scale``.

        Raises ValueError unless it is positive and finite.
        """
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(f"The scale of the data is {scale!r}; it must be positive and finite.")
        other = copy.copy(self)
        object.__setattr__(other, "data_scale", float(scale))
        return other

    @cached_property
    def noisiest(self) -> Point:
        return self.point(torch.tensor(self.t_max, dtype=torch.float64))

    @cached_property
    def cleanest(self) -> Point:
        """The cleanest point the network was trained at; its noise may be zero."""
        return self.point(torch.tensor(self.t_min, dtype=torch.float64))


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    function(t)  # what it caches inside of the transform could not be copied
    # Each value depends on one time alone, so the gradient of the sum has every derivative.
    derivative: Tensor = torch.func.grad(lambda time: function(time).sum())(t)
    return derivative


Fraction = TypeVar("Fraction", float, Tensor)


def shifted(u: Fraction, shift: float) -> Fraction:
    """Shift fractions of a range towards its noisy end, ``s u / (1 + (s - 1) u)``.

    (Esser et al. 2024, eq. 23, https://arxiv.org/abs/2403.03206.) A shift of 1 is the identity.
    """
    return shift * u / (1 + (shift - 1) * u)


def check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max < math.inf:
        raise ValueError(
            f"beta_min = {beta_min} and beta_max = {beta_max}; need 0 < beta_min <= beta_max."
        )


def check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min = {sigma_min} and sigma_max = {sigma_max}; need 0 < sigma_min < sigma_max."
        )


def check_range(t_min: float, t_max: float, end: float | None = None) -> None:
    """Check the range of times; ``end`` is where the schedule itself ends, if it does."""
    if not 0 <= t_min < t_max < math.inf or (end is not None and t_max > end):
        most = "" if end is None else f" <= {end}"
        raise ValueError(f"Times from {t_min} to {t_max}; need 0 <= t_min < t_max{most}, finite.")
