r"""Layer 1. The model as one object: a network with its noise schedule and what it predicts.

A network is a diffusion model only together with its noise schedule, its prediction type and its
time convention. :class:`Denoiser` binds them once; sampling, integration, likelihood, inverse
problems, adjoints and losses take it as their first argument.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from samplers.noise import initial_noise
from samplers.prediction import Correction, Prediction, points_at, prediction_type, to_data
from samplers.schedule import Point, Schedule

TimeScale = float | Callable[[Point], Tensor]
"""The time that a network is given: a multiple of the schedule's t, or a function of the point."""

# ---------------------------------------------------------------------------------- conditions


class Unbatched(NamedTuple):
    """A condition that all samples share, although it is a tensor with dimensions."""

    value: Any


def is_batched(condition: object) -> bool:
    """Whether a condition has one row for each sample.

    A tensor with at least one dimension has. Anything else is shared by all samples: a number, a
    0-d tensor, None, text, or a tensor wrapped in :class:`Unbatched`.
    """
    return isinstance(condition, Tensor) and condition.ndim > 0


def check_conditions(conditions: Mapping[str, Any], count: int) -> None:
    """Raise ValueError unless each batched condition has a row for each of ``count`` samples."""
    for name, rows in conditions.items():
        if is_batched(rows) and len(rows) != count:
            raise ValueError(
                f"The condition {name!r} has {len(rows)} rows for {count} samples; give one for "
                "each, or wrap a tensor that all samples share in samplers.Unbatched."
            )


