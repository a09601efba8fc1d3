"""The Fokker-Planck residual: zero for exact scores, its closed form for others, no bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from adjoint.cli import main
from adjoint.fokker_planck import (
    BoundTerms,
    DifferenceSteps,
    Distribution,
    Estimator,
    binned_wasserstein,
    bound_terms,
    debiased,
    energy_distance,
    exact_wasserstein,
    gap_bound,
    kl_divergence,
    ode_sde_gap,
    potential_penalty,
    potential_residual,
    regular_grid,
    residual_profile,
    score_penalty,
    score_residual,
    sliced_wasserstein,
    split_half_distance,
    squared_norm,
)
from adjoint.fokker_planck.coordinates import LevelDenoiser, level_denoiser
from adjoint.fokker_planck.estimators import choose_method, estimate_residual
from samplers.checkpoint import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint
from samplers.choices import DEFAULT_SAMPLER
from samplers.denoiser import Denoiser
from samplers.prediction import PredictionType, target
from samplers.sampling import sample
from samplers.schedule import EDM, FlowMatching, Schedule, SubVP, VPLinear
from samplers.schedule.mean_reverting import MeanReverting
from samplers.training import seeded
from tests.mixture import Mixture

# PyTorch's own, on the first forward derivative.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

ROOT = Path(__file__).parents[1]
DIMENSIONS = (1, 2, 5, 32)
EACH = pytest.mark.parametrize("d", DIMENSIONS)
COUNT = 40


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def signs(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).sign()


def mixture(d: int) -> Mixture:
    """Three components with covariances of their own."""
    roots = 0.4 * normal(3, d, d, seed=1) / math.sqrt(d)
    covariances = roots @ roots.mT + 0.05 * torch.eye(d, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return Mixture(weights, normal(3, d, seed=2), covariances)


def points(data: Mixture, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Noisy samples z, and log rho from 0.1 to 10."""
    log_rho = torch.linspace(math.log(0.1), math.log(10), count, dtype=torch.float64)
    component = torch.arange(count) % 3
    roots = torch.linalg.cholesky(data.covariances)[component]
    d = data.means.shape[1]
    clean = data.means[component] + torch.einsum("bij,bj->bi", roots, normal(count, d, seed=3))
    return clean + log_rho.exp()[:, None] * normal(count, d, seed=4), log_rho


def exact(data: Mixture) -> LevelDenoiser:
    def denoise(z: Tensor, log_rho: Tensor) -> Tensor:
        rho = log_rho.exp()[:, None, None]
        return data.denoise(z, torch.ones_like(rho), rho)

    return denoise


def as_model(denoise: LevelDenoiser) -> Denoiser:
    """A function of z and ln rho as a model, in whose coordinates x = z and t = rho."""
    return Denoiser(lambda x, t: denoise(x, t.log()), EDM(), "sample")


# ------------------------------------------------------------------------------- exact scores


@EACH
def test_the_residual_of_an_exact_score_is_zero(d: int) -> None:
    data = mixture(d)
    z, log_rho = points(data)
    found = estimate_residual(exact(data), z, log_rho, torch.empty(0), "exact")
    assert float(found.advective.abs().max()) > 0.01
    assert float(found.mean.abs().max()) < 1e-10


@EACH
@pytest.mark.parametrize("estimator", ["forward", "stencil", "pullback"])
def test_estimates_of_it_are_zero_in_the_mean(d: int, estimator: Estimator) -> None:
    """Over all signs, of which there are few in few dimensions; with their scatter in many."""
    data = mixture(d)
    z, log_rho = points(data)
    if d <= 5:
        every = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * d).reshape(-1, 1, d)
        found = estimate_residual(exact(data), z, log_rho, every.expand(-1, COUNT, -1), estimator)
        tolerance = {"forward": 1e-10, "stencil": 2e-3, "pullback": 2e-3}[estimator]
        assert float(found.mean.detach().abs().max()) < tolerance
    else:
        with torch.no_grad():
            found = estimate_residual(exact(data), z, log_rho, signs(64, COUNT, d), estimator)
        assert not found.mean.requires_grad
        error = found.each.std(dim=0) / 8
        assert float((found.mean.abs() / (error + 1e-3)).max()) < 6


