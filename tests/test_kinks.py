"""Networks with kinks: which they are, and their second derivatives as distributions."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adjoint.cli import main
from adjoint.fokker_planck import (
    DifferenceSteps,
    ResidualMethod,
    potential_penalty,
    potential_residual,
    residual_profile,
    score_penalty,
    score_residual,
    squared_norms,
)
from adjoint.fokker_planck.estimators import choose_method, estimate_residual
from adjoint.fokker_planck.kinks import find_kinks
from samplers.denoiser import Denoiser
from samplers.schedule import EDM, VPLinear
from samplers.training import seeded
from tests import tiny_checkpoints

# PyTorch's own, on the first forward derivative.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

Activation = Callable[[Tensor], Tensor]


def density(x: float) -> float:
    """Of the standard normal distribution."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def probability(x: float) -> float:
    """That a standard normal number lies in [-x, x]."""
    return math.erf(x / math.sqrt(2))


# -------------------------------------------------------------------------- which have kinks


class InPlace(nn.Module):
    """Writes relu(x) into a part of a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        found = torch.zeros(2 * len(x), *x.shape[1:])
        found[: len(x)] = x.relu()
        return found[: len(x)].exp()


def encoder(activation: str) -> Activation:
    """In one fused kernel, since it is evaluated without gradients."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True)
    layer.eval().requires_grad_(False)
    return lambda x: layer(x[None])


def gradient(activation: Activation) -> Activation:
    """As of a potential, whose score it is."""
    return torch.func.grad(lambda x: activation(x).exp().sum())


def compiled(activation: Activation) -> Activation:
    function = torch.compile(activation, backend="eager")
    function(torch.randn(6, 8))
    return function


KINKED: list[tuple[str, Activation]] = [
    ("relu", nn.ReLU()),
    ("relu", nn.ReLU(inplace=True)),
    ("relu", F.relu),
    ("relu", lambda x: checkpoint(F.relu, x, use_reentrant=False)),
    ("relu", compiled(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))),
    ("relu", InPlace()),
    ("leaky_relu", nn.LeakyReLU(0.2)),
    ("prelu", nn.PReLU()),
    ("rrelu", nn.RReLU().eval()),
    ("hardtanh", nn.Hardtanh()),
    ("hardtanh", nn.ReLU6()),
    ("hardswish", nn.Hardswish()),
    ("hardsigmoid", nn.Hardsigmoid()),
    ("softshrink", nn.Softshrink()),
    ("threshold", nn.Threshold(0.1, 0.0)),
    ("threshold", gradient(F.relu)),
    ("elu", nn.ELU(0.5)),
    ("elu", nn.SELU()),
    ("max_pool2d", nn.MaxPool1d(2)),
    ("max_pool2d", lambda x: F.max_pool2d(x[None], 2)),
    ("max_pool3d", lambda x: F.max_pool3d(x[None, None], (1, 2, 2))),
    ("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x[None], 2)),
    ("abs", torch.abs),
    ("clamp", lambda x: x.clamp(-1, 1)),
    ("maximum", lambda x: torch.maximum(x, x.flip(1))),
    ("amax", lambda x: x.amax(dim=1)),
    ("sort", lambda x: x.sort(dim=1).values),
    ("gt", lambda x: torch.where(x > 0, x, 0.1 * x)),
    ("gt", lambda x: x * (x > 0)),
    ("round", torch.round),
    ("remainder", lambda x: 2.0 % x),
    ("transformer_encoder_layer_fwd", encoder("relu")),
]


@pytest.mark.parametrize(("name", "activation"), KINKED)
def test_kinks_are_found_by_their_operations(name: str, activation: Activation) -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert name in find_kinks(activation, x)
    if "transformer" not in name:  # which has relu and dropout of its own with gradients
        assert name in find_kinks(activation, x.requires_grad_())


def normalised(x: Tensor) -> Tensor:
    return F.normalize(x)  # clamps the norm, from below by 1e-12