def select_rows(conditions: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """The conditions of the samples with these indices in the batch [b]."""
    return {
        name: value[rows.to(value.device)] if is_batched(value) else value
        for name, value in conditions.items()
    }


# ----------------------------------------------------------------------------------- the model


def once(at: Point) -> Tensor:
    """One network evaluation of each sample, at every noise level."""
    return torch.ones_like(at.t, dtype=torch.int64)


def call_network(network: Callable[..., Any], x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
    """Evaluate ``network(x, t, **conditions)``; of a diffusers output, take ``sample``."""
    output = network(x, t, **conditions)
    if isinstance(output, Tensor):
        return output
    sample: Tensor = output[0] if isinstance(output, tuple) else output.sample
    return sample


def call_wrapped(
    function: Callable[..., Tensor], x: Tensor, t: Tensor, **conditions: Any
) -> Tensor:
    """Evaluate a function of other denoisers, which takes the conditions as they were given."""
    return function(x, t, **conditions)


@dataclass(frozen=True, eq=False, repr=False)
class Denoiser:
    r"""A diffusion model: a network, its noise schedule and what it predicts.

    The marginals are :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon`, and the network predicts
    x_0, eps, v, the flow or the score from x_t (see :mod:`samplers.prediction`).

    Attributes:
        network: ``network(x, t, **conditions)`` with x [B, ...] and t [B] -> a tensor like x, or a
            diffusers output with ``sample``. A module or a function.
        schedule: alpha and sigma at each time, e.g. :class:`samplers.VPLinear`.
        prediction: ``epsilon``, ``sample``, ``v_prediction``, ``flow`` or ``score`` (aliases such
            as ``eps``, ``x0``, ``v`` and ``flow_prediction`` are accepted), or a function from a
            point to its conversion, such as :class:`samplers.prediction.EDMOutput`.
        time_scale: the network is given ``time_scale * t``, t being the schedule's time; or a
            function of the point, e.g. ``lambda at: at.rho.log() / 4``.
        correction: applied to every predicted x_0, e.g. :func:`samplers.clip`.
        call: how the network is evaluated, ``call(network, x, t, **conditions)``, if not as above.
        nfe: the network evaluations of each sample at a point; guidance makes two of them where it
            is on.

    Conditions go by name. One that is a tensor with dimensions has a row for each sample; wrap one
    that all samples share in :class:`Unbatched`.

    Raises ValueError for a network that is not callable, something that is no schedule, an unknown
    prediction type, or a time scale that is not positive and finite.
    """

    network: Callable[..., Any]
    schedule: Schedule
    prediction: Prediction = "epsilon"
    time_scale: TimeScale = 1.0
    correction: Correction | None = None
    call: Callable[..., Tensor] = call_network
    nfe: Callable[[Point], Tensor] = once

    def __post_init__(self) -> None:
        if not callable(self.network):
            raise ValueError(
                f"The network is a {type(self.network).__name__}; it must be a module or a "
                "function network(x, t, **conditions)."
            )
        if not isinstance(self.schedule, Schedule):
            raise ValueError(
                f"The schedule is {self.schedule!r}; it must be a Schedule, such as "
                "samplers.VPLinear()."
            )
        if not callable(self.time_scale) and not 0 < self.time_scale < math.inf:
            raise ValueError(
                f"The time scale is {self.time_scale}; it must be positive and finite, or a "
                "function of the point."
            )
        if isinstance(self.prediction, str):
            object.__setattr__(self, "prediction", prediction_type(self.prediction))

    def __call__(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """The unconverted output of the network at x [B, ...] and the schedule's times t [B]."""
        if self.call is not call_wrapped:  # else the denoiser inside needs to know what is shared
            conditions = {
                name: value.value if isinstance(value, Unbatched) else value
                for name, value in conditions.items()
            }
        return self.call(self.network, x, self._time(t), **conditions)

    def _time(self, t: Tensor) -> Tensor:
        if callable(self.time_scale):
            return self.time_scale(self.schedule.point(t)).to(t.dtype)
        return t if self.time_scale == 1 else t * self.time_scale

    # What a network predicts, converted. x is [B, ...], t one number or [B].

    def data(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """The prediction of x_0, D(x, t) = E[x_0 | x_t = x], after the correction."""
        return self._data(x, self._times(x, t), conditions)[0]

    def noise(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """The prediction of eps, E[eps | x_t = x] = (x - alpha D) / sigma; for sigma > 0."""
        data, at = self._data(x, self._times(x, t), conditions)
        return (x - at.alpha.to(x) * data) / at.sigma.to(x)

    def score(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        r"""The score :math:`\nabla_x \log p_t(x)` = (alpha D - x) / sigma^2; for sigma > 0."""
        data, at = self._data(x, self._times(x, t), conditions)
        return (at.alpha.to(x) * data - x) / at.sigma.to(x).square()

    def velocity(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        r"""dx/dt of the probability-flow ODE, in the schedule's own time; for sigma > 0.

        .. math:: v = \dot\alpha_t D + \dot\sigma_t \hat\varepsilon

        On straight paths (flow matching) it is eps - x_0.
        """
        data, at = self._data(x, self._times(x, t), conditions)
        of_data, of_noise = self.schedule.derivatives(at.t)
        noise = (x - at.alpha.to(x) * data) / at.sigma.to(x)
        return of_data.to(x) * data + of_noise.to(x) * noise

    def _times(self, x: Tensor, t: Tensor | float) -> Tensor:
        times = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        return times.expand(len(x)) if times.ndim == 0 else times

    def _data(self, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> tuple[Tensor, Point]:
        """The prediction of x_0, and the points shaped to broadcast against x."""
        check_conditions(conditions, len(x))
        at = points_at(self.schedule, t, x)
        output = self(x, t.to(x), **conditions)
        of_x, of_output = (number.to(x) for number in to_data(self.prediction, at))
        data = of_x * x + of_output * output
        return data if self.correction is None else self.correction(data), at

    # Initial noise.

    def initial(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        *,
        sigma_max: float | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Initial noise x_T ``[len(seeds), *shape]`` at the scale of the noisiest level.

        Args:
            shape: of one sample.
            seeds: one integer for each sample, whose noise does not depend on the others.
            sigma_max: the first noise level of the grid, as sigma / alpha; the noisiest trained
                level if None.
            device: that of the network's weights if None.
        """
        level = self.schedule.noisiest if sigma_max is None else self._level(sigma_max)
        noise = initial_noise(seeds, shape) * self.schedule.initial_std(level)
        return noise.to(self.device if device is None else device, dtype)

    def _level(self, rho: float) -> Point:
        return self.schedule.at_lam(-torch.tensor(rho, dtype=torch.float64).log())

    # Other denoisers from this one.

    def with_network(self, network: Callable[..., Any]) -> Denoiser:
        """The same model with another network, which is evaluated in the same way."""
        return replace(self, network=network)

    def wrapped(
        self, function: Callable[..., Tensor], nfe: Callable[[Point], Tensor] | None = None
    ) -> Denoiser:
        """A denoiser of ``function(x, t, **conditions)``, which predicts what this one predicts.

        This is how guidance is written: the function evaluates a denoiser, so it is given the
        schedule's own time, and shared conditions as :class:`Unbatched`. ``nfe`` are the network
        evaluations of each sample that it makes; as many as this denoiser makes if None.
        """
        cost = self.nfe if nfe is None else nfe
        return replace(self, network=function, time_scale=1.0, call=call_wrapped, nfe=cost)

    def with_data_scale(self, scale: float) -> Denoiser:
        """The same model of data whose root mean square is ``scale``.

        The default grid and sampler depend on it; 1 is right for pixels in [-1, 1] and for latents
        of unit variance. :func:`samplers.measure_data_scale` measures it.
        """
        return replace(self, schedule=self.schedule.with_data_scale(scale))

    @property
    def uncorrected(self) -> Denoiser:
        """The same model without its correction; clipping would make the ODE not invertible."""
        return replace(self, correction=None)

    # What it is.

    @property
    def device(self) -> torch.device:
        """The device of the network's weights; the CPU for a function."""
        weights = self.network.parameters() if isinstance(self.network, nn.Module) else iter(())
        first = next(weights, None)
        return torch.device("cpu") if first is None else first.device

    def _facts(self) -> dict[str, str]:
        network = type(self.network).__name__
        if isinstance(self.network, nn.Module):
            count = sum(weight.numel() for weight in self.network.parameters())
            network += f" with {count:,} weights"
        else:
            network = getattr(self.network, "__qualname__", network)
        own = self.prediction
        facts = {
            "network": network,
            "schedule": repr(self.schedule),
            "prediction": own if isinstance(own, str) else repr(own),
        }
        if self.schedule.data_scale != 1:
            facts["data_scale"] = f"{self.schedule.data_scale:g}"
        if self.time_scale != 1:
            facts["time_scale"] = _name(self.time_scale)
        if self.correction is not None:
            facts["correction"] = _name(self.correction)
        return facts

    def __repr__(self) -> str:
        lines = "".join(f"\n  {name}: {fact}" for name, fact in self._facts().items())
        return f"Denoiser({lines}\n)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{html.escape(fact)}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<table><caption>Denoiser</caption>{rows}</table>"


def check_denoiser(model: object) -> None:
    """Raise ValueError unless the model is a denoiser, and not a network alone."""
    if not isinstance(model, Denoiser):
        raise ValueError(
            f"The model is a {type(model).__name__}; it must be a Denoiser: wrap a network "
            'as Denoiser(network, schedule, prediction="epsilon").'
        )


def _name(value: object) -> str:
    return getattr(value, "__qualname__", repr(value))
