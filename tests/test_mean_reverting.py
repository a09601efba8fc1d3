"""Mean-reverting diffusion: MR Sampler in its own coordinates, what is learned, what degrades."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from adjoint import CheckpointAdjoint, DirectAdjoint
from samplers.choices import SPACINGS, Spacing
from samplers.grid import Grid, grid_from_times, make_grid
from samplers.noise import RowNoise, initial_noise
from samplers.noise_levels import AYS
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import ExactTrace, log_likelihood
from samplers.registry import get_sampler, list_samplers
from samplers.restoration import (
    DEGRADATIONS,
    Predicts,
    RestorationProcess,
    degrade,
    get_degradation,
    psnr,
    restoration_loss,
    restore,
)
from samplers.restoration.process import ml_noise
from samplers.schedule.mean_reverting import Convention, MeanReverting, Theta
from samplers.solve import Solver
from samplers.training import seeded

LAMBDA = 50 / 255
SHAPE = (3, 4, 5)
SEEDS = (3, 8)
STEPS = 12
SCHEDULES = [MeanReverting(theta, 50, 0.01, convention)
             for theta in get_args(Theta) for convention in get_args(Convention)]  # fmt: skip
NAMES = [
    f"mr-{kind}-{what}-{order}" for kind in ("ode", "sde") for what in "nd" for order in (1, 2)
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MU = normal(2, *SHAPE, seed=1)


def eps_of(x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
    """An arbitrary network of the noise."""
    time = (t / 20).reshape(-1, 1, 1, 1)
    return torch.sin(2 * x.roll(1, dims=3) + time) + 0.3 * mu * x


def process(schedule: MeanReverting, predicts: Predicts = "noise") -> RestorationProcess:
    return RestorationProcess(schedule, LAMBDA, predicts)


# ------------------------------------------------------------------------- MR Sampler's formulas


def of_the_paper(name: str, grid: Grid) -> Tensor:
    """The eight solvers in x, as published; sigma holds lambda_inf, z is what our sampler draws."""
    kind, what, order = name.removeprefix("mr-").split("-")
    alphas, sigmas = grid.points.alpha, LAMBDA * grid.points.sigma
    lams = (alphas / sigmas).log()
    noise = RowNoise(SEEDS, SHAPE)
    x = MU + sigmas[0] * initial_noise(SEEDS, SHAPE)
    known: list[Tensor] = []
    for i in range(1, grid.steps + 1):
        a, b, s, t = alphas[i - 1], alphas[i], sigmas[i - 1], sigmas[i]
        h = lams[i] - lams[i - 1]
        eps = eps_of(x, MU, grid.points.t[i - 1].expand(2))
        q = eps if what == "n" else (x - s * eps) / a - (1 - a) / a * MU
        known.insert(0, q)
        slope = torch.zeros_like(q)
        if order == "2" and i > 1:
            slope = (known[0] - known[1]) * (h / (lams[i - 1] - lams[i - 2]))
        z = noise(i - 1) if kind == "sde" else torch.zeros_like(q)
        match kind + what:
            case "oden":
                x = b / a * x + MU * (1 - b / a) - t * (h.exp() - 1) * q
                x = x - t * ((h.exp() - 1) / h - 1) * slope
            case "oded":
                x = t / s * x + MU * (1 - t / s + t / s * a - b) + b * (1 - (-h).exp()) * q
                x = x + b * (((-h).exp() - 1) / h + 1) * slope
            case "sden":
                x = b / a * x + MU * (1 - b / a) - 2 * t * (h.exp() - 1) * q
                x = x - 2 * t * ((h.exp() - 1) / h - 1) * slope
                x = x + t * ((2 * h).exp() - 1).sqrt() * z
            case "sded":
                fade, gain = (-h).exp(), 1 - (-2 * h).exp()
                x = t / s * fade * x + MU * (1 - b / a * fade**2 - b * gain) + b * gain * q
                x = x + b * (1 - gain / (2 * h)) * slope + t * gain.sqrt() * z
    return x


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_mr_sampler_is_dpm_solver_about_the_mean(name: str, schedule: MeanReverting) -> None:
    grid = make_grid(schedule, STEPS, final="sigma_min")
    found = restore(eps_of, MU, process(schedule), seeds=SEEDS, sampler=name, grid=grid)
    expected = of_the_paper(name, grid)
    assert float((found - expected).abs().max()) < 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_first_order_sde_is_posterior_sampling(schedule: MeanReverting) -> None:
    """From step to step of the grid, which is what 'respaced' means."""
    grid = make_grid(schedule, STEPS, final="sigma_min")
    noise, alphas, sigmas = RowNoise(SEEDS, SHAPE), grid.points.alpha, LAMBDA * grid.points.sigma
    x = MU + sigmas[0] * initial_noise(SEEDS, SHAPE)
    for i in range(1, grid.steps + 1):
        b, c = alphas[i - 1], alphas[i]
        a = b / c
        eps = eps_of(x, MU, grid.points.t[i - 1].expand(2))
        x0 = (x - MU - sigmas[i - 1] * eps) / b + MU
        mean = MU + a * (1 - c**2) / (1 - b**2) * (x - MU) + c * (1 - a**2) / (1 - b**2) * (x0 - MU)
        variance = LAMBDA**2 * (1 - a**2) * (1 - c**2) / (1 - b**2)
        x = mean + variance.sqrt() * noise(i - 1)
    found = restore(eps_of, MU, process(schedule), seeds=SEEDS, sampler="mr-sde-d-1", grid=grid)
    assert float((found - x).abs().max()) < 1e-12 * float(x.abs().max())


@pytest.mark.parametrize("spacing", [name for name in SPACINGS if name not in AYS])
def test_the_mean_is_a_fixed_point(spacing: Spacing) -> None:
    """What the published solvers lose between whole times, where they interpolate alpha, sigma and
    log-SNR apart."""
    for name in list_samplers("fixed-grid"):
        sampler = get_sampler(name)
        if sampler.weak_order is not None:
            continue
        for steps in (3, 7, 15):
            grid = make_grid(MeanReverting(), steps, spacing, final="sigma_min")
            y = torch.zeros(1, 1, dtype=torch.float64)
            tableau = sampler.tableau(grid, {})
            solver = Solver(tableau, "epsilon", None)
            for state in solver.run(lambda y, t: torch.zeros_like(y), solver.init(y)):
                y = state.x
            assert float(y.abs().max()) == 0


def test_one_step_is_the_guess_of_the_network() -> None:
    guess = normal(2, *SHAPE, seed=7)
    for sampler in ("ddim", "mr-ode-d-2", "sde-dpmpp-2m"):
        found = restore(
            lambda x, mu, t: guess, MU, process(MeanReverting(), "data"),
            seeds=SEEDS, sampler=sampler, steps=1,
        )  # fmt: skip
        torch.testing.assert_close(found, guess)


# ---------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_schedule_is_that_of_its_rates(schedule: MeanReverting) -> None:
    times = torch.arange(51.0, dtype=torch.float64)
    total = -schedule.log_alpha(times)
    assert float(schedule.alpha(times[-1])) == pytest.approx(schedule.eps)
    first = float(total[0])
    assert (first == 0) == (schedule.convention == "ir-sde")
    # Both conventions are sums of the same rates: their steps stand in the same proportions.
    other = MeanReverting(schedule.theta, 50, 0.01, "ir-sde")
    steps, theirs = total.diff(), -other.log_alpha(times).diff()
    torch.testing.assert_close(steps / steps[-1], theirs / theirs[-1])
    torch.testing.assert_close(schedule.pull(times[1:]), steps)
    if schedule.theta == "constant":
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    else:
        assert bool((steps.diff() > 0).all())


def test_impossible_schedules_are_refused() -> None:
    for wrong, said in (
        ({"theta": "square"}, "'square'; it must be one of constant, linear, cosine"),
        ({"convention": "mine"}, "one of ir-sde, mr-sampler"),
        ({"steps": 1}, "2 or more"),
        ({"eps": 0.0}, "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=said):
            MeanReverting(**wrong)
    with pytest.raises(ValueError, match="lambda_inf is 0"):
        RestorationProcess(lambda_inf=0)
    with pytest.raises(ValueError, match="one of noise, data, residual, velocity, ml-noise"):
        RestorationProcess(predicts="score")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 seeds came for 2 images"):
        restore(eps_of, MU, process(MeanReverting()), seeds=[1])


# ------------------------------------------------------------------------------- what is learned


def perfect(process: RestorationProcess, x0: Tensor) -> Callable[..., Tensor]:
    """The network that knows x_0."""

    def network(model: nn.Module, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (n.reshape(-1, 1, 1, 1) for n in process.schedule.point(t)[1:])
        y, y0 = process.to_y(x, mu), process.to_y(x0, mu)
        eps = (y - alpha * y0) / sigma
        a, b = (n.reshape(-1, 1, 1, 1) for n in ml_noise(process.schedule, t))
        known = {
            "noise": eps,
            "data": x0,
            "residual": x0 - mu,
            "velocity": process.lambda_inf * (alpha * eps - sigma * y0),
            "ml-noise": a * eps - b * y,
        }
        return known[process.predicts]

    return network


@pytest.mark.parametrize("predicts", get_args(Predicts))
def test_the_loss_of_a_perfect_network_is_zero_and_it_restores(predicts: Predicts) -> None:
    x0 = normal(2, *SHAPE, seed=4)
    own = process(MeanReverting(), predicts)
    network = perfect(own, x0)
    loss = restoration_loss(own, network, lambda x0, generator: (MU,))
    for seed in range(5):
        assert float(loss(nn.Identity(), (x0,), seeded(seed))) < 1e-9
    nothing = nn.Identity()
    found = restore(lambda *args: network(nothing, *args), MU, own, seeds=SEEDS, steps=5,
                    sampler="mr-sde-d-2")  # fmt: skip
    torch.testing.assert_close(found, x0, rtol=1e-6, atol=1e-6)


def test_the_reverse_state_loss_is_that_of_the_two_means() -> None:
    """One Euler-Maruyama step against the mean of the exact posterior."""
    schedule = MeanReverting()
    own = process(schedule, "ml-noise")
    x0, guess = normal(2, *SHAPE, seed=4), normal(2, *SHAPE, seed=5)
    seen: dict[str, Tensor] = {}

    def network(model: nn.Module, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        seen.update(x=x, t=t)
        return guess

    loss = restoration_loss(own, network, lambda x0, generator: (MU,))
    found = loss(nn.Identity(), (x0,), seeded(2))
    x, t = seen["x"], seen["t"]
    assert torch.equal(t, t.round())
    b, c = (schedule.alpha(time).reshape(-1, 1, 1, 1) for time in (t, t - 1))
    sigma = LAMBDA * (1 - b**2).sqrt()
    k = schedule.pull(t).reshape(-1, 1, 1, 1)
    a = (-k).exp()
    posterior = (
        MU + a * (1 - c**2) / (1 - b**2) * (x - MU) + c * (1 - a**2) / (1 - b**2) * (x0 - MU)
    )
    score = -guess / sigma
    euler = x - (k * (MU - x) - 2 * LAMBDA**2 * k * score)
    torch.testing.assert_close(found, (euler - posterior).abs().mean())


@pytest.mark.parametrize("sampler", ["mr-ode-d-2", "mr-sde-d-2", "unipc-2", "heun"])
def test_the_gradient_to_the_degraded_image_is_exact(sampler: str) -> None:
    weights = normal(3, 3, seed=9).requires_grad_()

    def network(x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", weights, torch.tanh(x + 0.5 * mu))

    found = []
    for way in (DirectAdjoint(), CheckpointAdjoint()):
        mu = MU.clone().requires_grad_()
        x0 = restore(network, mu, process(MeanReverting(), "residual"), seeds=SEEDS,
                     sampler=sampler, steps=6, adjoint=way)  # fmt: skip
        found.append(torch.autograd.grad(x0.square().sum(), [mu, weights]))
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-12


def test_the_likelihood_of_an_image_given_its_degraded_one_is_the_closed_form() -> None:
    """Images that lie about mu with a deviation of their own; the prior is pulled back exactly."""
    schedule, s = MeanReverting(), 0.7
    own = process(schedule, "residual")

    def network(x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (n.reshape(-1, 1, 1, 1) for n in schedule.point(t)[1:])
        return s**2 * alpha / ((s * alpha) ** 2 + sigma**2) * (x - mu)

    x0 = MU + LAMBDA * s * normal(2, *SHAPE, seed=11)
    y0 = own.to_y(x0, MU)
    found = log_likelihood(
        own.denoiser(network),
        y0,
        conditions={"mu": MU},
        trace=ExactTrace(at_once=60),
        settings=Adaptive("dormand-prince", rtol=1e-8, atol=1e-8),
    )
    low, high = float(schedule.cleanest.rho), float(schedule.noisiest.rho)
    deviation = high * math.sqrt((s**2 + low**2) / (s**2 + high**2))
    expected = torch.distributions.Normal(0, deviation).log_prob(y0).flatten(1).sum(1)
    torch.testing.assert_close(found.log_prob, expected, rtol=1e-5, atol=0)


def test_a_grid_through_whole_times() -> None:
    schedule = MeanReverting()
    grid = grid_from_times(schedule, [100.0, 50.0, 10.0, 1.0], "sigma_min")
    torch.testing.assert_close(grid.points.lam, schedule.lam(grid.points.t))


# ------------------------------------------------------------------------------- degraded images

EACH = pytest.mark.parametrize("name", DEGRADATIONS)


def photographs(count: int, channels: int = 3, height: int = 20, width: int = 26) -> Tensor:
    """Smooth images of values from -0.8 to 0.8."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 1.6 - 0.8


