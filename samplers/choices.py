"""Layer 0. The allowed values of options. It imports nothing, so that ``--help`` is fast."""

from __future__ import annotations

from typing import Literal

SPACINGS: tuple[str, ...] = (
    "log-flow",
    "log-snr",
    "karras",
    "exponential",
    "polyexponential",
    "kl-optimal",
    "laplace",
    "vp",
    "uniform",
    "quadratic",
    "leading",
    "trailing",
    "linspace",
    "normal",
    "sgm-uniform",
    "simple",
    "ddim-uniform",
    "beta",
    "linear-quadratic",
    "ays-sd",
    "ays-sdxl",
    "ays-svd",
)
"""Names of spacings of a time grid, see :func:`samplers.grid.make_grid`."""

Spacing = str
"""A spacing by name, with its parameters after a colon, as in ``karras`` and ``beta:0.5,0.7``; see
:func:`samplers.spacings.read_spacing`."""

ConfigSpacing = str
"""A spacing on the schedule of a scheduler config, whose own is ``config``."""

CONFIG_SPACINGS = (*SPACINGS, "config")

DEFAULT_SAMPLER = "abm"
DEFAULT_SPACING = "log-flow"
"""The defaults everywhere, chosen by measurement: docs/benchmarks/defaults.md."""

INVERSE_PROBLEM_SPACING = "log-snr"
"""The default of inverse problems: near pure noise the gradient of a prediction is large, so the
first steps must be short; and the last level decides how well a measurement is satisfied."""

Final = Literal["zero", "sigma_min"]
"""Where a time grid ends."""

NoiseKind = Literal["independent", "brownian"]
"""Kinds of noise of stochastic samplers, see :func:`samplers.solve.make_noise`."""

DistanceName = Literal["balanced", "log", "rms"]
"""Distances of samples from converged ones, see :class:`samplers.TuningConfig`."""

ProbeLaw = Literal["rademacher", "gaussian"]
"""Distributions of the probes of Hutchinson's trace estimator."""

Grey = Literal["mean", "luma"]
"""How a grey image is computed from a colour image."""

FIT_BUDGET = 1000
"""Evaluations of single samples that the fit of a grid may take: those of 20 samples with 50
steps."""

MOST_STEPS = 5_000
"""Of a sampler, on command lines and in configs: the memory of a tableau grows with them."""

MOST_AT_ONCE = 10_000
"""Images, or others of a config, that are in memory together."""
