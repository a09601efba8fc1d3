r"""Inverse problems: operators, and what both methods give on data whose posterior is known.

On Gaussian data the posterior is Gaussian in closed form. Guidance is exact where its covariance
is the true one. Replacement is exact where the known and the unknown part are independent, and
biased elsewhere; to visit steps again makes the bias smaller.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from samplers.denoiser import Denoiser
from samplers.grid import Grid, make_grid
from samplers.inverse_problems import (
    FromJacobian,
    Guidance,
    InverseProblem,
    LinearOperator,
    NormalData,
    Replacement,
    blurring,
    check_operator,
    colourisation,
    downsampling,
    guiding,
    inpainting,
    project,
    pseudo_inverse,
    replaced_run,
    replacing,
    solve_inverse_problem,
    unmeasured,
)
from samplers.inverse_problems.operators import conjugate_gradients, damped_inverse
from samplers.noise import RowNoise
from samplers.prediction import PredictionType, to_data
from samplers.probability_flow.adaptive import sample_adaptive
from samplers.registry import Sampler, get_sampler, registry
from samplers.sampling import sample
from samplers.schedule import EDM, FlowMatching, Point, Schedule, VPLinear
from samplers.solve import Solver, State
from tests.mixture import PLANE, Mixture, gaussian

EACH = pytest.mark.parametrize("sampler", registry().values(), ids=registry())
KINDS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction", "flow", "score")
SCHEDULES: dict[str, Schedule] = {"vp": VPLinear(), "ve": EDM(), "flow": FlowMatching()}
SEEDS = (11, 12, 13)
METHODS: dict[str, Guidance | Replacement] = {"guidance": Guidance(), "replacement": Replacement()}


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def of_matrix(matrix: Tensor, inverse: Tensor | None = None) -> LinearOperator:
    """The operator of a matrix [M, N] on vectors [B, N]."""
    return LinearOperator(
        lambda x: x @ matrix.to(x).T,
        lambda y: y @ matrix.to(y),
        (matrix.shape[1],),
        pseudo_inverse=None if inverse is None else lambda y: y @ inverse.to(y).T,
    )


def matrix_of(map_: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map of batches of this shape."""
    eye = torch.eye(math.prod(shape), dtype=torch.float64)
    return map_(eye.reshape(-1, *shape)).flatten(1).T


# Operators.

WIDE, TALL = normal(3, 7), normal(7, 3)
DEFICIENT = normal(5, 2) @ normal(2, 6, seed=1)

OPERATORS: dict[str, LinearOperator] = {
    "mask": inpainting(torch.tensor([[1, 0, 0], [0, 1, 1]]), (2, 2, 3)),
    "mask-of-a-channel": inpainting(torch.tensor([True, False])[:, None, None], (2, 2, 3)),
    "mean": colourisation((3, 2, 2), "mean"),
    "luma": colourisation((3, 2, 2), "luma"),
    "half": downsampling((2, 4, 4), 2),
    "quarter": downsampling((1, 4, 8), 4),
    "blur": blurring((2, 5, 4), 0.6),
    "wide": of_matrix(WIDE),
    "tall": of_matrix(TALL),
    "deficient": of_matrix(DEFICIENT),
    "zero": of_matrix(torch.zeros(2, 3, dtype=torch.float64)),
    "given": of_matrix(WIDE, torch.linalg.pinv(WIDE)),
}

EACH_OPERATOR = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def matrices(operator: LinearOperator) -> tuple[Tensor, Tensor]:
    """A and its pseudo-inverse."""
    measured = operator.forward(torch.zeros(1, *operator.image_shape, dtype=torch.float64))
    forward = matrix_of(operator.forward, operator.image_shape)
    return forward, matrix_of(lambda y: pseudo_inverse(operator, y), tuple(measured.shape[1:]))


@EACH_OPERATOR
def test_the_adjoint_is_the_transpose(operator: LinearOperator) -> None:
    for dtype in (torch.float64, torch.float32):
        check_operator(operator, torch.zeros((), dtype=dtype))
    forward, _ = matrices(operator)
    measured = operator.forward(torch.zeros(1, *operator.image_shape, dtype=torch.float64))
    adjoint = matrix_of(operator.adjoint, tuple(measured.shape[1:]))
    torch.testing.assert_close(adjoint, forward.T)


@EACH_OPERATOR
def test_the_pseudo_inverse_is_that_of_moore_and_penrose(operator: LinearOperator) -> None:
    a, inverse = matrices(operator)
    for found, expected in (
        (a @ inverse @ a, a),
        (inverse @ a @ inverse, inverse),
        (a @ inverse, (a @ inverse).T),
        (inverse @ a, (inverse @ a).T),
        (inverse, torch.linalg.pinv(a)),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@EACH_OPERATOR
def test_the_gram_number_is_that_of_the_matrix(operator: LinearOperator) -> None:
    if operator.gram is not None:
        a, _ = matrices(operator)
        torch.testing.assert_close(a @ a.T @ a, operator.gram * a)


@EACH_OPERATOR
def test_the_damped_inverse_solves_the_damped_equations(operator: LinearOperator) -> None:
    a, _ = matrices(operator)
    y = operator.forward(normal(3, *operator.image_shape))
    damping = torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64)
    found = damped_inverse(operator, y, damping.reshape(-1, *(1 for _ in operator.image_shape)))
    eye = torch.eye(a.shape[1], dtype=torch.float64)
    for i in range(3):
        expected = torch.linalg.solve(a.T @ a + damping[i] * eye, a.T @ y[i].flatten())
        torch.testing.assert_close(found[i].flatten(), expected, rtol=1e-9, atol=1e-11)


