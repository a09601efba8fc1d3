"""Layer 6. Settings from the config of a scheduler: schedule, prediction type, time scale,
grids."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from samplers.checks import check_whole
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING, ConfigSpacing
from samplers.denoiser import Denoiser, call_network
from samplers.diffusers.distilled import DistilledTimes, every_kth
from samplers.grid import (
    Final,
    Grid,
    Spacing,
    grid_from_sigmas,
    grid_from_times,
    make_grid,
)
from samplers.noise_levels import SPACED
from samplers.prediction import Correction, Prediction
from samplers.registry import Sampler
from samplers.schedule import FlowMatching, Point, Schedule, shifted

Numbers = Sequence[float] | NDArray[Any] | Tensor

VarianceType = Literal["small", "large", "learned"]


def call_unet(unet: Any, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
    """Evaluate a UNet in the dtype of its weights; the prediction is in that of x.

    Some networks also predict a variance, in channels after those of the prediction: it is dropped.
    """
    output: Tensor = unet(x.to(unet.dtype), t, return_dict=False, **conditions)[0]
    return output[:, : x.shape[1]].to(x.dtype)


@dataclass(frozen=True, eq=False)
class SchedulerSettings:
    """The content of a scheduler config: what a network was trained for, and the grid.

    Attributes:
        schedule: the noise schedule, in the coordinates of the network's input.
        prediction: the prediction type.
        time_scale: the network is given ``time_scale * t``, t being the schedule's time.
        correction: clipping or thresholding of the predicted x_0, or None.
        spacing, offset, sigma_min, sigma_max, final: of the config's grid.
        dynamic_shift: from mu to the flow shift that depends on the image size, or None.
        shift_terminal: where the last positive time of a flow grid is stretched to, or None.
        variance: the variance of the noise of ancestral sampling.
        distilled_for: the sampler that the network was distilled for; None for a denoiser.
        distilled_times: the times at which it was distilled, of which a grid consists.
        timestep_scaling: of the boundary condition of ``lcm``.
        ends_of: the spacing of the trained steps that the grid has its ends from; None for the
            trained range.
        own_grid: whether the config's grid belongs to the network or was chosen, so that it is the
            default.
        in_time: whether a flow's times are themselves spaced like Karras or exponential levels,
            rather than sigma / alpha.
    """

    schedule: Schedule
    prediction: Prediction
    time_scale: float
    correction: Correction | None
    spacing: str
    offset: int
    sigma_min: float | None
    sigma_max: float | None
    final: Final
    dynamic_shift: Callable[[float], float] | None
    shift_terminal: float | None
    variance: VarianceType
    distilled_for: str | None = None
    distilled_times: DistilledTimes | None = None
    timestep_scaling: float | None = None
    ends_of: Spacing | None = None
    own_grid: bool = False
    in_time: bool = False

    @property
    def default_sampler(self) -> str:
        """The sampler that the network was distilled for, else the default of denoisers."""
        return self.distilled_for or DEFAULT_SAMPLER

    @property
    def default_spacing(self) -> ConfigSpacing:
        """The spacing of a grid for which none is named.

        ``config``, the config's own, for flow matching (whose shift belongs to the network), for
        distilled networks, for mean-reverting diffusion, and where a key names the noise levels:
        ``use_karras_sigmas``, ``use_exponential_sigmas``, ``use_lu_lambdas``, or a
        ``sigma_schedule`` other than ``karras``. For all others that of :func:`samplers.sample`.
        """
        distilled = self.distilled_for is not None or self.distilled_times is not None
        return "config" if self.own_grid or distilled else DEFAULT_SPACING

    def training(self) -> dict[str, str]:
        """What the network was trained for, in words: equal if its outputs mean the same."""
        return {
            "noise schedule": _schedule_words(self.schedule),
            "noise levels": f"{self.sigma_min} to {self.sigma_max}",
            "prediction type": str(self.prediction),
            "time scale": f"{self.time_scale:g}",
            "correction": str(self.correction),
        }

    def denoiser(
        self, network: Callable[..., Any], call: Callable[..., Tensor] = call_network
    ) -> Denoiser:
        """The denoiser of the network that the config belongs to.

        Args:
            network: is given ``time_scale * t``.
            call: how it is evaluated, see :class:`samplers.Denoiser`.
        """
        return Denoiser(
            network, self.schedule, self.prediction, self.time_scale, self.correction, call
        )

    def grid(
        self,
        steps: int,
        spacing: ConfigSpacing | None = None,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> Grid:
        """A grid with ``steps`` steps, spaced by :attr:`default_spacing` if ``spacing`` is None.

        The ends that are not None override the config's. A flow model's own spacing is even times
        1, (n-1)/n, …, 1/n before the shift; a distilled network's is of the times at which it was
        distilled.
        """
        spacing = spacing or self.default_spacing
        low = self.sigma_min if sigma_min is None else sigma_min
        high = self.sigma_max if sigma_max is None else sigma_max
        if spacing != "config":
            return self._made(steps, spacing, low, high)
        if self.distilled_times is not None:
            latest = self.schedule.t_max if high is None else float(self._at_noise(high).t)
            ending = dataclasses.replace(self, sigma_min=low)
            return ending._grid_through(self.distilled_times.select(steps, latest))
        if self.in_time:
            first = self.schedule.noisiest.t if high is None else self._at_noise(high).t
            return self._grid_through(self._spaced(first, self._last_time(low), steps))
        if self.ends_of is not None:
            steps_of = make_grid(self.schedule, steps, self.ends_of, offset=self.offset)
            low = float(steps_of[steps - 1].rho) if low is None else low
            high = float(steps_of.start.rho) if high is None else high
        if self._plain_flow(low, high) and steps >= 1:
            return self.grid_from_sigmas(torch.linspace(1, 1 / steps, steps, dtype=torch.float64))
        return self._made(steps, self.spacing, low, high)

    def _made(self, steps: int, spacing: Spacing, low: float | None, high: float | None) -> Grid:
        return make_grid(
            self.schedule,
            steps,
            spacing,
            sigma_min=low,
            sigma_max=high,
            final=self.final,
            offset=self.offset,
        )

    def _plain_flow(self, low: float | None, high: float | None) -> bool:
        default = self.spacing == "trailing" and self.final == "zero"
        return isinstance(self.schedule, FlowMatching) and default and low is None and high is None

    def _last_time(self, low: float | None) -> Tensor:
        if low is not None:
            return self._at_noise(low).t
        terminal = self.shift_terminal
        return self.schedule.cleanest.t if terminal is None else torch.tensor(terminal).double()

    def _spaced(self, first: Tensor, last: Tensor, steps: int) -> Tensor:
        """Times of a flow like Karras or exponential levels, as diffusers spaces them."""
        check_whole("The number of steps", steps)
        return SPACED[self.spacing](first, last, steps)

    def grid_from_timesteps(self, timesteps: Numbers) -> Grid:
        """A grid from timesteps, as the network is given them, all of them, noisiest first.

        Raises ValueError outside of the trained range.
        """
        if self.distilled_times is not None and self.distilled_times.whole_stride:
            raise ValueError(
                "Custom timesteps of a consistency model count its trained levels in diffusers, "
                "and are what the network is given here; pass sigmas, or a number of steps."
            )
        told = torch.as_tensor(timesteps, dtype=torch.float64).cpu()
        times = told / self.time_scale
        lowest = min(self.schedule.t_min, 0.0)
        if bool((times > self.schedule.t_max + 1e-6).any()) or bool((times < lowest).any()):
            raise ValueError(
                f"The timesteps run from {float(told.max()):.6g} to {float(told.min()):.6g}; this "
                f"network was trained from {self.time_scale * self.schedule.t_max:.6g} to "
                f"{self.time_scale * lowest:.6g}."
            )
        return self._grid_through(times)

    def _grid_through(self, times: Tensor) -> Grid:
        """The grid on which the network is evaluated at each of the times.

        The last step goes to where the config ends, or to sigma = 0 from that level itself.
        """
        end = self.schedule.cleanest
        if self.sigma_min is not None:
            end = self._at_noise(self.sigma_min)
        if self.final == "zero" or bool((self.schedule.point(times).rho <= end.rho).any()):
            return grid_from_times(self.schedule, times, "zero")
        return grid_from_times(self.schedule, torch.cat([times, end.t[None]]), "sigma_min")

    def _at_noise(self, rho: float) -> Point:
        return self.schedule.at_lam(-torch.tensor(rho, dtype=torch.float64).log())

    def grid_from_sigmas(self, sigmas: Numbers) -> Grid:
        """A grid from noise levels, noisiest first; a 0 at the end is optional.

        Those of a flow model are its times before the shift, as Flux's pipeline passes them, and
        without a 0 the network is evaluated at all of them. On every other schedule they are sigma
        / alpha, and the config's ``final_sigmas_type`` decides whether a 0 is added.
        """
        levels = torch.as_tensor(sigmas, dtype=torch.float64).cpu()
        closed = levels.ndim == 1 and len(levels) > 0 and bool(levels[-1] == 0)
        if isinstance(self.schedule, FlowMatching):
            times = self._shifted(levels[:-1] if closed else levels)
            if closed:
                return grid_from_times(self.schedule, times, "zero")
            return self._grid_through(times)
        noisiest = float(self.schedule.noisiest.rho)
        if bool((levels > noisiest * (1 + 1e-3)).any()):
            raise ValueError(
                f"The noise levels begin at {float(levels.max()):.6g}; sigma/alpha of this network "
                f"goes up to {noisiest:.6g}."
            )
        if not closed and self.final == "zero":
            levels = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
        return grid_from_sigmas(self.schedule, levels)

    def _shifted(self, u: Tensor) -> Tensor:
        assert isinstance(self.schedule, FlowMatching)
        if bool((u > 1 + 1e-6).any()) or bool((u <= 0).any()):
            raise ValueError(
                f"The sigmas of a flow model run from {float(u.max()):.6g} to "
                f"{float(u.min()):.6g}; they must lie in (0, 1]."
            )
        t = shifted(u, self.schedule.shift)
        stretched = t if self.shift_terminal is None else _stretched(t, self.shift_terminal)
        return self._spaced(stretched[0], stretched[-1], len(t)) if self.in_time else stretched

    def options(self, sampler: Sampler, chosen: Mapping[str, Any] | None) -> dict[str, Any]:
        """The chosen options of a sampler, and those that the config determines.

        Raises ValueError for ancestral sampling with a learned variance.
        """
        options = dict(chosen or {})
        if self.timestep_scaling is not None and "timestep_scaling" in sampler.options:
            options.setdefault("timestep_scaling", self.timestep_scaling)
        if "variance" not in sampler.options or "variance" in options:
            return options
        if self.variance == "learned":
            raise ValueError(
                f"The network predicts the variance of its noise, which {sampler.name!r} cannot "
                "use; choose the option variance='small' or 'large', or another sampler."
            )
        return {**options, "variance": self.variance}

    def distilled_at(self, count: int | None, strength: float) -> SchedulerSettings:
        """The settings for ``original_inference_steps`` and ``strength`` of LCM's pipelines.

        Raises ValueError if the config says nothing of distillation.
        """
        if count is None and strength == 1:
            return self
        if self.distilled_times is None or self.distilled_times.whole_stride:
            raise ValueError(
                "original_inference_steps or strength was passed to set_timesteps, but only "
                "configs of LCM and TCD have them; leave them out, or take such a config."
            )
        times = self.distilled_times
        if count is not None:
            times = every_kth(int(self.schedule.t_max) + 1, count)
        return dataclasses.replace(self, distilled_times=times.within(strength))

    def shifted_by(self, mu: float | None) -> SchedulerSettings:
        """The settings for one image size, whose ``mu`` the pipeline computes.

        Without dynamic shifting mu is ignored, as in diffusers. Raises ValueError if mu is needed
        and None.
        """
        if self.dynamic_shift is None:
            return self
        if mu is None:
            raise ValueError(
                "This config has use_dynamic_shifting=True, so its shift depends on the image "
                "size; pass mu to set_timesteps."
            )
        assert isinstance(self.schedule, FlowMatching)
        shifted = dataclasses.replace(self.schedule, shift=self.dynamic_shift(mu))
        schedule = shifted.with_data_scale(self.schedule.data_scale)
        return dataclasses.replace(self, schedule=schedule)


def _stretched(t: Tensor, terminal: float) -> Tensor:
    if bool(t[-1] == 1):
        raise ValueError(
            "One time alone can't be stretched to shift_terminal; take two steps or more."
        )
    return 1 - (1 - t) * (1 - terminal) / (1 - t[-1])


def _schedule_words(schedule: Schedule) -> str:
    """A schedule with a digest of alpha and sigma, to the digits on which all machines agree."""
    at = schedule.point(schedule.at_fraction(torch.linspace(0, 1, 1001, dtype=torch.float64)))
    numbers = [f"{number:.6g}" for number in (*at.alpha.tolist(), *at.sigma.tolist())]
    digest = hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:8]
    return f"{schedule!r} ({digest})"


def named_settings(
    config: Mapping[str, Any],
    sampler: str | None,
    options: Mapping[str, Any],
    grid: str | None,
) -> dict[str, Any]:
    """The keys of a config with another sampler, options or grid. Arguments that are None, and
    options of the same sampler that are not given, are unchanged."""
    chosen = sampler or config["sampler"]
    kept = config["sampler_options"] if chosen == config["sampler"] else None
    return {
        "sampler": chosen,
        "sampler_options": {**(kept or {}), **options},
        "grid": grid or config["grid"],
    }
