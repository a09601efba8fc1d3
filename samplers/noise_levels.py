r"""Layer 1. The formulas of spacings: noise levels between two, and trained steps out of N.

A formula of levels takes the noisiest level, the cleanest, how many there are with both, and its
parameters; one of trained steps takes N, how many, and its parameters. A schedule is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

_SHIFT = 10.0


def ramp(count: int) -> Tensor:
    """``count`` evenly spaced numbers from 0 to 1; 0 if ``count`` is 1."""
    return torch.linspace(0, 1, count, dtype=torch.float64)


# ----------------------------------------------------------------------------------------- levels


def flow_time(level: Tensor, scale: float) -> Tensor:
    """The time of flow matching, shifted as for high resolutions, see ``log-flow``."""
    return 1 / (1 + _SHIFT * scale / level)


def log_flow(top: Tensor, bottom: Tensor, count: int, scale: float) -> Tensor:
    """Evenly spaced in the logarithm of :func:`flow_time`."""
    u = geometric(flow_time(top, scale), flow_time(bottom, scale), count)
    return _SHIFT * scale * u / (1 - u)


def geometric(top: Tensor, bottom: Tensor, count: int) -> Tensor:
    """Evenly spaced in the logarithm."""
    return torch.exp(top.log() + ramp(count) * (bottom.log() - top.log()))


def karras(top: Tensor, bottom: Tensor, count: int, rho: float = 7.0) -> Tensor:
    """``level^(1/rho)`` evenly spaced (Karras et al. 2022, eq. 5)."""
    inverse = 1 / rho
    return (top**inverse + ramp(count) * (bottom**inverse - top**inverse)) ** rho


def polyexponential(top: Tensor, bottom: Tensor, count: int, rho: float = 1.0) -> Tensor:
    r"""``log(level) = log(bottom) + (1 - i/n)^rho log(top / bottom)``, of k-diffusion's
    ``get_sigmas_polyexponential``."""
    return torch.exp(bottom.log() + (1 - ramp(count)) ** rho * (top / bottom).log())


def kl_optimal(top: Tensor, bottom: Tensor, count: int) -> Tensor:
    """``arctan(level)`` evenly spaced (Sabour et al. 2024,
    https://arxiv.org/abs/2404.14507): the best grid for Gaussian data of unit variance."""
    return torch.tan(top.atan() + ramp(count) * (bottom.atan() - top.atan()))


def vp(
    top: Tensor, bottom: Tensor, count: int, beta_d: float = 19.9, beta_min: float = 0.1
) -> Tensor:
    r"""Evenly spaced in the time t of the VP SDE, ``level^2 = exp(beta_d t^2 / 2 + beta_min t) -
    1`` (Karras et al. 2022, table 1, and k-diffusion's ``get_sigmas_vp``)."""

    def time(level: Tensor) -> Tensor:
        integral = torch.log1p(level.square())
        return 2 * integral / (beta_min + (beta_min**2 + 2 * beta_d * integral).sqrt())

    t = time(top) + ramp(count) * (time(bottom) - time(top))
    return torch.expm1(beta_d * t.square() / 2 + beta_min * t).sqrt()


def laplace(top: Tensor, bottom: Tensor, count: int, mu: float = 0.0, beta: float = 0.5) -> Tensor:
    r"""Quantiles of a Laplace distribution of the log level (Hang et al. 2024,
    https://arxiv.org/abs/2407.03297, and k-diffusion's ``get_sigmas_laplace``),

    .. math:: \log level = \mu - \beta \, \mathrm{sgn}(1/2 - x)
        \log(1 - 2 |1/2 - x| + 10^{-5}), \quad x = i / n.

    k-diffusion repeats the ends in place of quantiles beyond them; here what is between an end and
    the first level inside is spaced evenly in the logarithm.
    """
    x = 0.5 - ramp(count)
    quantile = mu - beta * x.sign() * torch.log(1 - 2 * x.abs() + 1e-5)
    inside = (quantile < top.log()) & (quantile > bottom.log())
    inside[0], inside[-1] = False, False
    index = torch.arange(count)[inside].tolist()
    known = [float(top.log()), *quantile[inside].tolist(), float(bottom.log())]
    return _interpolated(torch.arange(count), [0, *index, max(count - 1, 1)], known).exp()


def linear_quadratic(
    top: Tensor, bottom: Tensor, count: int, threshold_noise: float = 0.025
) -> Tensor:
    r"""First linear, then quadratic: of n steps the first L = n // 2 go down by the share
    ``threshold_noise`` of the range together,

    .. math:: x_i = \tau \frac{i}{L} + \Big(1 - \tau \frac{n}{L}\Big)
        \Big(\frac{\max(i - L, 0)}{n - L}\Big)^2, \quad level_i = top - x_i (top - bottom)

    (Polyak et al. 2024, Movie Gen, https://arxiv.org/abs/2410.13720; in the form of
    Mochi and of ComfyUI's ``linear_quadratic_schedule``).
    """
    n = count - 1
    if n < 2:
        return torch.stack([top, bottom])[:count]
    linear, i = n // 2, torch.arange(count, dtype=torch.float64)
    curved = ((i - linear).clamp(min=0) / (n - linear)).square()
    x = threshold_noise * i / linear + (1 - threshold_noise * n / linear) * curved
    return top + x * (bottom - top)


SPACED: dict[str, Callable[..., Tensor]] = {
    "log-snr": geometric,
    "exponential": geometric,
    "karras": karras,
    "polyexponential": polyexponential,
    "kl-optimal": kl_optimal,
    "vp": vp,
    "laplace": laplace,
    "linear-quadratic": linear_quadratic,
}
"""Levels by ``formula(top, bottom, count, **parameters)``, the noisiest first."""

# fmt: off
AYS: dict[str, tuple[float, ...]] = {
    "ays-sd": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
               0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "ays-sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945,
                 0.8620721141, 0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177,
                 0.0291671582),
    "ays-svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
# fmt: on
"""Levels sigma / alpha of 10 steps, optimised for Stable Diffusion 1.5, SDXL and Stable Video
Diffusion, as published with Sabour et al. 2024 (https://arxiv.org/abs/2404.14507)."""


def align_your_steps(name: str, count: int) -> Tensor:
    """A table of :data:`AYS` at ``count`` levels, by linear interpolation of the logarithm."""
    logs = [math.log(level) for level in AYS[name]]
    return _interpolated(ramp(count) * (len(logs) - 1), list(range(len(logs))), logs).exp()


def _interpolated(at: Tensor, nodes: list[int], values: list[float]) -> Tensor:
    """Linear interpolation of the values at the nodes, which rise."""
    x, y = torch.tensor(nodes, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    left = (torch.searchsorted(x, at.double(), right=True) - 1).clamp(max=len(nodes) - 2)
    return y[left] + (at - x[left]) * (y[left + 1] - y[left]) / (x[left + 1] - x[left])


# ---------------------------------------------------------------------------------- trained steps


def leading(available: int, count: int, offset: int = 0) -> Tensor:
    """Every k-th step from the cleanest, plus the offset as far as there is room."""
    stride = available // count
    return _whole(count) * stride + min(offset, available - 1 - (count - 1) * stride)


def trailing(available: int, count: int) -> Tensor:
    """Every k-th step back from the noisiest, rounded."""
    return torch.round(available * (_whole(count) + 1) / count) - 1


def linspace(available: int, count: int) -> Tensor:
    """Evenly spaced with both ends, rounded; one step is the noisiest, as on every other grid."""
    return torch.round((available - 1) * ramp(count)) if count > 1 else _whole(1) + available - 1


def simple(available: int, count: int) -> Tensor:
    """Every k-th step back from the noisiest, rounded up: of ComfyUI's ``simple_scheduler``."""
    return (available - 1 - torch.floor(_whole(count) * (available / count))).flip(0)


def beta(available: int, count: int, a: float = 0.6, b: float = 0.6) -> Tensor:
    r"""Quantiles of the Beta distribution (Lee et al. 2024, https://arxiv.org/abs/2407.12173),
    ``round((N - 1) F^-1(1 - i / n))``, of ComfyUI's ``beta_scheduler``.

    Quantiles that are rounded to one step, where ComfyUI takes fewer steps, are pushed apart.
    """
    from scipy.special import betaincinv

    share = (_whole(count) + 1) / count
    steps = torch.round(torch.as_tensor(betaincinv(a, b, share.numpy())) * (available - 1))
    apart = (steps - _whole(count)).cummax(0).values
    return apart.clamp(max=available - count) + _whole(count)


TRAINED: dict[str, Callable[..., Tensor]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "simple": simple,
    "ddim-uniform": partial(leading, offset=1),
    "beta": beta,
}
"""Distinct steps of 0, ..., N - 1 by ``formula(N, count, **parameters)``, the cleanest first."""


def _whole(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64)
