"""The scale of the data: measured, and an error relative to it that does not depend on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from samplers.choices import DEFAULT_SAMPLER
from samplers.data_scale import measure_data_scale
from samplers.denoiser import Denoiser
from samplers.diffusers.config import read_config
from samplers.diffusers_scheduler import SamplerScheduler
from samplers.grid import make_grid
from samplers.sampling import sample
from samplers.schedule import EDM, FlowMatching, Schedule, VPDiscrete
from tests.mixture import PLANE

SEEDS = range(64)
ROOT_MEAN_SQUARE = float((PLANE.covariance.trace() / 2 + PLANE.mean.square().mean()).sqrt())


def model_of(scale: float, schedule: Schedule | None = None) -> Denoiser:
    data = PLANE.affine(scale, torch.zeros(2, dtype=torch.float64))
    return data.model(schedule or EDM(0.002 * scale, 80 * scale), "sample")


def noise_of(model: Denoiser) -> Tensor:
    return model.initial((2,), SEEDS, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.05, 1, 40])
@pytest.mark.parametrize("schedule", [VPDiscrete.linear(), EDM(0.001, 1000)], ids=["VP", "EDM"])
def test_it_is_measured_whatever_the_schedule(scale: float, schedule: Schedule) -> None:
    model = model_of(scale, schedule)
    measured = measure_data_scale(model, noise_of(model))
    assert measured == pytest.approx(scale * ROOT_MEAN_SQUARE, rel=0.35)  # eight samples


def test_a_flow_that_was_trained_down_to_clean_data_is_measured() -> None:
    model = model_of(3, FlowMatching(u_min=0))
    measured = measure_data_scale(model, noise_of(model))
    assert measured == pytest.approx(3 * ROOT_MEAN_SQUARE, rel=0.35)


@pytest.mark.parametrize("shape", [(), (0, 2)])
def test_noise_without_rows_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give a row for each sample"):
        measure_data_scale(model_of(1), torch.zeros(shape))


def test_samples_that_are_zero_have_no_scale() -> None:
    model = Denoiser(lambda x, t: torch.zeros_like(x), EDM(), "sample")
    with pytest.raises(ValueError, match="can't be measured"):
        measure_data_scale(model, noise_of(model))


def test_conditions_have_their_rows() -> None:
    def network(x: Tensor, t: Tensor, size: Tensor) -> Tensor:
        return torch.zeros_like(x) + size[:, None]

    model = Denoiser(network, EDM(), "sample")
    size = torch.full((64,), 7.0)
    assert measure_data_scale(model, noise_of(model), {"size": size}) == pytest.approx(7)


@pytest.mark.parametrize("scale", [0.05, 40])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_relative_errors_do_not_depend_on_it(scale: float, steps: int) -> None:
    plain, scaled = model_of(1), model_of(scale).with_data_scale(scale)
    one, other = (sample(model, noise_of(model), steps=steps) for model in (plain, scaled))
    torch.testing.assert_close(other, scale * one, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("scale", [0.05, 40])
def test_samples_of_another_scale_are_told_of(scale: float) -> None:
    model = model_of(scale)
    x_T = noise_of(model)
    with pytest.warns(UserWarning, match="model.with_data_scale"):
        sample(model, x_T, steps=10)
    sample(model, x_T, steps=10, grid="log-snr")
    sample(model, x_T, steps=10, sigma_min=scale, final="sigma_min")  # not finished
    sample(model.with_data_scale(scale), x_T, steps=10)


def test_the_shift_of_a_flow_keeps_it() -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    settings = read_config(SamplerScheduler.from_config(config, data_scale=4.0))
    assert settings.shifted_by(1.2).schedule.data_scale == 4.0


def test_a_model_shows_it() -> None:
    assert "data_scale: 40" in repr(model_of(1).with_data_scale(40))
    assert "data_scale" not in repr(model_of(1))


def test_a_scheduler_has_it_in_its_config() -> None:
    scheduler = SamplerScheduler(data_scale=40.0)
    again = SamplerScheduler.from_config(dict(scheduler.config))
    assert isinstance(again, SamplerScheduler)
    again.set_timesteps(5)
    expected = make_grid(VPDiscrete.linear().with_data_scale(40.0), 5)
    torch.testing.assert_close(again.sigmas.double(), expected.points.rho, rtol=1e-6, atol=0)
    assert again.config.sampler == DEFAULT_SAMPLER
