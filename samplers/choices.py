"""Layer 0. The words that settings may be. It imports nothing, so that help texts come at once."""

from __future__ import annotations

from typing import Literal, get_args

Spacing = Literal[
    "uniform", "quadratic", "leading", "trailing", "linspace", "log-snr", "karras", "exponential"
]
"""Of a time grid, see :func:`samplers.grid.make_grid`."""

SPACINGS: tuple[str, ...] = get_args(Spacing)

Final = Literal["zero", "sigma_min"]
"""Where a time grid ends."""

NoiseKind = Literal["independent", "brownian"]
"""Of stochastic samplers, see :func:`samplers.solve.make_noise`."""

ProbeLaw = Literal["rademacher", "gaussian"]
"""Of the probes of Hutchinson's estimate of a trace."""

Grey = Literal["mean", "luma"]
"""How a grey image is made of a colour image."""