def checked(x: Tensor) -> Tensor:
    assert bool(x.isfinite().all())
    assert float(x.abs().max()) < 100
    return x.exp()


SMOOTH: list[Activation] = [
    *(nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Mish(), nn.Tanh(), nn.Sigmoid()),
    *(nn.ELU(), nn.CELU(0.5), nn.Softmax(dim=1), nn.LayerNorm(8), nn.GroupNorm(2, 8)),
    lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    lambda x: nn.MultiheadAttention(8, 2)(x, x, x)[0],
    lambda x: F.avg_pool1d(x[None], 2),
    lambda x: x.masked_fill(torch.arange(8) > 3, 0.0),
    lambda x: x.exp() + torch.randn(8).relu(),
    lambda x: x.clamp(-1e4, 1e4),
    lambda x: torch.where(x > 50, x, x.exp().log1p()),
    encoder("gelu"),
    gradient(F.silu),
    *(normalised, checked),
]  # fmt: skip


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_functions_have_none(activation: Activation) -> None:
    """Neither have operations on other values than z, or whose kink is out of reach."""
    with torch.no_grad():
        x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
        assert find_kinks(activation, x) == ()


RELU_OTHERWISE: dict[str, Activation] = {
    "root of square": lambda z: (z + z.square().sqrt()) / 2,
    "power": lambda z: (z + (z**2) ** 0.5) / 2,
    "norm": lambda z: (z + z.norm(dim=1, keepdim=True)) / 2,
    "hypot": lambda z: (z + torch.hypot(z, 0 * z)) / 2,
    "normalize": lambda z: (z + z * F.normalize(z)) / 2,
    "logaddexp": lambda z: torch.logaddexp(1e8 * z, 0 * z) / 1e8,
    "softplus": lambda z: F.softplus(z, beta=1e6),
    "signbit": lambda z: torch.where(z.signbit(), 0 * z, z),
    "copysign": lambda z: (z + torch.copysign(z, torch.ones(()))) / 2,
    "atan2": lambda z: z * torch.atan2(0 * z, -z) / math.pi,
    "singular value": lambda z: (z + torch.linalg.svdvals(z[:, :, None])) / 2,
    "not a number": lambda z: z.sqrt().nan_to_num(0.0) ** 2,
}
"""Of operations that are smooth elsewhere."""


@pytest.mark.parametrize("name", RELU_OTHERWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinks_are_found_by_their_values(name: str, dtype: torch.dtype) -> None:
    function = denoiser(RELU_OTHERWISE[name])
    z = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=dtype)
    log_rho = torch.zeros(4000, dtype=dtype)
    method = choose_method(function, z, log_rho)
    assert (method.estimator, method.kinks, method.smoothing) == ("stencil", ("unnamed",), 0.02)
    with pytest.warns(UserWarning, match=r"kinks \(unnamed\), which forward derivatives do not"):
        choose_method(function, z, log_rho, "forward")


@pytest.mark.parametrize("activation", SMOOTH)
def test_smooth_functions_have_none_by_their_values(activation: Activation) -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert choose_method(denoiser(activation), x, torch.zeros(6)).kinks == ()


def test_dropout_is_no_kink() -> None:
    """All values are compared under the same random numbers, which are the caller's afterwards."""
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    assert choose_method(lambda z, _: F.dropout(z.exp()), x, torch.zeros(6), "forward").kinks == ()
    torch.set_rng_state(before)


# ---------------------------------------------------------------------------- the right values


CELL, CELLS = 5e-4, 40_000
AXIS = CELL * (torch.arange(CELLS, dtype=torch.float64)[:, None] + 0.5 - CELLS / 2)
WEIGHTS = (-AXIS[:, 0].square() / 2).softmax(dim=0)  # of N(0, 1), by the midpoint rule
LOG_RHO = torch.zeros(CELLS, dtype=torch.float64)


def denoiser(activation: Activation) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda z, log_rho: activation(z)