@EACH
def test_the_residual_of_a_shifted_denoiser_is_its_closed_form(d: int) -> None:
    r"""D + c has R = -2 J_D c, since the shift changes the advection alone."""
    data, shift = mixture(d), 0.3 * normal(d, seed=6)
    z, log_rho = points(data)
    shifted: LevelDenoiser = lambda z, log_rho: exact(data)(z, log_rho) + shift  # noqa: E731
    found = estimate_residual(shifted, z, log_rho, torch.empty(0), "exact").mean
    along = torch.func.jvp(lambda at: exact(data)(at, log_rho), (z,), (shift.expand_as(z),))[1]
    torch.testing.assert_close(found, -2 * along, rtol=1e-9, atol=1e-10)


@EACH
def test_the_residual_of_a_scaled_denoiser_is_its_closed_form(d: int) -> None:
    r"""(1 + s) D has R = -2 (1 + s) s J_D D."""
    data, s = mixture(d), 0.2
    z, log_rho = points(data)
    scaled: LevelDenoiser = lambda z, log_rho: (1 + s) * exact(data)(z, log_rho)  # noqa: E731
    found = estimate_residual(scaled, z, log_rho, torch.empty(0), "exact").mean
    value = exact(data)(z, log_rho)
    along = torch.func.jvp(lambda at: exact(data)(at, log_rho), (z,), (value,))[1]
    torch.testing.assert_close(found, -2 * (1 + s) * s * along, rtol=1e-9, atol=1e-10)


SCHEDULES: list[Schedule] = [VPLinear(), EDM(), FlowMatching(), SubVP(), MeanReverting()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", get_args(PredictionType))
def test_one_formula_serves_all_schedules_and_predictions(
    schedule: Schedule, kind: PredictionType
) -> None:
    data = mixture(2)
    z, log_rho = points(data)

    def network(x: Tensor, t: Tensor) -> Tensor:
        at = schedule.point(t.unsqueeze(-1))
        alpha, sigma = at.alpha[:, None], at.sigma[:, None]
        x0 = data.denoise(x, alpha, sigma)
        alpha, sigma = at.alpha, at.sigma
        return target(kind, x0, (x - alpha * x0) / sigma, alpha, sigma)

    denoiser = level_denoiser(Denoiser(network, schedule, kind))
    torch.testing.assert_close(denoiser(z, log_rho), exact(data)(z, log_rho), rtol=1e-7, atol=1e-8)
    found = estimate_residual(denoiser, z, log_rho, torch.empty(0), "exact")
    assert float(found.mean.abs().max()) < 1e-6


def test_the_residual_of_a_model_is_that_of_its_denoiser_in_z() -> None:
    data, schedule = mixture(2), VPLinear()
    z, log_rho = points(data)
    at = schedule.at_lam(-log_rho)
    model = data.model(schedule, "v_prediction")
    shifted = Denoiser(lambda x, t: model(x, t) + 0.1, schedule, "v_prediction")
    found = score_residual(shifted, at.alpha[:, None] * z, at.t, torch.empty(0), estimator="exact")
    expected = estimate_residual(level_denoiser(shifted), z, log_rho, torch.empty(0), "exact")
    assert float(expected.mean.abs().max()) > 0.01
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-6, atol=1e-9)


# --------------------------------------------------------------------------------- estimates


def test_one_probe_is_biased_and_pairs_of_probes_are_not() -> None:
    data, shift = mixture(5), torch.full((5,), 0.1, dtype=torch.float64)
    z, log_rho = points(data, 1)
    z, log_rho = z.repeat(4000, 1), torch.zeros(4000, dtype=torch.float64)
    shifted: LevelDenoiser = lambda z, log_rho: exact(data)(z, log_rho) + shift  # noqa: E731
    truth = float(
        estimate_residual(shifted, z[:1], log_rho[:1], torch.empty(0), "exact").mean.square().mean()
    )
    found = estimate_residual(shifted, z, log_rho, signs(2, 4000, 5), "forward")
    mean, error = (float(number) for number in squared_norm(found))
    assert abs(mean - truth) < 4 * error
    single = found.each[0].square().mean(dim=1)
    assert float(single.mean()) - truth > 10 * float(single.std()) / math.sqrt(4000)
    with pytest.raises(ValueError, match="pass two or more"):
        squared_norm(estimate_residual(shifted, z[:2], log_rho[:2], signs(1, 2, 5), "forward"))


