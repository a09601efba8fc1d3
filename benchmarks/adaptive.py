"""NFE against error of the adaptive solvers, and of RK45 as score-based models use it.

    python -m benchmarks.adaptive

The rival is scipy's RK45 on the probability-flow ODE in t with one step size for the flattened
batch (Song et al. 2021, section 4.3). Every solver has rtol = atol. NFE is counted per sample; for
RK45 it is the same for all samples.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import diffusers
import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from tqdm import tqdm

from benchmarks.report import table, write
from samplers.denoiser import Denoiser
from samplers.grid import Final, Spacing
from samplers.noise import initial_noise
from samplers.prediction import to_data
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.registry import get_adaptive_sampler, list_samplers
from samplers.sampling import sample
from samplers.schedule import VPDiscrete, VPLinear
from tests.mixture import PLANE, Flow, Mixture

CHECKPOINT = Path(__file__).parent.parent / "assets" / "digits"
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Ours go on, to reach the error that the rival has at its last.
TIGHTER = (1e-7,)
LOOSE = (0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3)
STARTS, IMAGES, CLASS = 64, 16, 3
PLENTY = 10_000
FIXED: tuple[tuple[str, Spacing], ...] = (("dpmpp-2m", "trailing"), ("unipc-2", "trailing"))
FIXED_CALLS = (10, 15, 20, 40)
RIVAL = "scipy's RK45 in t"
NAMES = list_samplers("adaptive")


class Problem(NamedTuple):
    """A model, initial noise, the noise level of the error, and the exact samples at it."""

    model: Denoiser
    x: Tensor
    final: Final
    exact: Tensor


class Cost(NamedTuple):
    """Mean NFE of one solver at one tolerance, and the errors of the samples."""

    calls: float
    median: float
    worst: float

    @classmethod
    def of(cls, calls: float, x: Tensor, exact: Tensor) -> Cost:
        errors = (x - exact).flatten(1).square().mean(dim=1).sqrt()
        return cls(calls, float(errors.median()), float(errors.max()))

    def __str__(self) -> str:
        return f"{self.calls:.0f} · {self.median:.0e} · {self.worst:.0e}"


def mixture_problem(mixture: Mixture, dimension: int) -> Problem:
    """From the noisiest level of a continuous VP schedule to the cleanest."""
    schedule = VPLinear()
    top, bottom = schedule.noisiest, schedule.cleanest
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STARTS, dimension, generator=generator, dtype=torch.float64)
    start, end = float(top.lam), float(bottom.lam)
    exact = bottom.alpha * Flow(mixture, x / top.alpha, start, start, end)(end)
    return Problem(mixture.model(schedule, "epsilon"), x, "sigma_min", exact)


def ten_components() -> Mixture:
    """Ten narrow components in 16 dimensions, as in the benchmark of the fixed grids."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(10, 16, generator=generator, dtype=torch.float64)
    deviations = 0.1 + 0.2 * torch.rand(10, generator=generator, dtype=torch.float64)
    weights = torch.softmax(torch.randn(10, generator=generator).double() / 2, dim=0)
    eye = torch.eye(16, dtype=torch.float64)
    return Mixture(weights, means, deviations.square()[:, None, None] * eye)


