r"""Layer 6. The likelihood of data under a diffusion model, by its probability-flow ODE.

Along the ODE the log-density changes by the divergence of the slope (Song et al. 2021, eq. 39,
https://arxiv.org/abs/2011.13456). In the angle ``phi = arctan(sigma / alpha)`` and the coordinates
of :mod:`samplers.probability_flow.adaptive`, with d numbers in a sample,

.. math:: \log p(x) = d \log \cos\phi_0 + \log N(u_1; 0, \sin^2\phi_1)
    + \int_{\phi_0}^{\phi_1} \operatorname{tr} \frac{\partial v}{\partial u} \, d\phi

where u starts at ``cos(phi_0) x``, the data at the cleanest noise level, and ends at u_1. This is
the density, in units of x_0, of samples that the exact flow maps from the prior ``x_T ~ N(0,
sigma_T^2)`` to that level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from samplers import choices
from samplers.checks import check_numbers, check_one_each, check_whole
from samplers.denoiser import Denoiser, check_conditions, check_denoiser
from samplers.methods.embedded import Parts
from samplers.noise import probe_noise, uniform_noise
from samplers.prediction import to_data
from samplers.probability_flow.adaptive import (
    CountedField,
    angle_of,
    ends,
    probability_flow,
    scale_of,
)
from samplers.probability_flow.integration import Adaptive, Field, integrate
from samplers.pullback import recorded, value_and_pullback
from samplers.solve import working_dtype

ProbeLaw = choices.ProbeLaw

# Where the data hardly vary the trace is near 1 / phi per dimension. The error estimate of
# Dormand-Prince gives that peak at the clean end a weight of 1 / 1000, and misses it.
DEFAULT = Adaptive("bogacki-shampine", rtol=1e-3, atol=1e-3, max_nfe=10_000)


@dataclass(frozen=True)
class Hutchinson:
    r"""Hutchinson's trace estimator: the mean of ``e^T J e`` over random probes e (1990).

    Attributes:
        probes: number per sample; each takes a vector-Jacobian product in every evaluation.
        law: their distribution: ``rademacher`` (random signs, less variance) or ``gaussian``.
    """

    probes: int = 1
    law: ProbeLaw = "rademacher"

    def __post_init__(self) -> None:
        check_whole("The number of probes", self.probes)
        if self.law not in get_args(ProbeLaw):
            raise ValueError(
                f"The distribution of the probes is {self.law!r}; it must be one of "
                f"{', '.join(get_args(ProbeLaw))}."
            )


@dataclass(frozen=True)
class ExactTrace:
    """The exact trace, by d vector-Jacobian products in every evaluation.

    Attributes:
        at_once: how many of them share a backward pass. The network is then evaluated on as many
            copies of each sample, which takes as much more memory.
    """

    at_once: int = 1

    def __post_init__(self) -> None:
        check_whole("at_once", self.at_once)


Trace = Hutchinson | ExactTrace


class Likelihood(NamedTuple):
    """The likelihood of each sample [B].

    Attributes:
        log_prob: the log density of x_0, in nats; NaN where ``max_nfe`` ran out.
        standard_error: of log_prob, over the probes; 0 for the exact trace, NaN for a single probe.
        latent: x_T, the end of the flow, [B, ...], in the coordinates of the schedule.
        nfe: network evaluations, each with the vector-Jacobian products of the trace; a guided one
            counts as the two that it makes.
        within_tolerance: False where ``max_nfe`` ran out.
    """

    log_prob: Tensor
    standard_error: Tensor
    latent: Tensor
    nfe: Tensor
    within_tolerance: Tensor


def log_likelihood(
    model: Denoiser,
    x_0: Tensor,
    *,
    trace: Trace | None = None,
    seeds: Sequence[int] | None = None,
    conditions: Mapping[str, Any] | None = None,
    settings: Adaptive = DEFAULT,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Likelihood:
    """The log density of each image in ``x_0`` [B, ...] under the model.

    Args:
        model: its correction is ignored. Its network is differentiated, so it must not disable
            autograd.
        trace: the estimator of the divergence; ``Hutchinson()`` if not given.
        seeds: of the probes, one for each sample; 0, 1, 2, … if None. The probes of a sample are
            the same over the whole integration.
        conditions: by name, as for :func:`samplers.sample_adaptive`.
        settings: the tolerance applies to the image and to the log-density.
        sigma_min, sigma_max: the ends of the integration, as sigma / alpha; those of the trained
            range if not given.

    It works under ``torch.no_grad`` too. Where gradients are recorded, they flow to the result;
    that takes second derivatives of the network, which PyTorch's fused attention lacks (on a CPU:
    run it in ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``).

    Returns:
        A :class:`Likelihood`: log densities [B] in nats, their standard errors, the latent codes
        and the network evaluations; :func:`samplers.bits_per_dim` converts them.

    Raises ValueError for impossible settings, or a network that can't be evaluated at the noisy
    end; NotFiniteError if it returns NaN or infinity.
    """
    check_denoiser(model)
    if not isinstance(trace, Hutchinson | ExactTrace | None):
        raise ValueError(f"The trace is {trace!r}; it must be a Hutchinson() or an ExactTrace().")
    own_seeds = range(len(x_0)) if seeds is None else seeds
    _check(x_0, own_seeds, conditions or {})
    clean, noisy = ends(model.schedule, sigma_min, sigma_max)
    to_data(model.prediction, noisy)  # an error here is better than one in the middle
    start, end = angle_of(clean), angle_of(noisy)
    own = model.uncorrected
    chosen = Hutchinson() if trace is None else trace
    u = math.cos(start) * x_0.to(working_dtype(x_0.dtype))
    divergence = _divergence(chosen, u, own_seeds)
    flow = probability_flow(own.wrapped(recorded(own)), conditions)
    field = CountedField(_with_divergence(flow, divergence), own, len(u))
    none = u.new_zeros(len(u), 1 if isinstance(chosen, ExactTrace) else chosen.probes)
    found = integrate(field, Parts((u, none)), start, end, settings)
    u, traces = found.x.tensors
    # The DDIM step at the end of the budget applies to images only.
    traces = torch.where(found.within_tolerance.to(u.device)[:, None], traces, math.nan)
    numbers = u[0].numel()
    log_prior = _log_normal(u, math.sin(end))
    log_prob = numbers * math.log(math.cos(start)) + log_prior + traces.mean(dim=1)
    latent = (float(scale_of(noisy)) * u).to(x_0.dtype)
    error = _standard_error(traces, chosen)
    return Likelihood(log_prob, error, latent, field.nfe, found.within_tolerance)


def _check(x_0: Tensor, seeds: Sequence[int], conditions: Mapping[str, Any]) -> None:
    check_numbers("The data", x_0)
    if x_0.ndim < 2 or len(x_0) == 0:
        raise ValueError(f"The data have shape {tuple(x_0.shape)}; they must be a batch [B, ...].")
    check_one_each("seeds", seeds, "samples", len(x_0))
    check_conditions(conditions, len(x_0))


Pull = Callable[[Tensor], Tensor]
"""The vector-Jacobian product of the slope: cotangent -> cotangent."""


class Divergence(NamedTuple):
    """How the trace of the slope's Jacobian is computed.

    Attributes:
        copies: of each sample in the batch on which the slope is evaluated, [copies * b].
        trace: (pull, u [b, ...], the indices of these samples in the batch) -> K estimates of the
            trace, [b, K].
    """

    copies: int
    trace: Callable[[Pull, Tensor, Tensor], Tensor]


def _with_divergence(flow: Field, divergence: Divergence) -> Field:
    """The slopes of an image and of K estimates of its log-density."""

    def field(parts: Parts, angle: Tensor, places: Tensor) -> Parts:
        u, _ = parts.tensors
        asked = angle.repeat(divergence.copies), places.repeat(divergence.copies)
        copies = u.repeat(divergence.copies, *(1 for _ in u.shape[1:]))
        slopes, pull = value_and_pullback(lambda u: flow(Parts((u,)), *asked).tensors[0], copies)
        return Parts((slopes[: len(u)], divergence.trace(pull, u, places)))

    return field


def _divergence(trace: Trace, u: Tensor, seeds: Sequence[int]) -> Divergence:
    if isinstance(trace, ExactTrace):
        copies = min(trace.at_once, u[0].numel())
        return Divergence(copies, partial(_exact, copies))
    draws = [probe_noise(seeds, k, u.shape[1:]) for k in range(trace.probes)]
    probes = torch.stack(draws, dim=1).to(u)
    # No number is exactly zero, so every sign is plus or minus one.
    chosen = probes.sign() if trace.law == "rademacher" else probes
    return Divergence(1, partial(_estimated, chosen))


def _exact(copies: int, pull: Pull, u: Tensor, places: Tensor) -> Tensor:
    """The exact trace: each copy of the samples computes another term."""
    diagonal = []
    for terms in torch.arange(u[0].numel(), device=u.device).split(copies):
        copy = torch.arange(len(terms), device=u.device)
        ones = u.new_zeros(copies, len(u), u[0].numel())
        ones[copy, :, terms] = 1
        rows = pull(ones.reshape(-1, *u.shape[1:])).reshape(ones.shape)
        diagonal.append(rows[copy, :, terms].T)
    return torch.cat(diagonal, dim=1).sum(dim=1, keepdim=True)


def _estimated(probes: Tensor, pull: Pull, u: Tensor, places: Tensor) -> Tensor:
    own = probes[places.to(probes.device)].unbind(1)
    return torch.stack([(pull(e) * e).flatten(1).sum(dim=1) for e in own], dim=1)


def _standard_error(traces: Tensor, trace: Trace) -> Tensor:
    if isinstance(trace, ExactTrace):
        return torch.zeros_like(traces[:, 0])
    if trace.probes == 1:
        return torch.full_like(traces[:, 0], math.nan)
    # Sums round alike in every batch; torch.std does not.
    squares = (traces - traces.mean(dim=1, keepdim=True)).square().sum(dim=1)
    return torch.sqrt(squares / (trace.probes - 1) / trace.probes)


def _log_normal(u: Tensor, std: float) -> Tensor:
    """log N(u; 0, std^2) of each sample."""
    numbers = u[0].numel()
    squares = u.square().flatten(1).sum(dim=1) / std**2
    return -squares / 2 - numbers * math.log(std * math.sqrt(2 * math.pi))


# ---------------------------------------------------------------------------- 8-bit images


def dequantised(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Dequantise 8-bit images to numbers from -1 to 1: ``(k + u) / 128 - 1``.

    u is uniform in [0, 1), a function of the seed of each image (Theis et al. 2016, section 3.1,
    https://arxiv.org/abs/1511.01844). The result is float64. Raises ValueError unless the dtype is
    torch.uint8.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"The images have dtype {images.dtype}; they must be bytes (torch.uint8).")
    check_one_each("seeds", seeds, "images", len(images))
    noise = uniform_noise(seeds, images.shape[1:]).to(images.device)
    return (images + noise) / 128 - 1


def bits_per_dim(log_prob: Tensor, numbers: int, span: float = 2.0) -> Tensor:
    r"""Bits per dimension, ``-log_2 p(k) / d``, from the log-density of :func:`dequantised` images.

    .. math:: \log_2 \frac{256}{span} - \frac{\log p}{d \log 2}

    It is an upper bound of that of the 8-bit images, by Jensen's inequality.

    Args:
        numbers: d, the number of values of an image.
        span: the length of the range that the 256 levels divide: 2 for data from -1 to 1, 1 for
            data from 0 to 1.
    """
    if not 0 < span < math.inf:
        raise ValueError(f"The span of the data is {span}; it must be positive and finite.")
    return math.log2(256 / span) - log_prob / (numbers * math.log(2))