@EACH
@pytest.mark.parametrize("channels", [1, 3])
def test_a_degraded_image_is_an_image(name: str, channels: int) -> None:
    for size in ((20, 26), (8, 8), (64, 48)):
        images = photographs(2, channels, *size)
        found = degrade(images, [name], (1, 2))
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert float(found.min()) >= -1 - 1e-6
        assert float(found.max()) <= 1 + 1e-6
        assert float((found - images).abs().mean()) > 1e-3


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_degraded_image_keeps_its_precision(name: str, dtype: torch.dtype) -> None:
    images = photographs(2)
    found = degrade(images.to(dtype), [name], (1, 2))
    assert found.dtype == dtype
    expected = degrade(images.to(dtype).float(), [name], (1, 2))
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)


@EACH
def test_one_pixel_may_be_degraded(name: str) -> None:
    found = degrade(photographs(2, 3, 1, 1), [name], (1, 2))
    assert found.shape == (2, 3, 1, 1)
    assert float(found.abs().max()) <= 1 + 1e-6


@EACH
def test_a_degradation_is_that_of_its_seed(name: str) -> None:
    images = photographs(3)
    whole = degrade(images, [name], (4, 5, 6))
    assert torch.equal(degrade(images[1:], [name], (5, 6)), whole[1:])
    if name != "small":  # which draws nothing
        assert not torch.equal(degrade(images[:1], [name], (9,)), whole[:1])


