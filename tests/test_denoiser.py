r"""The model as one object: what it answers is exact on a mixture, and what it refuses.

On a mixture of Gaussians D, eps, the score and the velocity have closed forms, so each of them is
compared with its own definition, for every prediction type and schedule.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from samplers.denoiser import Denoiser, Unbatched, check_conditions, is_batched, select_rows
from samplers.prediction import PREDICTION_TYPES, EDMOutput, PredictionType, clip
from samplers.probability_flow.adaptive import encode_adaptive, sample_adaptive
from samplers.probability_flow.codes import decode, encode
from samplers.probability_flow.likelihood import log_likelihood
from samplers.sampling import sample
from samplers.schedule import (
    EDM,
    FlowMatching,
    Schedule,
    SubVP,
    VPCosine,
    VPDiscrete,
    VPLinear,
    VPScaledLinear,
)
from tests.mixture import PLANE, gaussian

SCHEDULES: dict[str, Schedule] = {
    "vp": VPLinear(),
    "constant": VPLinear(10.0, 10.0),
    "scaled": VPScaledLinear(),
    "cosine": VPCosine(),
    "discrete": VPDiscrete.linear(),
    "sub-vp": SubVP(),
    "ve": EDM(),
    "flow": FlowMatching(),
}
TIMES = (0.05, 0.4, 0.9)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_what_it_predicts_is_exact(name: str, kind: PredictionType) -> None:
    schedule = SCHEDULES[name]
    model = PLANE.model(schedule, kind)
    for u in TIMES:
        at = schedule.point(schedule.at_fraction(torch.tensor(u, dtype=torch.float64)))
        x = (at.alpha + at.sigma) * normal(4, 2)
        x.requires_grad_()
        log_p = PLANE.log_prob(x, at.alpha, at.sigma)
        (score,) = torch.autograd.grad(log_p.sum(), x)
        data = PLANE.denoise(x, at.alpha, at.sigma)
        close: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-8}
        torch.testing.assert_close(model.data(x, at.t), data, **close)
        torch.testing.assert_close(model.score(x, at.t), score, **close)
        torch.testing.assert_close(model.noise(x, at.t), -at.sigma * score, **close)
        drift, spread = schedule.drift(at.t), schedule.diffusion_squared(at.t)
        torch.testing.assert_close(
            model.velocity(x, at.t), drift * x - spread / 2 * score, rtol=1e-6, atol=1e-7
        )


def test_each_sample_may_have_its_own_time() -> None:
    model = PLANE.model(VPLinear(), "epsilon")
    x, t = normal(3, 2), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    together = model.data(x, t)
    for i in range(3):
        torch.testing.assert_close(model.data(x[i : i + 1], float(t[i]))[0], together[i])


def test_the_velocity_of_straight_paths_reaches_pure_noise() -> None:
    """There alpha is 0 and the score of the data is not defined, but eps - x_0 is."""
    schedule = FlowMatching()
    model, x = PLANE.model(schedule, "flow"), normal(3, 2)
    t = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(model.velocity(x, t), model(x, t))


@pytest.mark.parametrize(
    ("alias", "kind"),
    [
        ("eps", "epsilon"),
        ("noise", "epsilon"),
        ("x0", "sample"),
        ("v", "v_prediction"),
        ("flow_prediction", "flow"),
    ],
)
def test_names_of_other_libraries_are_known(alias: Any, kind: PredictionType) -> None:
    assert Denoiser(nn.Identity(), VPLinear(), alias).prediction == kind
    x = normal(3, 2)
    found = sample(Denoiser(lambda x, t: x / 2, VPLinear(), alias), x, steps=4)
    expected = sample(Denoiser(lambda x, t: x / 2, VPLinear(), kind), x, steps=4)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"network": 3}, "network is a int; it must be a module or a function"),
        ({"schedule": "linear"}, "schedule is 'linear'; it must be a Schedule"),
        ({"prediction": "velocity"}, "prediction type is 'velocity'; it must be one of epsilon"),
        ({"time_scale": 0.0}, "time scale is 0.0; it must be positive"),
        ({"time_scale": float("inf")}, "time scale is inf; it must be positive"),
    ],
)
def test_what_is_no_model_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Denoiser(**{"network": nn.Identity(), "schedule": VPLinear(), **arguments})


@pytest.mark.parametrize(
    "function", [sample, sample_adaptive, encode_adaptive, encode, decode, log_likelihood]
)
def test_a_network_alone_is_no_model(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"The model is a Identity; .* wrap a network as Denoiser"):
        function(nn.Identity(), normal(2, 2))


def test_one_number_is_no_list_of_seeds() -> None:
    with pytest.raises(ValueError, match=r"The seeds are 4; .* such as range\(4\)"):
        Denoiser(nn.Identity(), VPLinear()).initial((2,), 4)  # type: ignore[arg-type]


def test_the_network_is_given_its_own_time() -> None:
    """A multiple of t, or a function of the point, as EDM's log(rho) / 4."""
    given: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        given.append(t)
        return x

    x, t = normal(2, 2), torch.tensor([0.25, 0.5], dtype=torch.float64)
    Denoiser(network, VPLinear(), time_scale=1000)(x, t)
    Denoiser(network, EDM(), time_scale=lambda at: at.rho.log() / 4)(x, t)
    torch.testing.assert_close(given[0], 1000 * t)
    torch.testing.assert_close(given[1], t.log() / 4)


