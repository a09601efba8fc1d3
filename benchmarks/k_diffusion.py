"""Samplers as functions of k-diffusion's signature, beside k-diffusion's own functions.

    pip install --no-deps k-diffusion
    python -m benchmarks.k_diffusion

Both start from the same x on the same noise levels, and stochastic ones are given the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.peers import k_diffusion
from benchmarks.report import table, write
from samplers.k_diffusion import sampler
from tests.mixture import PLANE

LOW, HIGH = 0.03, 14.6
STEPS = (10, 20, 40)
COUNT = 64


class Pair(NamedTuple):
    """One of k-diffusion's functions, and the sampler that it is compared with."""

    theirs: str
    ours: str
    options: Mapping[str, Any] = MappingProxyType({})
    noisy: bool = False


PAIRS = (
    Pair("euler", "ddim"),
    Pair("heun", "heun"),
    Pair("dpm_2", "dpm-solver-2"),
    Pair("lms", "lms-4"),
    Pair("dpmpp_2m", "dpmpp-2m"),
    Pair("dpmpp_2s_ancestral", "dpmpp-2s", {"eta": 0.0}),
    Pair("euler_ancestral", "ancestral", noisy=True),
    Pair("euler_ancestral", "ancestral", {"eta": 0.5}, noisy=True),
    Pair("euler_ancestral", "ancestral", {"s_noise": 1.1}, noisy=True),
    Pair("dpmpp_2m_sde", "sde-dpmpp-2m", noisy=True),
    Pair("dpmpp_2m_sde", "sde-dpmpp-2m", {"eta": 0.5}, noisy=True),
    Pair("dpmpp_sde", "dpmpp-sde", {"eta": 0.0}),
    Pair("dpmpp_3m_sde", "sde-dpmpp-3m", noisy=True),
)


def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
    """The exact denoiser of a mixture in the plane."""
    return PLANE.denoise(x, torch.ones(1, dtype=x.dtype), sigma[0])


def noise_sampler() -> Callable[[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    return lambda sigma, sigma_next: torch.randn(COUNT, 2, generator=generator).double()


def difference(pair: Pair, steps: int) -> float:
    """Of the samples, relative to their norm."""
    peer = k_diffusion()
    sigmas = peer.get_sigmas_karras(steps, LOW, HIGH).double()
    x = HIGH * torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0)).double()

    def drawn(function: Callable[..., Tensor]) -> Tensor:
        noise = {"noise_sampler": noise_sampler()} if pair.noisy else {}
        return function(model, x, sigmas, disable=True, **pair.options, **noise)

    theirs, ours = drawn(getattr(peer, f"sample_{pair.theirs}")), drawn(sampler(pair.ours))
    return float((ours - theirs).norm() / theirs.norm())


def main() -> None:
    if k_diffusion() is None:
        raise SystemExit("k-diffusion is not installed: pip install --no-deps k-diffusion")
    rows = [
        [
            f"`sample_{pair.theirs}`",
            ", ".join(f"`{name}={value:g}`" for name, value in pair.options.items()),
            f"`{pair.ours}`",
            *(f"{difference(pair, steps):.0e}" for steps in STEPS),
        ]
        for pair in PAIRS
    ]
    head = ["k-diffusion", "options", "here", *(f"{steps} steps" for steps in STEPS)]
    page = write(
        "k_diffusion",
        "Agreement with k-diffusion",
        "Difference of the samples from those of k-diffusion's own functions, relative to their "
        f"norm, in float64 on its Karras levels from {HIGH} to {LOW} and to 0, with the same "
        "noise, on a Gaussian mixture in the plane with its exact denoiser.",
        table(head, rows),
        "`lms` differs in the last step: k-diffusion extrapolates to sigma = 0, where the sample "
        "is the prediction here. `dpmpp_3m_sde` differs in the weight of the second difference, of "
        "which k-diffusion takes half, and in the second step.",
        "Written by `python -m benchmarks.k_diffusion`.",
    )
    print(page.read_text())


if __name__ == "__main__":
    main()
