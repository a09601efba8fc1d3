r"""A mean-reverting process as an ordinary denoiser, in :math:`y = (x - \mu) / \lambda_\infty`.

A network ``network(x, mu, t, ...)`` predicts one of

============  ======================================  ==================================
kind          target                                  what it is in y
============  ======================================  ==================================
``noise``     eps                                     eps
``data``      x_0                                     y_0 = (x_0 - mu) / lambda_inf
``residual``  x_0 - mu                                y_0 = (x_0 - mu) / lambda_inf
``velocity``  lambda_inf (alpha eps - sigma y_0)      v = alpha eps - sigma y_0
``ml-noise``  what the reverse-state loss makes of    eps, by an affine change
              eps, see :meth:`RestorationProcess`
============  ======================================  ==================================

so every sampler, likelihood and gradient of this package applies to it. mu and everything else that
the network is given are conditions, through which gradients flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from samplers.checks import check_one_each
from samplers.denoiser import Denoiser
from samplers.grid import Final, Grid, Spacing
from samplers.noise import initial_noise
from samplers.prediction import PredictionType, per_sample
from samplers.registry import Method
from samplers.sampling import Adjoint, OwnGrid, grid_for, sample
from samplers.schedule.mean_reverting import MeanReverting
from samplers.solve import NoiseKind, State

Predicts = Literal["noise", "data", "residual", "velocity", "ml-noise"]

_KINDS: dict[Predicts, PredictionType] = {
    "noise": "epsilon",
    "data": "sample",
    "residual": "sample",
    "velocity": "v_prediction",
    "ml-noise": "epsilon",
}

Network = Callable[..., Tensor]
"""``network(x, mu, t, **conditions)``: x and mu [B, C, H, W], t [B] -> its output, like x."""


@dataclass(frozen=True)
class RestorationProcess:
    r"""A mean-reverting process and the prediction type of its network.

    Attributes:
        schedule: of y.
        lambda_inf: the standard deviation of x about mu at the end, in units of the images.
        predicts: the prediction type. A network trained by the reverse-state loss (Luo et al. 2023,
            eq. 17; see :mod:`samplers.restoration.loss`) does not predict eps, but

        .. math:: \varepsilon_{ML} = \frac{\sinh k}{k} \varepsilon
            - \frac{e^k - 1 - k}{2 k} \sigma_t \, y, \qquad k = \Lambda_t - \Lambda_{t-1},

        which ``ml-noise`` solves for eps. If it is used as eps, the error of x_0 is 1/alpha times
        the difference, which is negligible in a hundred small steps, but not in a first large one.
    """

    schedule: MeanReverting = field(default_factory=MeanReverting)
    lambda_inf: float = 0.4
    predicts: Predicts = "residual"

    def __post_init__(self) -> None:
        if not self.lambda_inf > 0:
            raise ValueError(f"lambda_inf is {self.lambda_inf}; it must be positive.")
        if self.predicts not in get_args(Predicts):
            raise ValueError(
                f"The network predicts {self.predicts!r}; it must be one of "
                f"{', '.join(get_args(Predicts))}."
            )

    @property
    def prediction(self) -> PredictionType:
        """The prediction type in the coordinates y, see :meth:`denoiser`."""
        return _KINDS[self.predicts]

    def to_y(self, x: Tensor, mu: Tensor) -> Tensor:
        return (x - mu) / self.lambda_inf

    def to_x(self, y: Tensor, mu: Tensor) -> Tensor:
        return mu + self.lambda_inf * y

    def denoiser(self, network: Network) -> Denoiser:
        """The network as a denoiser of y, with the condition ``mu`` [B, ...] besides its own
        conditions."""

        def of_y(y: Tensor, t: Tensor, mu: Tensor, **conditions: Any) -> Tensor:
            output = network(self.to_x(y, mu), mu, t, **conditions)
            return self._output_in_y(output, y, t, mu)

        return Denoiser(of_y, self.schedule, self.prediction)

    def _output_in_y(self, output: Tensor, y: Tensor, t: Tensor, mu: Tensor) -> Tensor:
        match self.predicts:
            case "noise":
                return output
            case "data":
                return (output - mu) / self.lambda_inf
            case "residual" | "velocity":
                return output / self.lambda_inf
            case "ml-noise":
                slope, shift = (per_sample(c, y) for c in ml_noise(self.schedule, t))
                return (output + shift * y) / slope


def ml_noise(schedule: MeanReverting, t: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients a and b of ``eps_ML = a eps - b y`` at the times t, in float64."""
    t = t.to("cpu", torch.float64)
    k = schedule.pull(t)
    return torch.sinh(k) / k, (torch.expm1(k) - k) / (2 * k) * schedule.sigma(t)


def restore(
    network: Network,
    mu: Tensor,
    process: RestorationProcess,
    *,
    seeds: Sequence[int],
    noise: Tensor | None = None,
    noise_kind: NoiseKind = "independent",
    sampler: str | Method = "mr-ode-d-2",
    steps: int | None = None,
    grid: Spacing | Grid | None = None,
    final: Final | None = None,
    options: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    callback: Callable[[State], object] | None = None,
    adjoint: Adjoint | None = None,
) -> Tensor:
    """Restore degraded images ``mu`` [B, C, H, W].

    Args:
        network: ``network(x, mu, t, **conditions)``, with the prediction type of the process.
        seeds: one integer for each image, for its initial noise and that of stochastic samplers.
        noise: the initial noise, with standard deviation 1; that of the seeds if None.
        noise_kind: ``noise`` of :func:`samplers.sample`, where also sampler, steps, grid, final,
            options, callback and adjoint are explained; by default there are 10 steps on a
            ``log-snr`` grid. One step of a deterministic sampler with one evaluation per step
            returns the network's prediction of x_0.

    Sampling starts at ``mu + lambda_inf sigma_T z``, which neglects alpha_T (x_0 - mu), where
    alpha_T is the schedule's eps. Gradients flow to mu, conditions and weights. Raises ValueError
    for impossible settings, NotFiniteError if the network returns NaN or infinity.
    """
    if steps is None and not isinstance(sampler, OwnGrid):
        steps = 10
    on = grid_for(sampler, process.schedule, steps, grid, final=final, default="log-snr")
    check_one_each("seeds", seeds, "images", len(mu))
    z = initial_noise(seeds, mu.shape[1:]).to(mu) if noise is None else noise
    y = sample(
        process.denoiser(network),
        float(on.start.sigma) * z,
        sampler=sampler,
        grid=on,
        seeds=seeds,
        noise=noise_kind,
        options=options,
        conditions={"mu": mu, **(conditions or {})},
        callback=callback,
        adjoint=adjoint,
    )
    return process.to_x(y, mu)