def test_conjugate_gradients_treat_samples_alike() -> None:
    operator = OPERATORS["deficient"]
    y = operator.forward(normal(6, 6)) * torch.logspace(-8, 8, 6, dtype=torch.float64)[:, None]
    y[2] = 0
    whole = pseudo_inverse(operator, y)
    for i in range(len(y)):
        # A matrix product may round otherwise in a larger batch; the search itself does not.
        torch.testing.assert_close(
            pseudo_inverse(operator, y[i : i + 1])[0], whole[i], rtol=1e-9, atol=0
        )
    diagonal = torch.linspace(1, 5, 5, dtype=torch.float64)
    found = conjugate_gradients(lambda x: diagonal * x, y, 100)
    assert not bool(found.moving.any())
    for i in range(len(y)):
        alone = conjugate_gradients(lambda x: diagonal * x, y[i : i + 1], 100)
        assert torch.equal(alone.x[0], found.x[i])


def test_conjugate_gradients_differentiate() -> None:
    y = normal(2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: pseudo_inverse(of_matrix(DEFICIENT), y), (y,))


def test_the_projection_meets_the_measurement_and_keeps_the_rest() -> None:
    for operator in OPERATORS.values():
        x, y = (normal(2, *operator.image_shape, seed=seed) for seed in (0, 1))
        measured = operator.forward(y)
        found = project(x, InverseProblem(operator, measured))
        torch.testing.assert_close(operator.forward(found), measured, rtol=0, atol=1e-10)
        _, inverse = matrices(operator)
        outside = (found - x).flatten(1)
        a, _ = matrices(operator)
        torch.testing.assert_close(outside @ (inverse @ a).T, outside, rtol=0, atol=1e-10)


def test_a_grey_image_is_the_luma_or_the_mean() -> None:
    x = normal(2, 3, 4, 4)
    grey = colourisation((3, 4, 4), "mean").forward(x)
    torch.testing.assert_close(grey, x.mean(1, keepdim=True))
    white = torch.ones(1, 3, 4, 4)
    torch.testing.assert_close(colourisation((3, 4, 4)).forward(white), torch.ones(1, 1, 4, 4))


# What is refused.

MASK = inpainting(torch.tensor([1, 0]), (2,))


def test_a_blur_is_a_gaussian() -> None:
    """Of the given deviation within an image, and with the border's pixels beyond it."""
    std, side = 1.3, 31
    dot = torch.zeros(1, 1, side, side, dtype=torch.float64)
    dot[0, 0, 15, 15] = 1
    blurred = blurring((1, side, side), std).forward(dot)[0, 0]
    places = torch.arange(side, dtype=torch.float64) - 15
    assert float(blurred.sum()) == pytest.approx(1)
    assert float((blurred * places.square()).sum()) == pytest.approx(std**2, rel=1e-3)
    torch.testing.assert_close(blurred, blurred.T)
    flat = torch.full((1, 3, 6, 5), 0.7, dtype=torch.float64)
    torch.testing.assert_close(blurring((3, 6, 5), 4.0).forward(flat), flat)


def test_what_is_blurred_away_counts_as_not_measured() -> None:
    """Of white noise most is lost to a wide blur: what remains of it is below the cutoff."""
    x, cutoff = normal(4, 1, 12, 12), 0.02
    operator = blurring((1, 12, 12), 2.0, cutoff)
    lost = unmeasured(operator, x)
    assert float(lost.norm() / x.norm()) > 0.8
    assert float(operator.forward(lost).norm() / x.norm()) < cutoff
    torch.testing.assert_close(unmeasured(operator, lost), lost, rtol=0, atol=1e-9)


