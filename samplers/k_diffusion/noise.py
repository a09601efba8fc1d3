"""The noise of a run: from seeds, or from the caller's ``noise_sampler(sigma, sigma_next)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from samplers.checks import check_one_each
from samplers.noise import Noise, sample_seeds
from samplers.solve import NoiseKind, make_noise
from samplers.tableau import Tableau

NoiseSampler = Callable[[Tensor, Tensor], Tensor]
"""k-diffusion's: standard normal noise for a step from one noise level to the next."""

_SEEDS = 2**63


@dataclass(frozen=True)
class StepNoise:
    """The caller's noise, one sample for each step between its noise levels.

    Attributes:
        steps: the step of each row.
        sigmas: the caller's noise levels.
    """

    noise_sampler: NoiseSampler
    steps: tuple[int, ...]
    sigmas: Tensor

    def __call__(self, row: int) -> Tensor:
        step = self.steps[row]
        return self.noise_sampler(self.sigmas[step], self.sigmas[step + 1])


@dataclass(frozen=True)
class ScaledNoise:
    """Noise times a number."""

    noise: Noise
    scale: float

    def __call__(self, row: int) -> Tensor:
        return self.scale * self.noise(row)


def seeds_of(
    x: Tensor, extra_args: Mapping[str, Any], seeds: Sequence[int] | None
) -> Sequence[int]:
    """One seed for each sample: those given, or from ComfyUI's seed up, or hashes of x."""
    if seeds is not None:
        check_one_each("seeds", seeds, "samples", len(x))
        return seeds
    first = extra_args.get("seed")
    if isinstance(first, int):
        return [(first + place) % _SEEDS for place in range(len(x))]
    return sample_seeds(x)


def from_seeds(tableau: Tableau, seeds: Sequence[int], x: Tensor, kind: NoiseKind) -> Noise:
    return make_noise(tableau, seeds, x.shape[1:], kind)


def from_sampler(tableau: Tableau, noise_sampler: NoiseSampler, sigmas: Tensor) -> Noise:
    """Raises ValueError for a sampler whose noise does not belong to a step between two levels."""
    steps = tuple(row.step for row in tableau.rows)
    noisy = [row.step for row in tableau.rows if row.noisy]
    if bool(tableau.start_noise != 0) or len(set(noisy)) < len(noisy):
        raise ValueError(
            "The noise of this sampler (a Langevin corrector's, or EDM's churn) is not that of a "
            "step between two sigmas; omit noise_sampler, and pass seeds."
        )
    return StepNoise(noise_sampler, steps, sigmas)


def scaled(tableau: Tableau, noise: Noise, scale: float) -> Noise:
    """Raises ValueError for a sampler whose step size depends on the norm of its noise."""
    if scale == 1:
        return noise
    if not tableau.batch_invariant:
        raise ValueError(
            f"The noise came with the scale {scale:g}; this sampler divides by the norm of its "
            "noise, so omit s_noise, or take an annealed Langevin corrector."
        )
    return ScaledNoise(noise, scale)