def test_the_output_of_diffusers_is_unpacked() -> None:
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 4),
        layers_per_block=1, norm_num_groups=2, attention_head_dim=2, num_class_embeds=3,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    model = Denoiser(unet, VPDiscrete.linear(), "epsilon")
    x, labels = normal(2, 1, 8, 8).float(), torch.tensor([0, 2])
    t = torch.tensor([10.0, 900.0])
    with torch.no_grad():
        assert torch.equal(model(x, t, class_labels=labels), unet(x, t, labels).sample)
        x_T = model.initial((1, 8, 8), seeds=(0, 1))
        x_0 = sample(
            model, x_T, sampler="ddim", grid="uniform", steps=2, conditions={"class_labels": labels}
        )
        assert x_0.shape == x.shape


def test_edm_network_in_its_preconditioning_is_exact_on_a_gaussian() -> None:
    """F is what EDM trains, told log(rho) / 4: D follows from c_skip, c_in and c_out."""
    data, s, schedule = gaussian([0.0, 0.0], [[0.25, 0.0], [0.0, 0.25]]), 0.5, EDM()
    exact = data.model(schedule, "sample")

    def network(x: Tensor, t: Tensor) -> Tensor:
        rho = (4 * t).exp()[:, None]
        norm = (rho.square() + s**2).sqrt()
        y = x * norm  # c_in y = x
        return (exact(y, rho[:, 0]) - s**2 / norm.square() * y) / (rho * s / norm)

    def scaled(x: Tensor, t: Tensor) -> Tensor:
        rho = (4 * t).exp()[:, None]
        return network(x / (rho.square() + s**2).sqrt(), t)

    model = Denoiser(scaled, schedule, EDMOutput(s), time_scale=lambda at: at.rho.log() / 4)
    x = 3 * normal(4, 2)
    t = torch.tensor([0.01, 0.5, 3.0, 60.0], dtype=torch.float64)
    torch.testing.assert_close(model.data(x, t), exact.data(x, t))


# --------------------------------------------------------------------------------- initial noise


@pytest.mark.parametrize(
    ("schedule", "std"),
    [(EDM(sigma_max=80.0), 80.0), (FlowMatching(), 1.0), (VPLinear(), 1.0)],
)
def test_initial_noise_has_the_scale_of_the_noisiest_level(schedule: Schedule, std: float) -> None:
    model = Denoiser(nn.Identity(), schedule)
    x = model.initial((500,), range(100), dtype=torch.float64)
    assert float(x.std()) == pytest.approx(std, rel=0.02)
    alone = model.initial((500,), [7], dtype=torch.float64)
    assert torch.equal(alone[0], x[7])


def test_initial_noise_starts_a_shorter_range() -> None:
    model = Denoiser(nn.Identity(), EDM())
    x = model.initial((500,), range(100), sigma_max=5.0, dtype=torch.float64)
    assert float(x.std()) == pytest.approx(5.0, rel=0.02)


def test_initial_noise_is_where_the_weights_are() -> None:
    assert Denoiser(nn.Linear(2, 2, device="meta"), VPLinear()).device.type == "meta"
    assert Denoiser(lambda x, t: x, VPLinear()).initial((2,), [0]).device.type == "cpu"


# ------------------------------------------------------------------------------------ conditions


def test_which_conditions_belong_to_samples() -> None:
    rows, shared = torch.arange(3), torch.arange(5)
    conditions = {"labels": rows, "context": Unbatched(shared), "scale": 2.0, "mode": None}
    assert is_batched(rows)
    assert not is_batched(torch.tensor(1.0))
    check_conditions(conditions, 3)
    chosen = select_rows(conditions, torch.tensor([2, 0]))
    assert chosen["labels"].tolist() == [2, 0]
    assert chosen["context"].value is shared
    with pytest.raises(ValueError, match=r"'labels' has 3 rows for 4 samples.*Unbatched"):
        check_conditions(conditions, 4)


def test_a_shared_condition_reaches_the_network_as_it_is() -> None:
    given: list[Any] = []

    def network(x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        given.append(conditions)
        return x

    shared = torch.arange(5)
    sample(
        Denoiser(network, VPLinear()), normal(3, 2), steps=1,
        conditions={"context": Unbatched(shared), "labels": torch.arange(3)},
    )  # fmt: skip
    assert given[0]["context"] is shared
    assert given[0]["labels"].tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------- what it says


def test_it_says_what_it_is() -> None:
    model = Denoiser(
        nn.Linear(3, 2), VPDiscrete.linear(), "v", time_scale=1000, correction=clip(1.0)
    )
    text = repr(model)
    for fact in (
        "Linear with 8 weights",
        "VPDiscrete(1000 steps",
        "v_prediction",
        "1000",
        "Clipping(",
    ):
        assert fact in text
    assert "<th>schedule</th>" in model._repr_html_()


def test_it_can_be_pickled() -> None:
    model = pickle.loads(pickle.dumps(Denoiser(nn.Linear(2, 2), VPLinear(), "sample")))
    x, t = torch.zeros(1, 2), torch.ones(1)
    assert model.with_network(lambda x, t: x + 1).data(x, t).tolist() == [[1.0, 1.0]]


def test_info_counts_the_evaluations_and_keeps_the_trajectory_if_asked() -> None:
    calls = 0

    def network(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x / 2

    model, x_T = Denoiser(network, VPLinear()), normal(3, 2)
    info = sample(model, x_T, sampler="heun", steps=4, return_info="trajectory")
    assert info.nfe == calls
    assert info.rejected == 0
    assert len(info.trajectory) == info.nfe + 1
    assert torch.equal(info.trajectory[0], x_T)
    assert torch.equal(info.trajectory[-1], info.x_0)
    plain = sample(model, x_T, sampler="heun", steps=4, return_info=True)
    assert plain.trajectory == ()
    assert torch.equal(plain.x_0, sample(model, x_T, sampler="heun", steps=4))
