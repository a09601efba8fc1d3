r"""Layer 1. Time grids: the points of a schedule between which a sampler steps.

A grid of n steps has n + 1 points, from the noisiest to the cleanest; the network is evaluated at
the first n. With ``final="zero"`` the last point is the data itself (sigma = 0), with
``final="sigma_min"`` it is the last positive noise level.

``sigma_min`` and ``sigma_max`` are in units of sigma / alpha, the noise per unit of signal, on
every schedule. Nothing here knows samplers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from samplers import choices
from samplers.checks import check_whole
from samplers.noise_levels import (
    AYS,
    SPACED,
    TRAINED,
    align_your_steps,
    flow_time,
    linear_quadratic,
    log_flow,
    ramp,
)
from samplers.notebook import html_table
from samplers.schedule import FlowMatching, Point, Schedule, VPDiscrete, shifted
from samplers.schedule.discrete import interpolated
from samplers.spacings import read_spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Spacing = choices.Spacing
Final = choices.Final
SPACINGS = choices.SPACINGS

_LAST_LEVEL, _FIRST_STEPS = 0.6, 1.5
"""Of ``log-flow`` grids, in units of the data's scale; the first steps hardly lower the level that
the last can start from."""

# Where a grid in sigma / alpha begins its spacing if the first point itself holds no signal.
_ALMOST_PURE_NOISE = 0.999

# Steps at which a network of continuous times counts as trained.
_TRAINED_STEPS = 1000

# These evaluate the network above the cleanest point, however many steps they have.
_ABOVE_THE_END = {"trailing", "sgm-uniform", "simple", "ddim-uniform", "beta"}

# These need a positive last level.
_POSITIVE = {"log-snr", "exponential", "polyexponential", "karras", "laplace"}

# The relative difference of the ends of Align Your Steps' networks from the published ones.
_SAME_END = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """A time grid: the points between which a sampler steps, and their schedule.

    Raises ValueError unless the log-SNR increases strictly from point to point. Only the first
    point may be pure noise, only the last clean.
    """

    schedule: Schedule
    points: Point

    def __post_init__(self) -> None:
        if self.points.t.ndim != 1 or len(self.points.t) < 2:
            raise ValueError(
                "A grid needs at least two points in one row; "
                f"they came in shape {tuple(self.points.t.shape)}."
            )
        lam = self.points.lam
        if bool(lam.isnan().any()) or bool((lam[1:] <= lam[:-1]).any()):
            raise ValueError(
                "The noise of a grid must fall strictly from point to point; "
                f"sigma / alpha came as {_shorten(self.points.rho)}."
            )

    @property
    def steps(self) -> int:
        return len(self.points.t) - 1

    @property
    def start(self) -> Point:
        return self[0]

    @property
    def end(self) -> Point:
        return self[self.steps]

    def __getitem__(self, index: int) -> Point:
        return Point(*(values[index] for values in self.points))

    def __repr__(self) -> str:
        ends = f"sigma/alpha from {float(self.start.rho):.4g} to {float(self.end.rho):.4g}"
        return f"Grid({type(self.schedule).__name__}, {self.steps} steps, {ends})"

    def _repr_html_(self) -> str:
        columns = (*self.points, self.points.rho, self.points.lam)
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        rows = [[str(step), *(f"{n:.6g}" for n in row)] for step, row in enumerate(numbers)]
        return html_table(repr(self), ["step", "t", "α", "σ", "σ/α", "log(α/σ)"], rows)

    def plot(self) -> Figure:
        """The noise level of each point, see :func:`samplers.plot_grid`."""
        from samplers.images.plots import plot_grid

        return plot_grid(self)

    def at_lam(self, lam: Tensor) -> Point:
        """The point of the schedule at half log-SNR ``lam``, for the stages inside a step."""
        return self.schedule.at_lam(lam)


def make_grid(
    schedule: Schedule,
    steps: int,
    spacing: Spacing = choices.DEFAULT_SPACING,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    final: Final = "zero",
    offset: int = 0,
) -> Grid:
    r"""Make a time grid of ``steps`` steps.

    ====================  =========================================================================
    spacing               points
    ====================  =========================================================================
    ``log-flow``          evenly spaced in log(u), u = sigma / (sigma + 10 s alpha) (see below)
    ``log-snr``           evenly spaced in log(alpha / sigma)
    ``exponential``       the same by its name in k-diffusion: sigma / alpha is geometric
    ``karras``            (sigma / alpha)^(1/rho) evenly spaced (Karras et al. 2022, eq. 5);
                          ``karras:7`` is rho = 7
    ``polyexponential``   log(sigma / alpha) by (1 - i / n)^rho, ``polyexponential:1``
    ``kl-optimal``        arctan(sigma / alpha) evenly spaced; arctan(t) on flows
    ``laplace``           quantiles of a Laplace distribution of log(sigma / alpha) with mean mu and
                          scale beta, ``laplace:0,0.5``
    ``vp``                evenly spaced in the time of the VP SDE with beta_d and beta_min,
                          ``vp:19.9,0.1``
    ``uniform``           evenly spaced in the trained range of t, both ends included
    ``quadratic``         evenly spaced in the square root of the fraction of that range
    ``leading``           every k-th trained step from the cleanest, plus ``offset``
    ``trailing``          every k-th trained step back from the noisiest
    ``linspace``          as ``uniform``, rounded to trained steps if the schedule is discrete
    ``normal``            as ``uniform``, with log(sigma / alpha) linear between trained steps
    ``sgm-uniform``       n + 1 points of ``normal`` without the cleanest
    ``simple``            as ``trailing``, rounded towards the noisiest
    ``ddim-uniform``      as ``leading``, with an offset of 1
    ``beta``              trained steps at quantiles of the distribution Beta(a, b),
                          ``beta:0.6,0.6``
    ``linear-quadratic``  sigma / alpha, or t on flows, first linear, over n // 2 steps down to a
                          share of 1 - threshold_noise, then quadratic to 0;
                          ``linear-quadratic:0.025``
    ``ays-sd``            Align Your Steps' levels of Stable Diffusion 1.5
    ``ays-sdxl``          of SDXL
    ``ays-svd``           of Stable Video Diffusion
    ====================  =========================================================================

    Parameters follow a colon, and those that are omitted have the defaults above. Case, spaces and
    ``_`` do not matter: ``SGM Uniform``. The formulas and their sources are in
    :mod:`samplers.noise_levels`; ``normal`` to ``linear-quadratic`` and ``kl-optimal`` are
    ComfyUI's (on a flow, ``normal`` goes down to the cleanest time shifted once more, as there).
    Schedules of continuous times count as trained at 1000 evenly spaced ones.

    With data of scale s, the schedule's ``data_scale``, the time of flow matching is u = sigma /
    (sigma + s alpha); with 10 s alpha it is shifted as for high resolutions (Esser et al. 2024,
    https://arxiv.org/abs/2403.03206, eq. 23). Noise levels of ``log-flow`` are as dense below sigma
    / alpha = 10 s as on ``log-snr``, and ever sparser above; pure noise is u = 1. Before sigma = 0
    it goes down to sigma / alpha = 0.6 s u / (steps - 1.5), with u of the first point, but not
    below the trained range. The numbers were chosen by measurement, see
    docs/benchmarks/defaults.md.

    ``sigma_min`` and ``sigma_max`` narrow the trained range. Raises ValueError for steps < 1, an
    unknown spacing, a range outside of what the schedule was trained for, or the levels of Align
    Your Steps on a range that is not that of their network.
    """
    check_whole("The number of steps", steps)
    name, parameters = read_spacing(spacing)
    if offset < 0:
        raise ValueError(f"The offset of a grid is {offset}; it must be zero or positive.")
    low, high = _trained_range(schedule, sigma_min, sigma_max)
    if sigma_min is None and final == "zero":
        low = _last_point(name, parameters, low, high, schedule, steps)
    if low.clean and (final == "sigma_min" or name in _POSITIVE):
        raise ValueError(
            f"The schedule was trained down to sigma = 0, where no {name!r} grid that ends at "
            f"{final!r} goes; give a sigma_min, or take the 'uniform' grid to 'zero'."
        )
    closed = final == "sigma_min" or (low.clean and name not in _ABOVE_THE_END)
    count = steps + 1 if closed else steps  # else the clean end is added to them
    settings = {"offset": offset} if name == "leading" else parameters
    points = _points(name, settings, schedule, low, high, count, steps)
    return _close(schedule, points, final)


def _points(
    name: str,
    settings: Mapping[str, float],
    schedule: Schedule,
    low: Point,
    high: Point,
    count: int,
    steps: int,
) -> Point:
    """The ``count`` points of a spacing, the noisiest first."""
    match name:
        case "kl-optimal" | "linear-quadratic" if isinstance(schedule, FlowMatching):
            times = SPACED[name](high.sigma, low.sigma, count, **settings)
            return _between(high, schedule.point(times), low, count)
        case "log-flow":
            formula = partial(log_flow, scale=schedule.data_scale)
            return _spaced_in_noise(schedule, low, high, count, formula)
        case _ if name in SPACED:
            formula = partial(SPACED[name], **settings)
            return _spaced_in_noise(schedule, low, high, count, formula)
        case _ if name in AYS:
            _check_ends(name, low, high)
            inner = schedule.at_lam(-align_your_steps(name, steps + 1).log())
            return _between(high, inner, low, count)
        case "normal" | "sgm-uniform" if isinstance(schedule, VPDiscrete) and high.finite:
            return _between_trained_steps(schedule, low, high, _FRACTIONS[name](count))
        case _ if name in _FRACTIONS and not (name in TRAINED and isinstance(schedule, VPDiscrete)):
            return _spaced_in_time(schedule, low, high, _FRACTIONS[name](count))
        case _:
            return _trained_steps(schedule, low, high, count, name, settings)


def grid_from_times(schedule: Schedule, times: Sequence[float] | Tensor, final: Final) -> Grid:
    """Make a grid from times, noisiest first; ``final="zero"`` adds the clean end."""
    points = schedule.point(torch.as_tensor(times, dtype=torch.float64))
    return _close(schedule, points, final)


def grid_from_sigmas(schedule: Schedule, sigmas: Sequence[float] | Tensor) -> Grid:
    """Make a grid from noise levels sigma / alpha, noisiest first.

    A trailing 0 is the clean end; without it the grid ends at the last noise level.
    """
    rho = torch.as_tensor(sigmas, dtype=torch.float64)
    if rho.ndim != 1 or len(rho) < 2 or bool((rho[:-1] <= 0).any()) or not bool(rho[-1] >= 0):
        raise ValueError(
            f"The noise levels are {_shorten(rho)}; need at least two, all positive "
            "(the last may be 0)."
        )
    closed = bool(rho[-1] == 0)
    points = schedule.at_lam(-(rho[:-1] if closed else rho).log())
    return _close(schedule, points, "zero" if closed else "sigma_min")


def _close(schedule: Schedule, points: Point, final: Final) -> Grid:
    if final not in get_args(Final):
        raise ValueError(f"A grid ends at 'zero' or at 'sigma_min', not at {final!r}.")
    if final == "sigma_min":
        return Grid(schedule, points)
    if bool(points.sigma[-1] == 0):
        return Grid(schedule, points)
    clean = schedule.clean()
    closed = (torch.cat([row, end.unsqueeze(0)]) for row, end in zip(points, clean, strict=True))
    return Grid(schedule, Point(*closed))


def _trained_range(
    schedule: Schedule, sigma_min: float | None, sigma_max: float | None
) -> tuple[Point, Point]:
    """The cleanest and the noisiest point that a grid may use."""
    cleanest, noisiest = schedule.cleanest, schedule.noisiest
    low = cleanest if sigma_min is None else _at_noise(schedule, sigma_min, "sigma_min")
    high = noisiest if sigma_max is None else _at_noise(schedule, sigma_max, "sigma_max")
    if not float(low.rho) < float(high.rho):
        raise ValueError(
            f"The grid would run from sigma/alpha = {float(high.rho):.4g} down to "
            f"{float(low.rho):.4g}; sigma_min must be below sigma_max."
        )
    return low, high


def _last_point(
    name: str,
    parameters: Mapping[str, float],
    low: Point,
    high: Point,
    schedule: Schedule,
    steps: int,
) -> Point:
    """Where a spacing ends if its last positive noise level is free; within the trained range."""
    match name:
        case "log-flow":
            scale = schedule.data_scale
            level = scale * _LAST_LEVEL / (steps - _FIRST_STEPS) * flow_time(high.rho, scale)
            return low if level <= low.rho else schedule.at_lam(-level.log())
        case "linear-quadratic":
            one = torch.ones_like(low.t)
            share = linear_quadratic(one, torch.zeros_like(one), steps + 1, **parameters)[-2]
            on_flow = isinstance(schedule, FlowMatching)
            top, bottom = (high.sigma, low.sigma) if on_flow else (high.rho, low.rho)
            return low if share * top <= bottom else schedule.clean()
        case "normal" | "sgm-uniform" if isinstance(schedule, FlowMatching):
            # ComfyUI takes the cleanest time, which is shifted, for one before the shift.
            again = schedule.point(shifted(low.t, schedule.shift))
            return again if again.t < high.t else low
        case _:
            return low


def _check_ends(name: str, low: Point, high: Point) -> None:
    """Raise ValueError unless a table of Align Your Steps belongs to this range of noise."""
    top, bottom = AYS[name][0], AYS[name][-1]
    if abs(high.rho / top - 1) > _SAME_END or abs(low.rho / bottom - 1) > _SAME_END:
        raise ValueError(
            f"The levels {name!r} belong to a network whose sigma/alpha goes from {top:.4g} to "
            f"{bottom:.4g}, and here it goes from {float(high.rho):.4g} to {float(low.rho):.4g}; "
            "take another grid."
        )


def _at_noise(schedule: Schedule, rho: float, name: str) -> Point:
    low, high = float(schedule.cleanest.rho), float(schedule.noisiest.rho)
    if not low * (1 - 1e-6) <= rho <= high * (1 + 1e-6):
        raise ValueError(
            f"{name} is {rho} (in units of sigma/alpha); this schedule was trained "
            f"from {low:.6g} to {high:.6g}."
        )
    return schedule.at_lam(-torch.tensor(rho, dtype=torch.float64).log())


def _spaced_in_noise(
    schedule: Schedule, low: Point, high: Point, count: int, space: Callable[..., Tensor]
) -> Point:
    """``count`` points spaced in sigma / alpha, including the two given points."""
    top = high
    if high.pure_noise:
        top = schedule.point(schedule.at_fraction(torch.tensor(_ALMOST_PURE_NOISE).double()))
    inner = schedule.at_lam(-space(top.rho, low.rho, count).log())
    return _between(high, inner, low, count)


def _between(high: Point, inner: Point, low: Point, count: int) -> Point:
    """The first ``count`` of the inner points, whose first and last are exactly the given ones."""
    ends = zip(high, inner, low, strict=True)
    return Point(*(torch.stack([a, *row[1:-1], b])[:count] for a, row, b in ends))


def _between_trained_steps(
    schedule: VPDiscrete, low: Point, high: Point, fractions: Tensor
) -> Point:
    """Points at fractions of the range of t, with lam linear between trained steps, as in
    k-diffusion."""
    lam = schedule.lam(torch.arange(len(schedule.alphas_cumprod), dtype=torch.float64))
    return schedule.at_lam(interpolated(lam, low.t + fractions * (high.t - low.t)))


def _spaced_in_time(schedule: Schedule, low: Point, high: Point, fractions: Tensor) -> Point:
    """Points at fractions (1 is the noisiest) of the range from ``low`` to ``high``."""
    bottom, top = schedule.fraction(low.t), schedule.fraction(high.t)
    return schedule.point(schedule.at_fraction(bottom + fractions * (top - bottom)))


_FRACTIONS: dict[str, Callable[[int], Tensor]] = {
    "uniform": lambda count: 1 - ramp(count),
    "normal": lambda count: 1 - ramp(count),
    "linspace": lambda count: 1 - ramp(count),
    "quadratic": lambda count: (1 - ramp(count)).square(),
    "leading": lambda count: torch.arange(count, dtype=torch.float64).flip(0) / count,
    "sgm-uniform": lambda count: torch.arange(1, count + 1, dtype=torch.float64).flip(0) / count,
    "trailing": lambda count: torch.arange(1, count + 1, dtype=torch.float64).flip(0) / count,
}


def _trained_steps(
    schedule: Schedule,
    low: Point,
    high: Point,
    count: int,
    name: str,
    settings: Mapping[str, float],
) -> Point:
    """``count`` distinct trained steps between the two points, noisiest first."""
    if not isinstance(schedule, VPDiscrete):
        above = int(low.clean)  # clean data is no trained step
        available = max(_TRAINED_STEPS, count)
        steps = above + TRAINED[name](available, count, **settings).flip(0)
        return _spaced_in_time(schedule, low, high, steps / (available - 1 + above))
    first, last = int(torch.ceil(low.t - 1e-9)), int(torch.floor(high.t + 1e-9))
    available = last - first + 1
    if count > available:
        raise ValueError(
            f"A {name!r} grid of {count} points was asked for, but only {available} trained "
            "steps lie in its range; take fewer steps, or the 'log-snr' or 'uniform' grid."
        )
    return schedule.point((first + TRAINED[name](available, count, **settings)).flip(0))


def _shorten(values: Tensor) -> str:
    numbers = [f"{value:.4g}" for value in values.flatten().tolist()]
    return ", ".join(numbers if len(numbers) <= 8 else [*numbers[:4], "…", *numbers[-3:]])