def test_bad_operators_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \(3,\).*images of \(2,\)"):
        inpainting(torch.ones(3), (2,))
    with pytest.raises(ValueError, match="does not fit"):
        inpainting(torch.ones(5, 1, 2, 2), (1, 2, 2))
    with pytest.raises(ValueError, match=r"\(3, height, width\), not \(1, 2, 2\)"):
        colourisation((1, 2, 2))
    with pytest.raises(ValueError, match="mean, luma"):
        colourisation((3, 2, 2), "green")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Downsampling by 3"):
        downsampling((1, 4, 6), 3)
    with pytest.raises(TypeError, match="no adjoint"):
        LinearOperator(lambda x: x, None, (2,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gram"):
        LinearOperator(lambda x: x, lambda y: y, (2,), gram=0.0)


def test_a_search_that_stopped_stays_where_it_is() -> None:
    """Where a matrix is not positive no direction helps; the others of the batch go on."""
    matrices = torch.stack([torch.diag(torch.tensor([1.0, 2.0, -3.0, 4.0])), torch.eye(4)]).double()
    b, calls = torch.ones(2, 4).double(), []

    def matrix(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.einsum("bij,bj->bi", matrices, x)

    found = [conjugate_gradients(matrix, b, iterations).x for iterations in (3, 50)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    torch.testing.assert_close(found[1][1], b[1])
    assert len(calls) < 10


@pytest.mark.parametrize(("dtype", "damping"), [(torch.float64, 4e-5), (torch.float32, 4e-6)])
def test_a_blur_is_inverted_at_little_noise(dtype: torch.dtype, damping: float) -> None:
    """The equations are ill-conditioned, and met to what the precision leaves of them."""
    operator = blurring((3, 32, 32), 1.5)
    y = operator.forward(normal(2, 3, 32, 32).to(dtype))
    x = damped_inverse(operator, y, torch.tensor(damping, dtype=dtype))
    back = operator.adjoint(y)
    left = operator.adjoint(operator.forward(x)) + damping * x - back
    assert float(left.norm() / back.norm()) < 10 * torch.finfo(dtype).eps ** 0.5


def test_a_wrong_adjoint_is_refused() -> None:
    like = torch.zeros((), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"is not that of its forward map.*<A x, y>"):
        check_operator(LinearOperator(lambda x: 2 * x, lambda y: y, (2,)), like)
    with pytest.raises(ValueError, match=r"gives shape \(2, 3\).*must give \(2, 2\)"):
        check_operator(LinearOperator(lambda x: x, lambda y: y[:, [0, 1, 1]], (2,)), like)


def test_a_wrong_gram_is_refused() -> None:
    """The number of another map, and one for a map that has none."""
    like, stretched = torch.zeros((), dtype=torch.float64), torch.tensor([1.0, 2.0]).double()
    wrong = [
        (LinearOperator(lambda x: 2 * x, lambda y: 2 * y, (2,), gram=1.0), "on average"),
        (LinearOperator(lambda x: stretched * x, lambda y: stretched * y, (2,), gram=1.0), "omit"),
    ]
    for operator, said in wrong:
        with pytest.raises(ValueError, match=rf"operator has gram = 1, .*{said}"):
            check_operator(operator, like)


def test_a_pseudo_inverse_that_is_not_found_is_refused() -> None:
    negative = LinearOperator(lambda x: x, lambda y: -y, (2,))
    with pytest.raises(ValueError, match="give the operator a pseudo_inverse"):
        pseudo_inverse(negative, normal(1, 2))


@pytest.mark.parametrize(
    ("measurement", "noise_std", "said"),
    [
        (normal(3, 3), 0.0, r"shape \(3, 3\), but the operator makes \(3, 2\)"),
        (normal(3), 0.0, "has shape"),
        (torch.tensor(1.0), 0.0, "has shape"),
        (torch.tensor([[1.0, math.nan]]), 0.0, "NaN or infinity"),
        (torch.tensor([[1.0, math.inf]]), 0.0, "NaN or infinity"),
        (normal(3, 2), -0.1, "zero or positive"),
        (normal(3, 2), math.nan, "zero or positive"),
    ],
)
def test_bad_measurements_are_refused(measurement: Tensor, noise_std: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        InverseProblem(MASK, measurement, noise_std)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"x_T": normal(2, 2)}, "3 measurements came for 2 samples"),
    ({"x_T": normal(3, 4)}, r"shape \(3, 4\).*images of \(2,\)"),
    ({"seeds": (1, 2)}, "2 seeds came for 3 samples"),
    ({"method": Replacement()}, "Replacement adds noise"),
    ({"method": "replacement"}, r"must be a Guidance\(\) or Replacement\(\)"),
    ({"x_T": normal(3, 2).long()}, "must be one of floats"),
    ({"x_T": math.nan * normal(3, 2)}, "initial noise holds NaN"),
    ({"sampler": "ancestral"}, "seeds"),
    ({"sampler": "unipc-2", "method": Replacement(2), "seeds": SEEDS}, "remembers nothing"),
    ({"schedule": FlowMatching()}, "alpha = 0.*sigma_max"),
    ({"operator": LinearOperator(lambda x: 2 * x, lambda y: y, (2,))}, "adjoint"),
    (
        {
            "operator": LinearOperator(lambda x: x, lambda y: y, (2,)),
            "method": Replacement(),
            "noise_std": 0.1,
            "seeds": SEEDS,
        },
        "gram",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_impossible_settings_are_refused(arguments: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {
        "x_T": normal(3, 2),
        "operator": MASK,
        "noise_std": 0.0,
        "sampler": "ddim",
        "steps": 3,
        **arguments,
    }
    problem = InverseProblem(settings.pop("operator"), normal(3, 2), settings.pop("noise_std"))
    with pytest.raises(ValueError, match=said):
        model = Denoiser(lambda x, t: x, settings.pop("schedule", VPLinear()), "sample")
        solve_inverse_problem(model, settings.pop("x_T"), problem, **settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Guidance(scale=-1.0),
        lambda: NormalData(0.0),
        lambda: FromJacobian(0),
        lambda: FromJacobian(1.5),  # type: ignore[arg-type]
        lambda: FromJacobian(math.inf),  # type: ignore[arg-type]
        lambda: Replacement(0),
        lambda: Replacement(math.inf),  # type: ignore[arg-type]
    ],
)
def test_bad_methods_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"is (-?[01](\.[05])?|inf);"):
        make()


# Guidance on Gaussian data.


def posterior(data: Mixture, a: Tensor, y: Tensor, noise_std: float) -> Mixture:
    """The law of x_0 given ``A x_0 + noise = y``, for data of one Gaussian."""
    mean, covariance = data.mean, data.covariance
    seen = a @ covariance @ a.T + noise_std**2 * torch.eye(len(a), dtype=torch.float64)
    gain = covariance @ a.T @ torch.linalg.pinv(seen, hermitian=True)
    left = covariance - gain @ a @ covariance
    # Where y is exact a variance is zero up to its rounding, of either sign.
    eye = 1e-14 * torch.eye(len(mean), dtype=torch.float64)
    return gaussian((mean + gain @ (y - a @ mean)).tolist(), ((left + left.T) / 2 + eye).tolist())


def isotropic(dimension: int, std: float) -> Mixture:
    covariance = std**2 * torch.eye(dimension, dtype=torch.float64)
    return gaussian(normal(dimension, seed=7).tolist(), covariance.tolist())


def assert_exact(
    data: Mixture,
    problem: InverseProblem,
    settings: Guidance,
    schedule: Schedule,
    kind: PredictionType,
) -> None:
    """The guided model is the model of the posterior, at every noise level."""
    model = data.model(schedule, kind)
    guided = guiding(model, problem, settings)
    y, (a, _) = problem.measurement, matrices(problem.operator)
    for u in (0.02, 0.3, 0.6, 0.95):
        at = schedule.point(schedule.at_fraction(torch.tensor(u, dtype=torch.float64)))
        x = at.alpha * data.mean + (at.alpha + at.sigma) * normal(len(y), len(data.mean), seed=3)
        numbers = to_data(kind, at)
        found = numbers.of_x * x + numbers.of_output * guided(x, at.t.expand(len(y)))
        for i in range(len(y)):
            exact = posterior(data, a, y[i], problem.noise_std)
            expected = exact.denoise(x[i : i + 1], at.alpha, at.sigma)[0]
            torch.testing.assert_close(found[i], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("noise_std", [0.0, 0.4])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_guidance_is_exact_where_all_variances_are_one(
    kind: PredictionType, schedule: Schedule, noise_std: float
) -> None:
    """Data of covariance s^2 I in 16 dimensions, and any operator."""
    data, settings = isotropic(16, 0.7), Guidance(covariance=NormalData(0.7))
    for operator in (
        of_matrix(normal(5, 16)),
        of_matrix(normal(6, 3) @ normal(3, 16, seed=1)),
        inpainting(torch.arange(16) % 3 == 0, (16,)),
    ):
        truth = data.mean + 0.7 * normal(2, 16, seed=4)
        y = operator.forward(truth)
        y = y + noise_std * operator.forward(normal(2, 16, seed=5))
        assert_exact(data, InverseProblem(operator, y, noise_std), settings, schedule, kind)


@pytest.mark.parametrize("noise_std", [0.0, 0.4])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_guidance_by_the_jacobian_is_exact_on_normal_data(
    kind: PredictionType, schedule: Schedule, noise_std: float
) -> None:
    """Correlated data in 8 dimensions: as many iterations as numbers are measured."""
    root = normal(8, 8, seed=6) / 4 + 0.5 * torch.eye(8, dtype=torch.float64)
    data = gaussian(normal(8, seed=7).tolist(), (root @ root.T).tolist())
    for count in (1, 3):
        operator = of_matrix(normal(count, 8))
        y = operator.forward(data.mean + normal(2, 8, seed=4))
        settings = Guidance(covariance=FromJacobian(iterations=2 * count - 1))
        assert_exact(data, InverseProblem(operator, y, noise_std), settings, schedule, kind)


def assert_normal(x: Tensor, mean: Tensor, covariance: Tensor, slack: float = 0.0) -> None:
    """Samples [N, d] have this mean and covariance, to four standard errors and ``slack``."""
    count = len(x)
    spread = covariance.diagonal()
    error = 4 * (spread / count).sqrt() + slack
    assert bool(((x.mean(0) - mean).abs() <= error).all())
    error = 4 * ((covariance.square() + spread[:, None] * spread) / count).sqrt() + slack
    assert bool(((torch.cov(x.T) - covariance).abs() <= error).all())


@pytest.mark.parametrize(
    ("sampler", "count"), [("dpmpp-3m-corrected", 4000), ("heun", 4000), ("sde-dpmpp-2m", 1000)]
)
def test_guided_samples_have_the_law_of_the_posterior(sampler: str, count: int) -> None:
    schedule = EDM()
    data, a = isotropic(3, 0.7), normal(2, 3)
    y = torch.tensor([0.9, -0.4], dtype=torch.float64)
    problem = InverseProblem(of_matrix(a), y.expand(count, 2), 0.3)
    x = solve_inverse_problem(
        data.model(schedule, "sample"),
        80 * normal(count, 3, seed=9),
        problem,
        method=Guidance(covariance=NormalData(0.7)),
        sampler=sampler,
        steps=100,
        seeds=range(count),
    )
    exact = posterior(data, a, y, 0.3)
    # The discretisation errs by less than a quarter of a standard error.
    assert_normal(x, exact.mean, exact.covariance, slack=2e-3)


@pytest.mark.parametrize("covariance", [FromJacobian(), FromJacobian(3), NormalData(0.5)])
def test_what_no_image_has_in_a_measurement_says_nothing(
    covariance: FromJacobian | NormalData,
) -> None:
    """Numbers where the mask hides the image, as a whole image has them."""
    schedule, x, y = VPLinear(), normal(3, 2), 5 + normal(3, 2, seed=1)
    t = torch.full((3,), 0.4, dtype=torch.float64)
    whole, masked = (
        guiding(
            PLANE.model(schedule, "flow"),
            InverseProblem(MASK, measurement),
            Guidance(covariance=covariance),
        )(x, t)
        for measurement in (y, MASK.forward(y))
    )
    assert torch.equal(whole, masked)


def test_no_step_moves_the_measurement_by_more_than_twice_what_is_missing() -> None:
    """Where the Jacobian is no covariance: here nearly a rotation, and nearly nothing."""
    turn, y = torch.tensor([[1e-3, 1.0], [-1.0, 1e-3]]).double(), 100 * normal(2, 2)
    problem = InverseProblem(of_matrix(torch.eye(2).double()), y)
    x, t = normal(2, 2, seed=1), torch.full((2,), 0.5, dtype=torch.float64)
    for jacobian in (turn, 1e-9 * turn):
        model = Denoiser(partial(lambda j, x, t: x @ j.T, jacobian), VPLinear(), "sample")
        guided = guiding(model, problem)
        moved = (guided(x, t) - model(x, t)).norm(dim=1)
        torch.testing.assert_close(moved, 2 * (y - model(x, t)).norm(dim=1))


@pytest.mark.parametrize("recording", [False, True])
def test_guidance_by_a_network_that_records_nothing_is_refused(recording: bool) -> None:
    problem = InverseProblem(MASK, MASK.forward(normal(2, 2)))

    @torch.no_grad()
    def silent(x: Tensor, t: Tensor) -> Tensor:
        return x / 2

    guided = guiding(Denoiser(silent, VPLinear(), "sample"), problem)
    with torch.set_grad_enabled(recording), pytest.raises(ValueError, match="not recorded"):
        guided(normal(2, 2), torch.full((2,), 0.5, dtype=torch.float64))


def test_guidance_of_no_weight_is_the_model() -> None:
    schedule, x = VPLinear(), normal(3, 2)
    model = PLANE.model(schedule, "flow")
    problem = InverseProblem(MASK, MASK.forward(normal(3, 2, seed=1)))
    t = torch.full((3,), 0.4, dtype=torch.float64)
    guided = guiding(model, problem, Guidance(scale=0.0))
    assert torch.equal(guided(x, t), model(x, t))


def test_guidance_keeps_a_graph_only_where_one_is_recorded() -> None:
    schedule, t = VPLinear(), torch.full((3,), 0.4, dtype=torch.float64)
    problem = InverseProblem(MASK, MASK.forward(normal(3, 2, seed=1)))
    guided = guiding(PLANE.model(schedule, "epsilon"), problem)
    x = normal(3, 2)
    recorded = guided(x.clone().requires_grad_(), t)
    with torch.no_grad():
        found = guided(x, t)
    assert recorded.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, recorded.detach())


# Replacement.


def independent(std: tuple[float, ...] = (0.5, 0.8, 0.3)) -> Mixture:
    covariance = torch.tensor(std, dtype=torch.float64).square().diag()
    return gaussian([0.4, -1.0, 0.8], covariance.tolist())


def couples_samples(sampler: Sampler, grid: Grid) -> bool:
    """Whether a step follows norms of the whole batch."""
    return any(row.scaling != "none" for row in sampler.tableau(grid).rows)


@EACH
def test_the_known_part_is_met_by_every_sampler(sampler: Sampler) -> None:
    schedule = VPLinear()
    for operator in (inpainting(torch.tensor([1, 0, 1]), (3,)), of_matrix(normal(2, 3))):
        problem = InverseProblem(operator, operator.forward(normal(3, 3, seed=1)))
        x = solve_inverse_problem(
            independent().model(schedule, "v_prediction"),
            normal(3, 3),
            problem,
            method=Replacement(),
            sampler=sampler.name,
            steps=5,
            seeds=SEEDS,
        )
        torch.testing.assert_close(operator.forward(x), problem.measurement, rtol=0, atol=1e-9)


@EACH
def test_independent_unknown_parts_are_drawn_as_without_a_measurement(sampler: Sampler) -> None:
    """The same numbers, not the same law only: no noise is shared, and no memory is harmed."""
    schedule = VPLinear()
    if couples_samples(sampler, make_grid(schedule, 6)):
        pytest.skip("its steps follow norms of the whole image")
    problem = InverseProblem(inpainting(torch.tensor([1, 0, 0]), (3,)), normal(3, 3, seed=1) * 0)
    problem.measurement[:, 0] = torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64)
    arguments: dict[str, Any] = {
        "sampler": sampler.name,
        "grid": make_grid(schedule, 6),
        "seeds": SEEDS,
    }
    model = independent().model(schedule, "sample")
    free = sample(model, normal(3, 3), **arguments)
    x = solve_inverse_problem(model, normal(3, 3), problem, method=Replacement(), **arguments)
    torch.testing.assert_close(x[:, 0], problem.measurement[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(x[:, 1:], free[:, 1:], rtol=0, atol=1e-12)


@EACH
def test_without_a_measurement_it_is_the_sampler(sampler: Sampler) -> None:
    schedule = VPLinear()
    model = PLANE.model(schedule, "epsilon")
    nothing = InverseProblem(inpainting(torch.zeros(2), (2,)), torch.zeros(3, 2).double())
    arguments: dict[str, Any] = {
        "sampler": sampler.name,
        "grid": make_grid(schedule, 4),
        "seeds": SEEDS,
    }
    free = sample(model, normal(3, 2), **arguments)
    for method in METHODS.values():
        x = solve_inverse_problem(model, normal(3, 2), nothing, method=method, **arguments)
        torch.testing.assert_close(x, free, rtol=0, atol=1e-12)


def test_the_known_part_has_its_law_at_every_step() -> None:
    """Mean alpha_t y and variance sigma_t^2, fresh from step to step, at every point."""
    count, schedule = 4000, FlowMatching()
    y = torch.tensor([[0.7, 0.0]], dtype=torch.float64).expand(count, 2)
    tableau = get_sampler("ddim").tableau(make_grid(schedule, 5))
    solver = Solver(tableau, "sample")
    edit = replacing(solver, InverseProblem(MASK, y), range(count))
    state = edit(solver.init(normal(count, 2)))
    before = None
    for row in tableau.rows[:-1]:
        known = state.x[:, :1]
        mean, variance = (row.at.alpha * y[0, :1]), row.at.sigma.square().reshape(1, 1)
        assert_normal(torch.cat([known, normal(count, 1, seed=5)], 1)[:, :1], mean, variance)
        if before is not None:
            both = torch.cat([known, before], dim=1)
            assert abs(float(torch.corrcoef(both.T)[0, 1])) < 4 / math.sqrt(count)
        before = known
        state = edit(next(solver.run(lambda x, t: 0 * x, state)))


def test_visiting_steps_again_brings_the_parts_together() -> None:
    """Two numbers of correlation 0.9, one known: the mean of the other, against its posterior.

    With one visit it is biased towards the mean of the data, which is zero.
    """
    schedule, count = VPLinear(), 300
    model = gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]]).model(schedule, "sample")
    y = torch.tensor([[1.5, 0.0]], dtype=torch.float64).expand(count, 2)

    def bias(visits: int) -> float:
        x = solve_inverse_problem(
            model,
            normal(count, 2),
            InverseProblem(MASK, y),
            method=Replacement(visits),
            sampler="ancestral",
            steps=20,
            seeds=range(count),
        )
        return float(x[:, 1].mean()) - 0.9 * 1.5

    once, often = bias(1), bias(5)
    assert -0.7 < once < -0.4
    assert once / 2 < often < 0.1


@pytest.mark.parametrize("noise_std", [0.0, 1e-30, 1e-6, 1e-3])
def test_a_measurement_of_hardly_any_noise_is_met_at_the_end(noise_std: float) -> None:
    """As one of no noise is, until the network's last call knows more than it does."""
    data, y = gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]]), normal(5, 2)
    x = solve_inverse_problem(
        data.model(VPLinear(), "sample"),
        normal(5, 2, seed=1),
        InverseProblem(MASK, MASK.forward(y), noise_std),
        method=Replacement(),
        seeds=range(5),
    )
    torch.testing.assert_close(MASK.forward(x), MASK.forward(y))