MEANS: list[tuple[Activation, float]] = [
    (nn.ReLU(), density(0)),
    (nn.LeakyReLU(0.1), 0.9 * density(0)),
    (nn.PReLU(dtype=torch.float64), 0.75 * density(0)),
    (torch.abs, 2 * density(0)),
    (nn.ReLU6(), density(0) - density(6)),
    (lambda x: (x + 1).clamp(-1, 1), density(-2) - density(0)),
    (lambda x: torch.maximum(x, 0.5 * x + 0.5), 0.5 * density(1)),
    (lambda x: torch.where(x > 1, 2 * x, x + 1), density(1)),
    (nn.Hardswish(), probability(3) / 3 - density(3)),
]


@pytest.mark.parametrize(("activation", "truth"), MEANS)
def test_the_mean_second_derivative_of_a_kinked_function_is_its_closed_form(
    activation: Activation, truth: float
) -> None:
    """A jump j of D' at a adds j times the density of N(0, 1) at a, and differences with the step h
    average the density over [a - h, a + h] with a mean square of h^2 / 6: an error of h^2 / 12."""
    found = estimate_residual(denoiser(activation), AXIS, LOG_RHO, torch.ones(1, CELLS, 1).double())
    assert found.method.estimator == "stencil"
    h = found.method.smoothing
    assert h == 0.02
    mean = float(WEIGHTS @ found.diffusive.detach()[0, :, 0])
    assert mean == pytest.approx(truth, abs=h**2 / 12 * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", ["stencil", "pullback"])
def test_the_mean_of_relu_is_right_in_both_precisions(estimator: str, dtype: torch.dtype) -> None:
    """By the default steps, which are the same; rounding in float32 is some 1e-7 / h^2 a point."""
    found = estimate_residual(
        denoiser(F.relu),
        AXIS.to(dtype),
        LOG_RHO.to(dtype),
        torch.ones(1, CELLS, 1, dtype=dtype),
        estimator,  # type: ignore[arg-type]
    )
    assert found.method.smoothing == 0.02
    mean = float(WEIGHTS @ found.diffusive.detach()[0, :, 0].double())
    assert mean == pytest.approx(density(0), abs=5e-4)


@pytest.mark.parametrize("h", [0.04, 0.02, 0.01])
def test_the_mean_square_of_relu_grows_as_one_over_the_smoothing_length(h: float) -> None:
    r"""Differences are the hat function max(0, h - |z|) / h^2: its square has the integral 2 / 3h,
    less h^2 / 20 of it by the density's second derivative, and (c / h)^2 / 4 by the midpoint rule
    with cells of the width c."""
    found = estimate_residual(
        denoiser(F.relu),
        *(AXIS, LOG_RHO, torch.ones(2, CELLS, 1).double()),
        steps=DifferenceSteps(1e-4, h),
    )
    assert found.method == ResidualMethod("stencil", DifferenceSteps(1e-4, h), ("relu",))
    assert found.method.smoothing == h
    alone = found._replace(advective=torch.zeros(CELLS, 1).double())
    mean = float(WEIGHTS @ squared_norms(alone))
    part = 1 - h**2 / 20 - (CELL / h) ** 2 / 4
    assert mean == pytest.approx(2 / (3 * h) * density(0) * part, rel=1e-5)


@pytest.mark.parametrize("name", ["root of square", "signbit", "norm", "atan2"])
def test_the_mean_of_relu_by_other_operations_is_right(name: str) -> None:
    found = estimate_residual(
        denoiser(RELU_OTHERWISE[name]), AXIS, LOG_RHO, torch.ones(1, CELLS, 1).double()
    )
    mean = float(WEIGHTS @ found.diffusive.detach()[0, :, 0])
    assert mean == pytest.approx(density(0), abs=0.02**2 / 12 * 2)


def test_potentials_with_unnamed_kinks_are_warned_of() -> None:
    x, t = torch.randn(4000, 1).double(), torch.ones(4000).double()
    kinked, smooth = RELU_OTHERWISE["root of square"], F.silu
    with pytest.warns(UserWarning, match=r"potential has kinks \(unnamed\)"):
        potential_residual(lambda x, t: kinked(x)[:, 0], VPLinear(), x, t)
    potential_residual(lambda x, t: smooth(x)[:, 0], VPLinear(), x, t)


@pytest.mark.parametrize("estimator", ["exact", "forward"])
def test_exact_derivatives_of_a_kinked_network_miss_the_kink_and_say_so(estimator: str) -> None:
    relu = Denoiser(lambda x, t: x.relu(), EDM(), "sample")
    x, t = torch.randn(64, 1).double(), torch.ones(64).double()
    with pytest.warns(UserWarning, match=rf"kinks \(relu\), which {estimator} derivatives do not"):
        found = score_residual(relu, x, t, torch.ones(1, 64, 1).double(), estimator=estimator)  # type: ignore[arg-type]
    assert not found.diffusive.any()
    assert found.method.kinks == ("relu",)
    assert found.method.smoothing is None


def test_a_smooth_network_has_the_shorter_steps_as_before() -> None:
    method = choose_method(denoiser(F.silu), AXIS, LOG_RHO, "stencil")
    assert method == ResidualMethod("stencil", DifferenceSteps(1e-4, 1e-3))
    assert method.smoothing is None


def test_a_profile_looks_for_kinks_at_all_its_levels() -> None:
    """Here only noisy samples reach the clamp. Its advective part 2 (z - D) D' is zero, so that its
    mean square is rho^4 times that of two hats of the width 0.02 rho."""
    clipped = Denoiser(lambda x, t: x.clamp(-1, 1), EDM(), "sample")
    x0 = torch.zeros(4000, 1, dtype=torch.float64)
    levels, method = residual_profile(clipped, x0, [0.01, 30.0], probes=2)
    assert method == ResidualMethod("stencil", DifferenceSteps(1e-4, 0.02), ("clamp",))
    assert residual_profile(clipped, x0, [0.01, 0.02])[1].estimator == "forward"
    width, dense = 0.02 * 30, density(1 / 30) / 30  # of z at the kinks
    expected = 30**4 * 2 * 2 / (3 * width) * dense
    assert levels[1].squared == pytest.approx(expected, abs=4 * levels[1].error)


def test_penalties_smooth_kinks_or_warn_of_them() -> None:
    class Relu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.slope * x.relu()

    network = Relu()
    model = Denoiser(network, VPLinear(), "sample")
    batch = (torch.randn(64, 2, dtype=torch.float64),)
    value = score_penalty(model)(network, batch, seeded(0))
    with pytest.warns(UserWarning, match="forward derivatives do not see"):
        missed = score_penalty(model, estimator="forward")(network, batch, seeded(0))
    assert float(value.detach()) > float(missed.detach())

    def points(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(1, 64, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def potential(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = network(x, t).sum(dim=1)
        return found

    objective = potential_penalty(potential, VPLinear(), points)
    with pytest.warns(UserWarning, match=r"potential has kinks \(relu\)"):
        objective(network, (), seeded(0))
    objective(network, (), seeded(0))  # once
    with pytest.warns(UserWarning, match=r"potential has kinks \(relu\)"):
        potential_residual(
            lambda x, t: x.relu().sum(dim=1), VPLinear(), batch[0], torch.ones(64).double()
        )


def test_the_command_names_kinks_and_the_length_over_which_they_are_averaged(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a UNet with ReLU; with SiLU there are none to name."""
    kinked = shutil.copytree(places["plain"], tmp_path / "kinked")
    tiny_checkpoints.change(kinked / "unet" / "config.json", act_fn="relu")
    output = ("--output", str(tmp_path / "residual.png"))
    few = ("--num-images", "2", "--levels", "2", "--probes", "2", "--overwrite", *output)
    for folder, kinks in ((places["plain"], False), (kinked, True)):
        assert main(("residual", str(folder), *few)) == 0
        out = capsys.readouterr().out
        assert ("(relu): its second derivatives are averaged over 0.02 sigma/alpha" in out) is kinks