def digits_problem() -> Problem:
    """The bundled network, in float32; the exact images are those of a tolerance of 1e-5."""
    schedule = VPDiscrete.linear()
    network = diffusers.UNet2DModel.from_pretrained(CHECKPOINT, subfolder="unet").eval()
    x = initial_noise(range(IMAGES), (1, 28, 28)).float() * float(schedule.noisiest.sigma)

    def of_class(x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = network(x, t, class_labels=torch.full((len(x),), CLASS)).sample
        return output

    model = Denoiser(of_class, schedule, "v_prediction")
    tight = Adaptive("dormand-prince", 1e-5, 1e-5, PLENTY)
    exact = sample_adaptive(model, x, settings=tight).x
    return Problem(model, x, "zero", exact)


def ours(task: Problem, method: str, tolerance: float) -> Cost:
    found = sample_adaptive(
        task.model,
        task.x,
        settings=Adaptive(method, tolerance, tolerance, PLENTY),
        final=task.final,
    )
    return Cost.of(float(found.nfe.double().mean()), found.x, task.exact)


def rk45(task: Problem, tolerance: float) -> Cost:
    r"""``dx/dt = f x + g^2 eps / (2 sigma)`` on the flattened batch."""
    schedule = task.model.schedule
    calls = 0

    def predicted(x: Tensor, t: float) -> Tensor:
        nonlocal calls
        calls += 1
        at = schedule.point(torch.tensor(t, dtype=torch.float64))
        of_x, of_output = to_data(task.model.prediction, at)
        output = task.model(x, at.t.to(x).expand(len(x)))
        return of_x.to(x) * x + of_output.to(x) * output

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(flat).to(task.x.dtype).reshape(task.x.shape)
        at = schedule.point(torch.tensor(t, dtype=torch.float64))
        eps = (x - at.alpha.to(x) * predicted(x, t)) / at.sigma.to(x)
        drift = schedule.drift(at.t).to(x) * x
        spread = schedule.diffusion_squared(at.t).to(x)
        found: np.ndarray = (drift + spread * eps / (2 * at.sigma.to(x))).double().flatten().numpy()
        return found

    way = (schedule.t_max, schedule.t_min)
    start = task.x.double().flatten().numpy()
    found = solve_ivp(slope, way, start, method="RK45", rtol=tolerance, atol=tolerance)
    assert found.success, found.message
    x = torch.from_numpy(found.y[:, -1]).to(task.x.dtype).reshape(task.x.shape)
    if task.final == "zero":
        x = predicted(x, schedule.t_min)
    return Cost.of(calls, x, task.exact)


def fixed(task: Problem, sampler: str, spacing: Spacing, calls: int) -> Cost:
    x = sample(
        task.model,
        task.x,
        sampler=sampler,
        steps=calls,
        grid=spacing,
    )
    return Cost.of(calls, x, task.exact)


def calls_for(error: float, costs: Sequence[Cost]) -> float:
    """The NFE at which a solver has this median error, by log-log interpolation.

    Infinite beyond the smallest error that was measured, and no fewer than were made.
    """
    known = sorted(costs, key=lambda cost: cost.median)
    for smaller, larger in itertools.pairwise(known):
        if smaller.median <= error <= larger.median:
            share = math.log(error / smaller.median) / math.log(larger.median / smaller.median)
            return math.exp((1 - share) * math.log(smaller.calls) + share * math.log(larger.calls))
    return known[-1].calls if error > known[-1].median else math.inf


def section(
    title: str, task: Problem, tolerances: Sequence[float], tighter: Sequence[float] = ()
) -> list[str]:
    """The costs at each tolerance, and the NFE at the errors of the other solver."""
    rivals = [rk45(task, tolerance) for tolerance in tqdm(tolerances, f"{title}: {RIVAL}")]
    costs = {name: our_costs(task, name, (*tolerances, *tighter)) for name in tqdm(NAMES, title)}
    return [
        f"## {title}",
        "In each cell: NFE · median error · largest error.",
        cost_table((*tolerances, *tighter), {**costs, RIVAL: rivals}),
        f"NFE for the median error that {RIVAL} reaches at each tolerance:",
        equal_error_table(costs, rivals),
    ]


def our_costs(task: Problem, name: str, tolerances: Sequence[float]) -> list[Cost]:
    # The lowest order would take thousands of steps there.
    affordable = [t for t in tolerances if t not in TIGHTER or get_adaptive_sampler(name).order > 2]
    return [ours(task, name, tolerance) for tolerance in affordable]


def cost_table(tolerances: Sequence[float], costs: Mapping[str, Sequence[Cost]]) -> str:
    rows = [
        [_code(name), *map(str, found), *["–"] * (len(tolerances) - len(found))]
        for name, found in costs.items()
    ]
    return table(["rtol = atol", *(f"{tolerance:g}" for tolerance in tolerances)], rows)


def equal_error_table(costs: Mapping[str, Sequence[Cost]], rivals: Sequence[Cost]) -> str:
    equal = {
        name: [calls_for(cost.median, found) for cost in rivals] for name, found in costs.items()
    }
    best = [min(column) for column in zip(*equal.values(), strict=True)]
    ratios = (cost.calls / calls for cost, calls in zip(rivals, best, strict=True))
    rows = [
        *([_code(name), *map(_calls, row)] for name, row in equal.items()),
        [RIVAL, *(_calls(cost.calls) for cost in rivals)],
        ["RK45 ÷ best of this package", *(f"{ratio:.1f}" for ratio in ratios)],
    ]
    return table(["median error", *(f"{cost.median:.1e}" for cost in rivals)], rows)


def _code(name: str) -> str:
    return name if name == RIVAL else f"`{name}`"


def _calls(calls: float) -> str:
    return f"{calls:.0f}" if math.isfinite(calls) else "–"


def fixed_section(task: Problem) -> list[str]:
    """The same images on fixed grids."""
    rows = [
        [f"`{name}`, {spacing}", *(str(fixed(task, name, spacing, calls)) for calls in FIXED_CALLS)]
        for name, spacing in FIXED
    ]
    return [
        "The same images on fixed grids, for comparison:",
        table(["NFE", *map(str, FIXED_CALLS)], rows),
    ]


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with torch.no_grad():
        plane, space = mixture_problem(PLANE, 2), mixture_problem(ten_components(), 16)
        digits = digits_problem()
        paragraphs = [
            *section("Two components in the plane", plane, TOLERANCES, TIGHTER),
            *section("Ten components in 16 dimensions", space, TOLERANCES, TIGHTER),
            *section("Digits", digits, LOOSE),
            *fixed_section(digits),
        ]
    path = write(
        "adaptive",
        "NFE against error of adaptive solvers",
        f"**Mixtures:** {STARTS} samples from the noisiest level of the VP SDE to its cleanest, "
        "exact score, float64; the error is the root mean square distance of a sample to the exact "
        f"solution. **Digits:** {IMAGES} threes sampled from the bundled network in float32 "
        "without guidance; the error is the distance to the images of `dormand-prince` at a "
        "tolerance of 1e-5. The solvers of this package choose the step size of each sample "
        "separately, and NFE is the mean over the samples; "
        f"{RIVAL} chooses one step size for the flattened batch, on the ODE as Song et al. (2021) "
        "write it.",
        *paragraphs,
        "Written by `python -m benchmarks.adaptive`.",
    )
    print(path)


if __name__ == "__main__":
    main()
