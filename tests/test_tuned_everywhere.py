"""A tuned sampler goes wherever a sampler's name goes, and gives the samples of ``sample``."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline
from torch import Tensor

from adjoint import (
    BacksolveAdjoint,
    CheckpointAdjoint,
    ContinuousAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
)
from samplers import (
    Guidance,
    InverseProblem,
    Replacement,
    SamplerScheduler,
    TunedSampler,
    inpainting,
    sample,
    solve_inverse_problem,
)
from samplers.diffusers.config import read_config
from samplers.diffusers.denoiser import pipeline_denoiser
from samplers.sampling import Adjoint
from tests.scheduler_loops import FLOW, VP, made
from tests.tiny_checkpoints import unconditional
from tests.tiny_tuned import as_if_tuned

diffusers.utils.logging.set_verbosity_error()
EDM_CONFIG = {**diffusers.EDMEulerScheduler().config, "_class_name": "EDMEulerScheduler"}
SHIFTED = {**FLOW, "use_dynamic_shifting": True}


def network(x: Tensor, t: Tensor) -> Tensor:
    """A network whose output depends on the time, one for all samples or one for each."""
    return torch.tanh(x) + 0.1 * torch.cos(t / 100).reshape(-1, 1, 1)


def noise(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(0))


def run(
    scheduler: SamplerScheduler, x: Tensor, steps: int | None = None, **settings: Any
) -> Tensor:
    """The loop of a pipeline."""
    scheduler.set_timesteps(steps, **settings)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
    return x


def tuned_for(config: dict[str, Any], nfe: int = 4) -> TunedSampler:
    return as_if_tuned(read_config(config).schedule, nfe)


# The scheduler


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("config", [VP, FLOW, EDM_CONFIG], ids=lambda c: c["_class_name"])
def test_a_scheduler_samples_the_same(config: dict[str, Any], steps: int | None) -> None:
    tuned = tuned_for(config)
    scheduler = made(config, sampler=tuned)
    x_T = scheduler.init_noise_sigma * noise()
    expected = sample(read_config(config).denoiser(network), x_T, sampler=tuned)
    torch.testing.assert_close(run(scheduler, x_T, steps), expected, rtol=1e-5, atol=1e-6)
    assert scheduler.order == 1
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == 4


def test_it_does_not_depend_on_the_size_of_an_image() -> None:
    scheduler = made(SHIFTED, sampler=tuned_for(FLOW))
    found = [run(scheduler, noise(), mu=mu) for mu in (0.5, 1.2)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_config_holds_plain_values_and_gives_the_sampler_back(tmp_path: Path) -> None:
    tuned = tuned_for(VP)
    scheduler = made(VP, sampler=tuned)
    scheduler.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert config["sampler"] == tuned.to_dict()
    loaded = SamplerScheduler.from_pretrained(tmp_path)
    for other in (loaded, made(scheduler), copy.deepcopy(scheduler), SamplerScheduler(tuned)):
        assert TunedSampler.from_dict(other.config.sampler).to_json() == tuned.to_json()
    assert torch.equal(run(loaded, noise()), run(scheduler, noise()))


def test_a_scheduler_of_diffusers_carries_it_along() -> None:
    scheduler = made(VP, sampler=tuned_for(VP))
    theirs = DDIMScheduler.from_config(scheduler.config)
    theirs.set_timesteps(4)
    assert torch.equal(run(made(theirs), noise()), run(scheduler, noise()))
    assert made(theirs, sampler="ddim").config.sampler == "ddim"


def test_another_sampler_takes_its_place() -> None:
    scheduler = made(made(VP, sampler=tuned_for(VP)), sampler="ddim")
    assert torch.equal(run(scheduler, noise(), 5), run(made(VP, sampler="ddim"), noise(), 5))


def test_settings_of_a_grid_in_the_config_are_not_used() -> None:
    spaced = {**VP, "use_karras_sigmas": True, "timestep_spacing": "linspace"}
    spaced["_class_name"] = "EulerDiscreteScheduler"
    tuned = tuned_for(VP)
    found = run(made(spaced, sampler=tuned), noise())
    torch.testing.assert_close(found, run(made(VP, sampler=tuned), noise()))


@pytest.mark.parametrize(
    ("chosen", "steps", "why"),
    [
        ({}, {"num_inference_steps": 5}, "tuned for 4 steps, and 5 came"),
        ({}, {"timesteps": [900, 500]}, "timesteps came to a tuned sampler"),
        ({}, {"sigmas": [9.0, 5.0]}, "sigmas came to a tuned sampler"),
        ({"grid": "karras"}, {}, "grid came with a tuned sampler"),
        ({"sigma_max": 5.0}, {}, "sigma_max came with a tuned sampler"),
        ({"sampler_options": {"eta": 0.5}}, {}, "The options eta came with a tuned sampler"),
        ({"sampler": tuned_for(EDM_CONFIG)}, {}, "was tuned for a network trained from"),
        ({"sampler": {"format": "x"}}, {}, "neither a name nor a tuned one"),
    ],
)
def test_what_it_can_not_do_is_refused(
    chosen: dict[str, Any], steps: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        made(VP, **{"sampler": tuned_for(VP), **chosen}).set_timesteps(**steps)


def test_no_run_begins_in_its_middle() -> None:
    scheduler = made(VP, sampler=tuned_for(VP))
    scheduler.set_timesteps(4)
    scheduler.set_begin_index(0)
    with pytest.raises(ValueError, match="runs from pure noise only"):
        scheduler.set_begin_index(1)


def test_a_saved_pipeline_samples_the_same(tmp_path: Path) -> None:
    pipe: Any = DDPMPipeline.from_pretrained(
        unconditional(tmp_path / "plain", DDIMScheduler(clip_sample=False))
    )
    tuned = as_if_tuned(read_config(pipe.scheduler).schedule)
    pipe.scheduler = made(pipe.scheduler, sampler=tuned)
    pipe.save_pretrained(tmp_path / "saved")
    again: Any = DDPMPipeline.from_pretrained(tmp_path / "saved")
    found = [
        own(
            generator=torch.Generator().manual_seed(3), num_inference_steps=4, output_type="np"
        ).images
        for own in (pipe, again)
    ]
    assert (found[0] == found[1]).all()
    x_T = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = sample(pipeline_denoiser(pipe), x_T, sampler=tuned)
    images = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.from_numpy(found[0]), images, rtol=1e-5, atol=1e-5)


# Adjoints and inverse problems


def learned(x: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    return torch.tanh(weight * x) + 0.1 * torch.cos(t / 100).reshape(-1, 1, 1)


@pytest.mark.parametrize(
    "adjoint",
    [CheckpointAdjoint(), CheckpointAdjoint(keep=2), CheckpointAdjoint(split=2), DirectAdjoint()],
    ids=repr,
)
@pytest.mark.parametrize("config", [VP, FLOW, EDM_CONFIG], ids=lambda c: c["_class_name"])
def test_gradients_are_those_of_autograd(config: dict[str, Any], adjoint: Adjoint) -> None:
    model = read_config(config).denoiser(learned)
    x = noise().double().requires_grad_()
    weight = torch.tensor([[[0.7]], [[0.8]]], dtype=torch.float64, requires_grad=True)
    by_autograd, by_adjoint = (
        torch.autograd.grad(
            sample(model, x, sampler=tuned_for(config), conditions={"weight": weight}, adjoint=how)
            .sin()
            .sum(),
            [x, weight],
        )
        for how in (None, adjoint)
    )
    torch.testing.assert_close(by_adjoint, by_autograd, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("adjoint", "why"),
    [
        (ReversibleAdjoint(), "can't be solved for the previous point; take o-belm"),
        (ContinuousAdjoint(), "is not its prediction of x_0"),
        (BacksolveAdjoint(), "is not its prediction of x_0"),
    ],
)
def test_adjoints_of_other_samplers_say_so(adjoint: Adjoint, why: str) -> None:
    model = read_config(VP).denoiser(network)
    with pytest.raises(ValueError, match=why):
        sample(model, noise().requires_grad_(), sampler=tuned_for(VP), adjoint=adjoint)


@pytest.mark.parametrize("method", [Guidance(), Replacement()], ids=repr)
def test_inverse_problems_are_solved_with_it(method: Guidance | Replacement) -> None:
    """What is measured without noise is found exactly."""
    model = read_config(VP).denoiser(network)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1] = True
    x_0 = 0.3 * noise().double()
    problem = InverseProblem(inpainting(mask, (3, 4)), x_0 * mask)
    with torch.no_grad():
        found = solve_inverse_problem(
            model, noise().double(), problem, sampler=tuned_for(VP), method=method, seeds=(0, 1)
        )
    assert bool(found.isfinite().all())
    if isinstance(method, Replacement):
        torch.testing.assert_close(found[:, mask], x_0[:, mask])


# Other weights, another guidance


def test_it_warns_of_another_purpose() -> None:
    tuned = as_if_tuned(read_config(VP).schedule, weights="own", guidance=2.0)
    with pytest.warns(UserWarning, match="tuned for") as said:
        tuned.check_purpose("other", 3.0)
    assert [str(warning.message).partition(";")[0] for warning in said] == [
        "The sampler was tuned for other weights than those of this checkpoint",
        "The sampler was tuned for a guidance of 2, and this one is 3",
    ]
    assert all(warning.filename == __file__ for warning in said)
    with pytest.warns(UserWarning, match="guidance of 2, and this one is 2 between 0.3 and 3"):
        tuned.check_purpose("own", 2.0, (0.3, 3.0))
    with pytest.warns(UserWarning, match="and this one is 2 from 0.3 on"):
        tuned.check_purpose("own", 2.0, (0.3, math.inf))
    tuned.check_purpose("own", 2.0)
    tuned.check_purpose()
    as_if_tuned(read_config(VP).schedule).check_purpose("any")