def test_degradations_are_composed_in_order() -> None:
    images = photographs(2)
    generator = torch.Generator().manual_seed(4)
    expected = DEGRADATIONS["noisy"](DEGRADATIONS["hazy"](images[0], generator), generator)
    assert torch.equal(degrade(images[:1], ["hazy", "noisy"], (4,))[0], expected)
    with pytest.raises(ValueError, match="did you mean 'rainy'"):
        get_degradation("rain")


def test_psnr_is_that_of_a_known_error() -> None:
    clean = photographs(2)
    found = psnr(clean + torch.tensor([0.1, 0.02])[:, None, None, None], clean)
    torch.testing.assert_close(found, 20 * torch.log10(2 / torch.tensor([0.1, 0.02])))
    assert torch.equal(psnr(clean * 0 + 3, clean * 0 + 1), torch.full((2,), math.inf))  # clipped


def test_noise_and_light_are_as_strong_as_they_say() -> None:
    grey = torch.zeros(1, 1, 100, 100)
    assert float(degrade(grey, ["noisy"], (0,)).std()) == pytest.approx(100 / 255, rel=0.05)
    light = (float(degrade(grey, ["dark"], (0,)).mean()) + 1) / 2
    assert 0.5 * 0.1 <= light <= 0.5 * 0.25
    covered = (degrade(-torch.ones(1, 1, 100, 100), ["incomplete"], (0,)) == 1).double().mean()
    assert 0.2 <= float(covered) < 0.45
    assert math.isfinite(light)
