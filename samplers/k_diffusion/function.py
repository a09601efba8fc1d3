"""A sampler as a function of k-diffusion's signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Any

import torch
from torch import Tensor

from samplers.checks import check_numbers
from samplers.denoiser import Denoiser
from samplers.grid import Grid
from samplers.k_diffusion.levels import check_schedule, grid_of, noise_scale_of, schedule_of
from samplers.k_diffusion.noise import from_sampler, from_seeds, scaled, seeds_of
from samplers.k_diffusion.run import Call, Callback, run_adaptive, run_tableau
from samplers.noise import Noise
from samplers.probability_flow import Adaptive
from samplers.registry import AdaptiveSampler, Method, Sampler, get_sampler, registry
from samplers.sampling import OwnGrid, build_tableau
from samplers.schedule import Schedule
from samplers.solve import NoiseKind
from samplers.tableau import Tableau

_NOISE: dict[str, Any] = {"s_noise": 1.0, "noise_sampler": None, "seeds": None}
"""Options of every stochastic sampler."""

_OFF = _NOISE | {"eta": 0.0, "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf}
"""Options of k-diffusion with the values that add no noise; every sampler takes these."""


def sampler(
    sampler: str | Sampler | Method,
    *,
    schedule: Schedule | None = None,
    noise: NoiseKind = "independent",
) -> SamplingFunction:
    """A sampler as a function of k-diffusion's signature.

    ``sampler("dpmpp-2m")`` takes the place of ``k_diffusion.sampling.sample_dpmpp_2m``.

    Args:
        sampler: a name or alias from :func:`samplers.list_samplers`, such as ``sample_euler``; a
            :class:`samplers.Sampler`; a :class:`samplers.TunedSampler`, which has its own noise
            levels; or a function from a grid to a tableau.
        schedule: :class:`samplers.EDM` for a model of x = x_0 + sigma z,
            :class:`samplers.FlowMatching` for one of x = (1 - sigma) x_0 + sigma z; also for
            another range of noise levels or scale of the data. If None, it is what a model of
            ComfyUI or k-diffusion says of itself, and EDM for any other.
        noise: of stochastic samplers, ``independent`` from step to step, or along a ``brownian``
            path for each seed.
    """
    return SamplingFunction(
        get_sampler(sampler) if isinstance(sampler, str) else sampler, schedule, noise
    )


@dataclass(frozen=True)
class SamplingFunction:
    """A sampling function of k-diffusion's signature, see :func:`sampler`."""

    sampler: Sampler | Method
    schedule: Schedule | None = None
    noise: NoiseKind = "independent"

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        # ComfyUI reads the name, A1111 the options.
        object.__setattr__(self, "__name__", _name(self.sampler))
        object.__setattr__(self, "__signature__", self._signature())

    @property
    def options(self) -> dict[str, Any]:
        """The options with their defaults: those of the sampler, and of its noise if it has any."""
        if isinstance(self.sampler, AdaptiveSampler):
            limits = Adaptive(self.sampler.name)
            return {name: getattr(limits, name) for name in ("rtol", "atol", "max_nfe")}
        if isinstance(self.sampler, Sampler):
            own = self.sampler.options
            return _NOISE | own if self.sampler.stochastic else own
        return {} if isinstance(self.sampler, OwnGrid) else _NOISE

    def _signature(self) -> Signature:
        fixed = list(signature(SamplingFunction.__call__).parameters.values())[1:-1]
        named = [Parameter(n, Parameter.KEYWORD_ONLY, default=v) for n, v in self.options.items()]
        return Signature([*fixed, *named])

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample from ``x`` at the noise level ``sigmas[0]`` to ``sigmas[-1]``.

        Args:
            model: ``model(x, sigma, **extra_args)`` with x [B, ...] and sigma [B], the prediction
                of x_0, in the dtype of ``x``.
            x: noisy samples [B, ...]; half precision is accumulated in float32.
            sigmas: the noise levels, which fall strictly; the last may be 0. With fewer than two
                there is no step, and x is returned.
            callback: called once a step, after its first evaluation, with a dictionary of ``x``,
                ``i``, ``sigma``, ``sigma_hat`` and ``denoised``; of a sampler with adaptive step
                size, at every evaluation. What the model or the callback changes in x in place is a
                change of the sample, on a fixed grid.
            disable: show no progress bar; None for none outside of a terminal.
            options: of the sampler, such as ``eta``, see :attr:`options`. Stochastic samplers also
                take ``s_noise``, by which noise is multiplied, ``noise_sampler(sigma,
                sigma_next)``, or ``seeds``, one for each sample. Without these the seeds begin
                with ``extra_args["seed"]`` if that is an integer, else they are hashes of x.

        Returns:
            The samples, in the dtype of ``x``. Gradients flow through everything: call it under
            ``torch.no_grad()`` if none are wanted.

        Raises ValueError for noise levels and options that the sampler does not take, and
        NotFiniteError if the model returns NaN or infinity.
        """
        _check_model(model)
        check_numbers("x", x)
        chosen = self._known(options)
        levels = torch.as_tensor(sigmas)
        if len(levels) < 2:
            return x
        grid = grid_of(self.schedule or schedule_of(model), levels)
        call = Call(model, x, levels, extra_args or {}, callback, disable)
        if isinstance(self.sampler, AdaptiveSampler):
            return run_adaptive(call, grid, Adaptive(self.sampler.name, **chosen))
        of_noise = {n: chosen.pop(n) for n in _NOISE if n in chosen and n not in self._own}
        tableau = _tableau(self.sampler, grid, chosen)
        return run_tableau(call, tableau, self._noise(call, tableau, **of_noise))

    @property
    def _own(self) -> Mapping[str, Any]:
        return self.sampler.options if isinstance(self.sampler, Sampler) else {}

    def _known(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that the sampler has; ValueError for others, unless they are off."""
        known = self.options
        for name, value in options.items():
            if name not in known and not (name in _OFF and value == _OFF[name]):
                _refuse(self.sampler, name, known)
        return {name: value for name, value in options.items() if name in known}

    def _noise(
        self,
        call: Call,
        tableau: Tableau,
        s_noise: float = 1.0,
        noise_sampler: Any = None,
        seeds: Any = None,
    ) -> Noise | None:
        if not tableau.stochastic:
            return None
        if noise_sampler is not None and seeds is not None:
            raise ValueError("Both noise_sampler and seeds came; the noise is from one of them.")
        if noise_sampler is not None:
            noise = from_sampler(tableau, noise_sampler, call.sigmas)
        else:
            of_samples = seeds_of(call.x, call.extra_args, seeds)
            noise = from_seeds(tableau, of_samples, call.x, self.noise)
        return scaled(tableau, noise, s_noise * noise_scale_of(call.model))