def test_a_noisy_measurement_is_let_go_where_it_says_less_than_x() -> None:
    """A = I: from the noise level of y on the sampler draws from the posterior by itself."""
    schedule, count, noise_std = EDM(), 1000, 0.4
    data = gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    y = torch.tensor([0.9, 0.1], dtype=torch.float64)
    whole = LinearOperator(lambda x: x, lambda y: y, (2,), gram=1.0)
    early = torch.logspace(math.log10(80), math.log10(noise_std), 6, dtype=torch.float64)
    late = torch.logspace(math.log10(noise_std), -2, 60, dtype=torch.float64)[1:]
    rho = torch.cat([early, late, torch.zeros(1, dtype=torch.float64)])
    points = schedule.at_lam(-rho[:-1].log())
    clean = schedule.clean()
    grid = Grid(
        schedule, Point(*(torch.cat([a, b[None]]) for a, b in zip(points, clean, strict=True)))
    )
    x = solve_inverse_problem(
        data.model(schedule, "sample"),
        80 * normal(count, 2),
        InverseProblem(whole, y.expand(count, 2), noise_std),
        method=Replacement(),
        sampler="sde-dpmpp-2m",
        grid=grid,
        seeds=range(count),
    )
    exact = posterior(data, torch.eye(2, dtype=torch.float64), y, noise_std)
    assert_normal(x, exact.mean, exact.covariance, slack=2e-3)