def test_signs_scatter_less_than_normal_probes() -> None:
    data = mixture(5)
    z, log_rho = points(data)
    spread = [
        float(estimate_residual(exact(data), z, log_rho, probes, "forward").each.var(dim=0).mean())
        for probes in (signs(60, COUNT, 5), normal(60, COUNT, 5, seed=0))
    ]
    assert spread[0] < spread[1]


def digits_at(dtype: torch.dtype) -> tuple[LevelDenoiser, Tensor, Tensor, Tensor]:
    """The network of digits at two of its images with noise, and two probes."""
    checkpoint = load_checkpoint(ROOT / "assets" / "digits", LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    with torch.no_grad():
        clean = checkpoint.draw(checkpoint.settle(Recipe(steps=5)), (0, 1), (3, 7), lambda: None)
    checkpoint.network.to(dtype)
    denoiser = level_denoiser(checkpoint.denoiser(), {"labels": torch.tensor([3, 7])})
    rho = torch.tensor([0.5, 3.0], dtype=dtype)
    z = clean.to(dtype) + rho[:, None, None, None] * normal(2, 1, 28, 28).to(dtype)
    return denoiser, z, rho.log(), signs(2, 2, 1, 28, 28).to(dtype)


@pytest.mark.parametrize("estimator", ["stencil", "pullback"])
def test_differences_are_as_exact_as_they_say_on_the_network_of_digits(
    estimator: Estimator,
) -> None:
    """Against shorter steps in float64."""
    with torch.no_grad():
        double, single = digits_at(torch.float64), digits_at(torch.float32)
        truth = estimate_residual(*double, estimator, DifferenceSteps(2e-5, 3e-4))
        for found in (estimate_residual(*double, estimator), estimate_residual(*single, estimator)):
            for value, expected, most in zip(found[:2], truth[:2], (3e-3, 1e-2), strict=True):
                assert float((value - expected).norm() / expected.norm()) < most


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimators_agree_on_the_network_of_digits(dtype: torch.dtype) -> None:
    """Where a product with the Jacobian and one with its transpose are the same: along u J u and
    v (d^2 D v) v, whether D is a gradient or not. Within the sum of what either errs by."""
    with torch.no_grad():
        denoiser, z, log_rho, probes = digits_at(dtype)
        way = 2 * (z - denoiser(z, log_rho))
        one, other = (
            estimate_residual(denoiser, z, log_rho, probes, name)
            for name in ("stencil", "pullback")
        )
    for a, b, u, most in zip(one[:2], other[:2], (way, probes), (6e-3, 2e-2), strict=True):
        first, second = ((u * part).flatten(-3).sum(dim=-1) for part in (a, b))
        scale = a.flatten(-3).norm(dim=-1) * u.flatten(-3).norm(dim=-1)
        assert float((first.abs() / scale).min()) > 0.01  # something there is to agree on
        assert float(((first - second).abs() / scale).max()) < most


def test_attention_has_no_forward_derivative_on_a_cpu() -> None:
    with torch.no_grad():
        for dtype, expected in ((torch.float64, "stencil"), (torch.float32, "pullback")):
            denoiser, z, log_rho, probes = digits_at(dtype)
            assert choose_method(denoiser, z, log_rho).estimator == expected
            with pytest.raises(NotImplementedError, match="flash_attention_for_cpu"):
                estimate_residual(denoiser, z, log_rho, probes, "forward")


def test_attention_has_no_second_derivative_on_a_cpu_so_it_is_trained_by_differences() -> None:
    denoiser, z, log_rho, probes = digits_at(torch.float32)
    assert choose_method(denoiser, z, log_rho).estimator == "stencil"
    squared_norm(estimate_residual(denoiser, z.requires_grad_(), log_rho, probes))[0].backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_the_choice_knows_conditions_that_belong_to_samples() -> None:
    """A network of layers with forward derivatives, and a label for each sample of the batch."""
    table = normal(4, 2)

    def network(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return x.tanh() * t[:, None].cos() + table[labels]

    denoiser = level_denoiser(
        Denoiser(network, VPLinear(), "sample"), {"labels": torch.arange(COUNT) % 4}
    )
    assert choose_method(denoiser, *points(mixture(2))).estimator == "forward"


def test_the_estimator_is_forward_where_layers_allow_it() -> None:
    data = mixture(2)
    assert choose_method(exact(data), *points(data)).estimator == "forward"
    with pytest.raises(ValueError, match="must be one of exact, forward, stencil, pullback"):
        estimate_residual(exact(data), *points(data), signs(1, COUNT, 2), "guess")  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ["exact", "forward", "stencil", "pullback"])
def test_weights_learn_from_every_estimate(estimator: Estimator) -> None:
    """The gradient of the squared norm to a weight, against central differences."""
    data = mixture(2)
    z, log_rho = points(data, 6)
    weight = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def value(w: Tensor) -> Tensor:
        wrong: LevelDenoiser = lambda z, log_rho: exact(data)(z, log_rho) + w * z.sin()  # noqa: E731
        return estimate_residual(wrong, z, log_rho, signs(2, 6, 2), estimator).each.square().mean()

    (slope,) = torch.autograd.grad(value(weight), weight)
    h = 1e-5
    with torch.no_grad():
        difference = float(value(weight + h) - value(weight - h)) / (2 * h)
    assert float(slope) == pytest.approx(difference, rel=1e-4)


# -------------------------------------------------------------------------------- potentials


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("schedule", [VPLinear(), EDM(), SubVP()], ids=lambda s: type(s).__name__)
def test_the_residual_of_the_log_density_is_zero(d: int, schedule: Schedule) -> None:
    data = mixture(d)
    z, log_rho = points(data)
    at = schedule.at_lam(-log_rho)
    x = at.alpha[:, None] * z

    def phi(x: Tensor, t: Tensor) -> Tensor:
        here = schedule.point(t)
        alpha, sigma = (level[:, None, None] for level in (here.alpha, here.sigma))
        return data.log_prob(x, alpha, sigma)

    found = potential_residual(phi, schedule, x, at.t).detach()
    scale = float(schedule.diffusion_squared(at.t).max())
    assert float(found.abs().max()) < 1e-9 * max(scale, 1)

    def raised(x: Tensor, t: Tensor) -> Tensor:
        """The same score, so another residual by a function of t alone."""
        return phi(x, t) + t.sin()

    torch.testing.assert_close(
        potential_residual(raised, schedule, x, at.t).detach(),
        at.t.cos(),
        rtol=1e-6,
        atol=1e-7 * max(scale, 1),
    )


def test_potentials_that_are_steady_or_linear_have_a_residual() -> None:
    """-|x|^2 / 2 is that of the VP process's noise, so 0; c.x has drift c.x - g^2 |c|^2 / 2."""
    schedule, x = VPLinear(), normal(8, 2)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    steady = potential_residual(lambda x, t: -x.square().sum(dim=1) / 2, schedule, x, t)
    assert float(steady.detach().abs().max()) < 1e-12
    c = torch.tensor([0.3, -0.5], dtype=torch.float64)
    linear = potential_residual(lambda x, t: x @ c, schedule, x, t)
    expected = (
        schedule.drift(t) * (2 + x @ c) - schedule.diffusion_squared(t) * c.square().sum() / 2
    )
    torch.testing.assert_close(linear, expected)


# ------------------------------------------------------------------------------- regularisers


class Off(nn.Module):
    """One weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))


def wrong_by(schedule: Schedule, data: Mixture) -> Denoiser:
    """The exact denoiser, off by a parameter of the network."""

    def call(network: Off, x: Tensor, t: Tensor) -> Tensor:
        at = schedule.point(t.unsqueeze(-1))
        x0 = data.denoise(x, at.alpha[:, None], at.sigma[:, None])
        return x0 + network.weight * x.sin()

    return Denoiser(Off(0.0), schedule, "sample", call=call)


def test_the_penalty_of_a_score_is_least_where_it_is_exact() -> None:
    schedule, data = VPLinear(), mixture(2)
    penalty = score_penalty(wrong_by(schedule, data))
    x0 = points(data, 64)[0]
    values = []
    for weight in (-0.1, -0.05, 0.05, 0.1):
        model = Off(weight)
        value = penalty(model, (x0,), seeded(3))
        value.backward()
        assert model.weight.grad is not None
        assert float(model.weight.grad) * weight > 0
        values.append(float(value.detach()))
    exact_one = abs(float(penalty(Off(0.0), (x0,), seeded(3)).detach()))
    assert exact_one < 0.2 * min(values)  # whose estimate scatters about 0
    doubled = score_penalty(wrong_by(schedule, data), 0.2, time_weight=lambda at: 0 * at.t + 0.5)
    model = Off(0.1)
    torch.testing.assert_close(doubled(model, (x0,), seeded(3)), penalty(model, (x0,), seeded(3)))


@pytest.mark.parametrize("centred", [False, True])
def test_the_penalty_of_a_potential(centred: bool) -> None:
    schedule, data = VPLinear(), mixture(2)

    def phi(model: Off, x: Tensor, t: Tensor) -> Tensor:
        here = schedule.point(t)
        alpha, sigma = (level[:, None, None] for level in (here.alpha, here.sigma))
        return data.log_prob(x, alpha, sigma) + model.weight * t

    def drawn(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        t = 0.1 + 0.8 * torch.rand(4, generator=generator, dtype=torch.float64)
        return torch.randn(4, 8, 2, generator=generator, dtype=torch.float64), t

    penalty = potential_penalty(phi, schedule, drawn, 1.0, centred=centred)
    assert float(penalty(Off(0.0), (), seeded(1)).detach()) < 1e-15
    # A function of t alone changes no score: the centred penalty does not see it.
    found = float(penalty(Off(0.5), (), seeded(1)).detach())
    assert found == pytest.approx(0.0 if centred else 0.25, abs=1e-12)


def test_impossible_penalties_are_refused() -> None:
    model = Denoiser(lambda x, t: torch.zeros(1), VPLinear(), "sample")
    with pytest.raises(ValueError, match="pass two or more"):
        score_penalty(model, probes=1)
    with pytest.raises(ValueError, match="weight of the residual is -1"):
        score_penalty(model, -1)


# ------------------------------------------------------------------------ by noise level


def test_the_profile_is_zero_for_an_exact_score_and_right_for_another() -> None:
    data, shift = mixture(5), 0.3 * normal(5, seed=6)
    component = torch.arange(600) % 3
    x0 = data.means[component] + 0.3 * normal(600, 5, seed=8)
    shifted: LevelDenoiser = lambda z, log_rho: exact(data)(z, log_rho) + shift  # noqa: E731
    rhos = (0.2, 1.0, 5.0)
    for level in residual_profile(as_model(exact(data)), x0, rhos)[0]:
        assert abs(level.squared) < 4 * level.error
        assert level.advective > 0
    levels, method = residual_profile(as_model(shifted), x0, rhos)
    assert method.estimator == "forward"
    assert method.smoothing is None
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in levels:
        log_rho = torch.full((600,), math.log(level.rho), dtype=torch.float64)
        truth = estimate_residual(
            shifted, x0 + level.rho * eps, log_rho, torch.empty(0), "exact"
        ).mean
        assert abs(level.squared - float(truth.square().mean())) < 4 * level.error + 1e-12


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(words)
    return code, *capsys.readouterr()


def test_the_command_draws_and_prints(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "residual.png"
    few = (
        "--num-images",
        "3",
        "--levels",
        "4",
        "--probes",
        "2",
        "--output",
        str(output),
        "--overwrite",
    )
    for name in ("digits", "plain"):
        code, out, err = command(capsys, "residual", str(places[name]), *few)
        assert code == 0, err
        assert out.count("+-") == 4
        assert output.exists()
    given = (str(places["digits"]), str(places["grey"]), *few[2:])
    code, out, err = command(capsys, "residual", *given, "--label", "1")
    assert code == 0, err
    assert "+-" not in out  # one image has no standard error


def test_bad_input_ends_in_one_sentence(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("--output", str(tmp_path / "residual.png"))
    cases = [
        (
            2,
            (str(places["digits"]), "--output", str(tmp_path / "folder")),
            "the figure is one image",
        ),
        (2, (str(places["digits"]), "--probes", "1", *output), "take --probes 2 or more"),
        (
            2,
            (str(places["digits"]), "--levels", "1", *output),
            "a curve needs 2 noise levels or more",
        ),
        (2, (str(places["digits"]), "--dtype", "float16", *output), "are rounding errors"),
        (2, (str(places["digits"]), "--sigma-max", "1e9", *output), "must rise and lie between"),
        (2, (str(places["digits"]), str(places["wide"]), *output), "are needed here"),
        (2, (str(places["prompts"]), *output), "a network without"),
        (1, (str(tmp_path), *output), "is not a diffusers checkpoint"),
    ]
    for expected, words, why in cases:
        code, _, err = command(capsys, "residual", *words)
        assert code == expected, err
        assert why in err
        assert err.count("adjoint: error: ") == 1
        assert "Traceback" not in err


# ------------------------------------------------------------------- between ODE and SDE samples


@pytest.mark.parametrize("distance", ["sliced", "energy"])
def test_the_command_compares_the_samples_of_a_checkpoint(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], distance: str
) -> None:
    picture = tmp_path / "gap.png"
    few = ("--num-images", "6", "--steps", "2,4", "--batch-size", "4", "--distance", distance)
    code, out, err = command(capsys, "gap", str(places["digits"]), *few, "--output", str(picture))
    assert code == 0, err
    first = out.splitlines()[2].split()
    assert first[0] == "2"
    # The same as the library finds, with two sets that share no seeds.
    checkpoint = load_checkpoint(places["digits"], LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)

    def drawn(sampler: str, seeds: range) -> Tensor:
        recipe = checkpoint.settle(Recipe(sampler=sampler, steps=2))
        labels = [checkpoint.classes[i % len(checkpoint.classes)] for i in range(6)]
        with torch.no_grad():
            return checkpoint.draw(recipe, seeds, labels, lambda: None)

    measure = {"sliced": sliced_wasserstein, "energy": energy_distance}[distance]
    expected = measure(drawn(DEFAULT_SAMPLER, range(6)), drawn("sde-dpmpp-2m", range(6, 12)))
    assert float(first[1]) == pytest.approx(expected, rel=2e-3)
    assert picture.exists()


def test_gaps_that_can_not_be_measured_end_in_one_sentence(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("--output", str(tmp_path / "gap.png"))
    digits = str(places["digits"])
    cases = [
        ((digits, "--output", str(tmp_path / "folder")), "the figure is one image"),
        ((digits, "--steps", "5", *output), "take two or more"),
        ((digits, "--ode", "sde-dpmpp-2m", *output), "is stochastic; take another"),
        ((digits, "--sde", "ddim", *output), "is deterministic; take another"),
        ((digits, "--num-images", "3", *output), "take 4 images or more"),
        ((digits, str(places["grey"]), *output), "take --num-images 1"),
        ((str(places["prompts"]), *output), "a network without"),
    ]
    for words, why in cases:
        code, _, err = command(capsys, "gap", *words)
        assert code == 2, err
        assert why in err
        assert err.count("adjoint: error: ") == 1
        assert "Traceback" not in err


def test_distances_of_normal_laws_are_their_closed_forms() -> None:
    """Of one covariance: the squared distance of the means; of one mean: of the deviations."""
    x = normal(1000, 3)
    shift = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64)
    assert sliced_wasserstein(x, x + shift, directions=20_000) == pytest.approx(1.69, rel=0.02)
    assert sliced_wasserstein(x, 2 * x, 64) == pytest.approx(
        float(x.square().sum(1).mean()), rel=0.02
    )
    few = x[:400]
    assert exact_wasserstein(few, few + shift) == pytest.approx(1.69, rel=1e-6)
    for width in (0.3, 0.1):
        binned = binned_wasserstein(few, few + shift, width)
        assert abs(math.sqrt(binned) - 1.3) < width * math.sqrt(3)
    # E|a - b| of numbers: 2 / sqrt(pi) for normal ones, sqrt(6 / pi) if one has twice the spread.
    a, b = normal(3000, 1), math.sqrt(2) * normal(3000, 1, seed=9)
    expected = 2 * math.sqrt(6 / math.pi) - 2 / math.sqrt(math.pi) - 2 * math.sqrt(2 / math.pi)
    assert energy_distance(a, b) == pytest.approx(expected, abs=0.02)


def test_the_centred_distance_is_that_of_the_laws() -> None:
    """Of a shift by 0.5 in two dimensions, within four standard errors; of one law, none."""
    for shift in (0.0, 0.5):
        found = torch.tensor(
            [
                debiased(normal(200, 2, seed=i), normal(200, 2, seed=100 + i) + shift)
                for i in range(40)
            ]
        )
        error = float(found.std()) / math.sqrt(40)
        assert abs(float(found.mean()) - 2 * shift**2) < 4 * error
        assert error < 0.03
    # What chance has made of it: more than that shift of 0.1 is.
    assert sliced_wasserstein(normal(200, 2), normal(200, 2, seed=1)) > 0.01


def test_the_distance_of_a_law_from_itself_is_that_of_chance() -> None:
    x, y = normal(2000, 4), normal(2000, 4, seed=1)
    assert sliced_wasserstein(x, y) < 1.5 * split_half_distance(x)
    assert sliced_wasserstein(x, y + 0.3) > 5 * split_half_distance(x)
    assert abs(energy_distance(x, y)) < 0.01


def test_halves_have_as_many_of_each_group_as_the_sets_have() -> None:
    """With groups far apart, random halves differ by how many they have of each."""
    groups = [i % 4 for i in range(240)]

    def drawn(seed: int) -> Tensor:
        return normal(240, 4, seed=seed) + 5 * torch.tensor(groups)[:, None]

    seeds = range(100, 130)
    found = [sliced_wasserstein(drawn(seed), drawn(seed + 50)) for seed in seeds]
    chance = [split_half_distance(drawn(seed), groups=groups) / 2 for seed in seeds]
    mixed = [split_half_distance(drawn(seed)) / 2 for seed in seeds]
    assert sum(chance) == pytest.approx(sum(found), rel=0.1)
    assert sum(mixed) > 2 * sum(found)


def test_the_gap_of_an_exact_score_vanishes_with_the_steps_and_that_of_another_does_not() -> None:
    data, schedule, count = mixture(2), VPLinear(), 1500

    def drawn(sampler: str, weight: float) -> Callable[[int], Tensor]:
        model = wrong_by(schedule, data).with_network(Off(weight))

        def draw(steps: int) -> Tensor:
            with torch.no_grad():
                return sample(
                    model,
                    normal(count, 2, seed=12),
                    sampler=sampler,
                    steps=steps,
                    seeds=range(count),
                )

        return draw

    component = torch.arange(count) % 10  # weights 0.5, 0.3, 0.2
    kind = (component >= 5).long() + (component >= 8).long()
    roots = torch.linalg.cholesky(data.covariances)[kind]
    real = data.means[kind] + torch.einsum("bij,bj->bi", roots, normal(count, 2, seed=13))
    own = ode_sde_gap(drawn("dpmpp-2m", 0), drawn("sde-dpmpp-2m", 0), (8, 40), data=real)
    other = ode_sde_gap(drawn("dpmpp-2m", 0.4), drawn("sde-dpmpp-2m", 0.4), (40,))
    chance = split_half_distance(real)
    assert own[1].ode_sde < 2 * chance
    assert own[1].ode_data < 2 * chance
    assert own[1].sde_data < 2 * chance
    assert other[0].ode_sde > 4 * own[1].ode_sde
    assert math.isnan(other[0].ode_data)


def test_sets_that_can_not_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="pass sets of one size"):
        sliced_wasserstein(normal(3, 2), normal(4, 2))
    for wrong in (normal(4, 3), normal(1, 2)):
        with pytest.raises(ValueError, match="samples must have one shape"):
            energy_distance(normal(4, 2), wrong)


# ------------------------------------------------------------------------- bounded by the residual


@pytest.mark.parametrize("amount", [0.3, -0.2])
def test_the_residual_says_how_far_a_score_is_from_that_of_its_own_samples(amount: float) -> None:
    """A wrong score -a(t) x, whose samples of the SDE and of the ODE are normal at all times."""
    schedule = VPLinear(t_min=0.05)
    t = torch.linspace(schedule.t_min, schedule.t_max, 2001, dtype=torch.float64)
    a = (1 + amount * torch.sin(3 * t)) / (0.25 * schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
    f, g2 = schedule.drift(t), schedule.diffusion_squared(t)

    def phi(x: Tensor, when: Tensor) -> Tensor:
        variance = 0.25 * schedule.alpha(when) ** 2 + schedule.sigma(when) ** 2
        return -(1 + amount * torch.sin(3 * when)) / variance * x.square().sum(dim=1) / 2

    # Back from the noise: dP/dt = 2 (f + g^2 a) P - g^2 of the SDE, and (2 f + g^2 a) P of the ODE.
    sde = backwards(t, 2 * (f + g2 * a), g2, schedule)
    ode = backwards(t, 2 * f + g2 * a, torch.zeros_like(g2), schedule)
    points = regular_grid(8.0, 81)
    rows = [
        bound_terms(phi, schedule, t[i], normal_distribution(points, sde[i]), points)
        for i in range(0, len(t), 20)
    ]
    steps = t[::20]
    start = kl_divergence(normal_distribution(points, sde[-1]), phi, t[-1])
    found = gap_bound(rows, start)
    error = torch.trapezoid(g2 * (1 / sde - a) ** 2 * sde, t)  # 1/2 g^2 E |s - grad log q|^2
    end = kl_divergence(normal_distribution(points, sde[0]), phi, t[0])
    # Both sides by the trapezoidal rule: refine the coarse one by Richardson's.
    coarse = gap_bound(rows[::2], start)
    refined = (4 * found.score_error - coarse.score_error) / 3
    assert refined == pytest.approx(float(error) + end, abs=1e-6)
    assert [row.t for row in rows] == steps.tolist()
    steepest = torch.tensor([row.lipschitz for row in rows], dtype=torch.float64)
    torch.testing.assert_close(steepest, (-g2 / 2 * a - f)[::20])
    gap = 2 * float((sde[0].sqrt() - ode[0].sqrt()) ** 2)
    assert 1e-4 < gap < found.distance_squared


def test_a_bound_beyond_all_numbers_is_infinite() -> None:
    rows = [BoundTerms(t, 1.0, 0.0, 0.0, 1e4, 2.0) for t in (0.0, 0.5, 1.0)]
    assert gap_bound(rows, 0.0).distance_squared == math.inf
    assert gap_bound([row._replace(lipschitz=0.0) for row in rows], 0.5) == (0.5, 0.0, 0.25, 2.0)


def backwards(t: Tensor, rate: Tensor, source: Tensor, schedule: Schedule) -> Tensor:
    """P' = rate P - source from the noise to the data, by an exact factor and Simpson's rule."""
    from scipy.integrate import cumulative_simpson

    grown = torch.from_numpy(cumulative_simpson(rate.numpy(), x=t.numpy(), initial=0))
    inner = (-grown).exp() * source
    summed = torch.from_numpy(cumulative_simpson(inner.numpy(), x=t.numpy(), initial=0))
    constant = schedule.sigma(t[-1]) ** 2 * (-grown[-1]).exp() + summed[-1]
    return grown.exp() * (constant - summed)


def normal_distribution(points: Tensor, variance: Tensor) -> Distribution:
    return Distribution(points, (-points.square().sum(dim=1) / (2 * variance)).softmax(dim=0))