def _name(sampler: Sampler | Method) -> str:
    name = sampler.name if isinstance(sampler, Sampler) else type(sampler).__name__
    plain = getattr(sampler, "__name__", name).lower()
    return "sample_" + "".join(letter if letter.isalnum() else "_" for letter in plain)


def _check_model(model: object) -> None:
    if isinstance(model, Denoiser) or not callable(model):
        raise ValueError(
            f"The model is a {type(model).__name__}; it must be a function model(x, sigma) that "
            "predicts x_0, such as a denoiser of k-diffusion (samplers.sample takes a Denoiser)."
        )


def _refuse(sampler: Sampler | Method, name: str, known: Mapping[str, Any]) -> None:
    others = [other for other, row in registry().items() if name in row.options]
    hint = f"; {others[0]!r} has it" if others else ""
    raise ValueError(
        f"{_name(sampler)} has no option {name!r}{hint}. It has {', '.join(known) or 'none'}."
    )


def _tableau(sampler: Sampler | Method, grid: Grid, options: Mapping[str, Any]) -> Tableau:
    if isinstance(sampler, Sampler):
        return sampler.tableau(grid, options)
    if isinstance(sampler, OwnGrid):
        _check_own_levels(sampler.grid(grid.schedule), grid)
    return build_tableau(sampler, grid)


def _check_own_levels(own: Grid, grid: Grid) -> None:
    theirs, ours = grid.points.sigma, own.points.sigma
    if len(theirs) != len(ours) or not torch.allclose(theirs, ours):
        raise ValueError(
            f"This sampler has its own {len(ours)} noise levels, and {len(theirs)} others came; "
            "pass sigmas=sampler.grid(schedule).points.sigma."
        )