# Both methods, every sampler.


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    """A network that treats samples, and even numbers, alike."""
    return torch.sin(2 * x + t[:, None].to(x.dtype)) + 0.3 * x


def solved(
    sampler: Sampler, method: Guidance | Replacement, chosen: slice, dtype: torch.dtype
) -> Tensor:
    seeds, x = tuple(range(5)), normal(5, 2).to(dtype)
    y = MASK.forward(normal(5, 2, seed=1).to(dtype))
    return solve_inverse_problem(
        Denoiser(elementwise, VPLinear(), "sample"),
        x[chosen],
        InverseProblem(MASK, y[chosen]),
        method=method,
        sampler=sampler.name,
        steps=4,
        sigma_max=8.0,
        seeds=seeds[chosen],
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@EACH
def test_a_sample_is_the_same_alone_and_in_a_batch(
    sampler: Sampler, method: Guidance | Replacement, dtype: torch.dtype
) -> None:
    together = solved(sampler, method, slice(None), dtype)
    assert together.dtype == dtype
    assert bool(together.isfinite().all())
    if couples_samples(sampler, make_grid(VPLinear(), 4, sigma_max=8.0)):
        return
    for i in (0, 4):
        assert torch.equal(solved(sampler, method, slice(i, i + 1), dtype)[0], together[i])


def forgets(solver: Solver, start: State) -> bool:
    """Whether a run ends alike if all but x is lost at the beginning of each step."""
    rows, whole, state = solver.tableau.rows, solver.finish(elementwise, start), start
    for row in rows:
        if row.step != rows[state.row - 1].step or state.row == 0:
            lost = (torch.full_like(v, 7.0) for v in (*state.points[1:], *state.predictions))
            memory = (state.x, *lost)
            kept = len(state.points)
            state = State(state.row, memory[:kept], memory[kept:])
        state = next(solver.run(elementwise, state))
    return torch.equal(state.x, whole.x)


@pytest.mark.parametrize("visits", [1, 3])
@EACH
def test_replacement_goes_on_bit_for_bit_from_where_it_stopped(
    sampler: Sampler, visits: int
) -> None:
    on, settings = make_grid(VPLinear(), 4, sigma_max=8.0), Replacement(visits)
    problem = InverseProblem(MASK, MASK.forward(normal(3, 2, seed=1)))

    def solver() -> Solver:
        return Solver(sampler.tableau(on), "sample", RowNoise(SEEDS, (2,)))

    def run(state: State) -> list[State]:
        return list(replaced_run(solver(), elementwise, state, problem, SEEDS, settings))

    start = replacing(solver(), problem, SEEDS)(solver().init(normal(3, 2)))
    if visits > 1 and not forgets(solver(), start):
        with pytest.raises(ValueError, match="remembers nothing"):
            run(start)
        return
    states = run(start)
    assert len(states) == visits * sampler.tableau(on).calls
    rows = sampler.tableau(on).rows
    ends = [k for k in range(1, len(rows)) if rows[k].step != rows[k - 1].step]
    for row in ends:
        last = [state for state in states if state.row == row][-1]
        read: State = pickle.loads(pickle.dumps(last))
        assert torch.equal(run(read)[-1].x, states[-1].x)


@EACH
def test_guidance_goes_on_bit_for_bit_from_where_it_stopped(sampler: Sampler) -> None:
    schedule = VPLinear()
    problem = InverseProblem(MASK, MASK.forward(normal(3, 2, seed=1)))
    model = guiding(Denoiser(elementwise, schedule, "sample"), problem)
    tableau = sampler.tableau(make_grid(schedule, 4, sigma_max=8.0))
    solver = Solver(tableau, "sample", RowNoise(SEEDS, (2,)))
    states = list(solver.run(model, solver.init(normal(3, 2))))
    for state in states[:-1]:
        read: State = pickle.loads(pickle.dumps(state))
        assert torch.equal(solver.finish(model, read).x, states[-1].x)


def test_replacement_draws_noise_of_its_own() -> None:
    """Of no sampler, no other row, no other visit and no other sample."""
    tableau = get_sampler("ancestral").tableau(make_grid(VPLinear(), 3))
    solver = Solver(tableau, "sample", RowNoise(SEEDS, (2,)))
    whole = LinearOperator(lambda x: x, lambda y: y, (2,), gram=1.0)
    problem = InverseProblem(whole, torch.zeros(3, 2, dtype=torch.float64))
    drawn = [RowNoise(SEEDS, (2,))(row) for row in range(-2, 4)]
    for visit in range(3):
        edit = replacing(solver, problem, SEEDS, visit)
        state = solver.init(normal(3, 2))
        for row in range(3):
            found = edit(state._replace(row=row)).x
            drawn.append(found / tableau.rows[row].at.sigma)
    numbers = torch.cat(drawn).flatten()
    distances = (numbers[:, None] - numbers).abs() + torch.eye(len(numbers))
    assert float(distances.min()) > 1e-6


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_gradients_flow(method: Guidance | Replacement) -> None:
    def end(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return solve_inverse_problem(
            Denoiser(
                lambda x, t: torch.tanh(weight * x) * (1 + t[:, None]), FlowMatching(), "sample"
            ),
            x,
            InverseProblem(MASK, y),
            method=method,
            sampler="dpmpp-2m",
            steps=3,
            sigma_max=5.0,
            seeds=SEEDS[:1],
        )

    inputs = tuple(
        v.requires_grad_() for v in (normal(1, 2), MASK.forward(normal(1, 2)), normal(1, 2))
    )
    assert torch.autograd.gradcheck(end, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_no_graph_is_kept_under_no_grad(method: Guidance | Replacement) -> None:
    weight = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        x = solve_inverse_problem(
            Denoiser(lambda x, t: x * weight, VPLinear()),
            torch.randn(3, 2, generator=torch.Generator().manual_seed(0)),
            InverseProblem(MASK, torch.zeros(3, 2)),
            method=method,
            seeds=SEEDS,
            steps=3,
        )
    assert not x.requires_grad


@pytest.mark.parametrize("method", [Guidance(), Replacement(), Replacement(visits=3)], ids=str)
def test_network_calls_are_those_of_the_sampler_times_the_visits(
    method: Guidance | Replacement,
) -> None:
    seen: list[int] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(len(x))
        return 0.5 * x

    states: list[State] = []
    solve_inverse_problem(
        Denoiser(model, VPLinear(), "sample"),
        normal(3, 2),
        InverseProblem(MASK, torch.zeros(3, 2, dtype=torch.float64)),
        method=method,
        sampler="heun",
        steps=4,
        seeds=SEEDS,
        callback=states.append,
    )
    visits = method.visits if isinstance(method, Replacement) else 1
    assert seen == [3] * (7 * visits)
    assert len(states) == len(seen)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_measurement_may_serve_all_samples(method: Guidance | Replacement) -> None:
    y = MASK.forward(normal(1, 2, seed=1))
    ends = [
        solve_inverse_problem(
            Denoiser(elementwise, VPLinear(), "sample"),
            normal(3, 2),
            InverseProblem(MASK, measurement),
            method=method,
            seeds=SEEDS,
            steps=4,
        )
        for measurement in (y, y.expand(3, 2))
    ]
    assert torch.equal(*ends)
    assert not torch.equal(ends[0][0], ends[0][1])


def test_guidance_serves_an_adaptive_driver() -> None:
    """Samples that leave the batch early, and the driver on the exact model of the posterior."""
    schedule, data, a = VPLinear(), isotropic(3, 0.7), normal(2, 3)
    y = torch.tensor([[0.9, -0.4]], dtype=torch.float64)
    exact = posterior(data, a, y[0], 0.3).model(schedule, "v_prediction")
    problem = InverseProblem(of_matrix(a), y, 0.3)
    settings = Guidance(covariance=NormalData(0.7))
    model = data.model(schedule, "v_prediction")
    guided = guiding(model, problem, settings)
    x = normal(4, 3) * torch.tensor([[0.1], [1.0], [3.0], [10.0]], dtype=torch.float64)
    ends = [sample_adaptive(each, x) for each in (exact, guided)]
    assert len(set(ends[1].nfe.tolist())) > 1
    torch.testing.assert_close(ends[1].x, ends[0].x, rtol=0, atol=1e-7)
    for_each = guiding(model, InverseProblem(of_matrix(a), y.expand(4, 2)))
    with pytest.raises(ValueError, match=r"4 measurements came for .* one for all"):
        sample_adaptive(for_each, x)


def test_a_guided_model_is_a_model() -> None:
    """It predicts what the model predicts, so it runs wherever a model runs."""
    schedule = EDM()
    problem = InverseProblem(MASK, MASK.forward(normal(3, 2, seed=1)))
    ends = []
    for kind in KINDS:
        guided = guiding(PLANE.model(schedule, kind), problem)
        x = 80 * normal(3, 2)
        ends.append(sample(guided, x, steps=8))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-8)
