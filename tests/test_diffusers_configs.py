"""What a scheduler config means: its class, its keys, and what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from samplers import SamplerScheduler
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.diffusers.classes import KNOWN_CLASSES, class_name
from samplers.diffusers.config import read_config
from tests.scheduler_loops import made

diffusers.utils.logging.set_verbosity_error()

# Some schedulers of diffusers hand torch tensors to numpy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

# Scheduler classes that can be made without arguments but are not known here.
UNKNOWN = [
    "CosineDPMSolverMultistepScheduler",
    "DDIMInverseScheduler",
    "DDPMWuerstchenScheduler",
    "DPMSolverMultistepInverseScheduler",
    "FlowMapEulerDiscreteScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "IPNDMScheduler",
    "KarrasVeScheduler",
    "MiniMaxH3Scheduler",
    "PiflowScheduler",
    "RePaintScheduler",
    "SCMScheduler",
]

AMBIGUOUS = ("FlowMatchHeunDiscreteScheduler", "LCMScheduler", "TCDScheduler")


# The class of a config


@pytest.mark.parametrize("name", UNKNOWN)
def test_classes_that_are_not_known_are_refused_not_guessed(name: str) -> None:
    theirs = getattr(diffusers, name)()
    with pytest.raises(ValueError, match=f"{name}|keys are not those of a known one"):
        made(theirs.config)
    with pytest.raises(ValueError, match=f"class '{name}', whose noise schedule is not known"):
        made(theirs)


@pytest.mark.parametrize("name", [n for n in KNOWN_CLASSES if n not in AMBIGUOUS])
def test_keys_determine_the_meaning_of_a_config_without_a_class(name: str) -> None:
    theirs = getattr(diffusers, name)()
    from_keys, from_class = read_config(theirs.config), read_config(theirs)
    assert from_keys.prediction == from_class.prediction
    grids = [settings.shifted_by(0.5).grid(4) for settings in (from_keys, from_class)]
    assert grids[0].points.sigma.tolist() == grids[1].points.sigma.tolist()


def test_the_compatible_classes_are_those_that_can_be_read() -> None:
    every = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    assert set(SamplerScheduler._compatibles) <= every
    for name in SamplerScheduler._compatibles:
        assert made(getattr(diffusers, name)()).config.schedule
    for name in every - set(SamplerScheduler._compatibles):
        with pytest.raises(ValueError, match="is not known here; keep the pipeline's own") as why:
            made({"_class_name": name})
        assert str(why.value).count("Scheduler") <= 2 + name.count("Scheduler"), "no long list"


def test_an_unknown_argument_is_refused_without_a_long_list() -> None:
    with pytest.raises(ValueError, match="has no argument 'wombats'") as why:
        made(diffusers.DDIMScheduler(), wombats=3)
    assert len(str(why.value)) < 100


# What belongs to other classes


def test_private_attributes_of_other_classes_are_refused_in_a_sentence() -> None:
    """Cosmos sets back the step index, LEdits++ reads variances."""
    scheduler = SamplerScheduler()
    for name in ("_step_index", "_get_variance", "_init_step_index", "_get_conditioning_c_in"):
        assert not hasattr(scheduler, name)
        with pytest.raises(AttributeError, match=f"no attribute '{name}'; a pipeline that uses it"):
            getattr(scheduler, name)
    assert scheduler.config.sampler == DEFAULT_SAMPLER


def test_arguments_of_other_classes_are_refused_in_a_sentence() -> None:
    scheduler = SamplerScheduler()
    with pytest.raises(ValueError, match="with 'jump_length', which SamplerScheduler does not"):
        scheduler.set_timesteps(4, jump_length=10)
    scheduler.set_timesteps(4)
    x, t = torch.zeros(1, 2), scheduler.timesteps[0]
    for name in ("per_token_timesteps", "variance_noise"):
        with pytest.raises(ValueError, match=f"with '{name}', which SamplerScheduler does not"):
            scheduler.step(x, t, x, **{name: torch.zeros(1)})
    assert scheduler.step(x, t, x, variance_noise=None).prev_sample.shape == x.shape


def test_keys_that_fit_classes_of_different_meaning_are_refused() -> None:
    """FlowMapEuler's network is given two times, FlowMatchHeun's one; their keys are the same."""
    theirs = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    with pytest.raises(ValueError, match="or FlowMatchHeunDiscreteScheduler; pass the sch"):
        made(theirs.config)
    assert made(theirs).config.shift == 3.0
    assert made({**theirs.config, "_class_name": type(theirs).__name__}).config.shift == 3.0


def test_a_key_that_no_class_has_makes_a_config_without_a_class_unclear() -> None:
    theirs = diffusers.EulerDiscreteScheduler()
    with pytest.raises(ValueError, match="names no class"):
        made({**theirs.config, "noise_tilt": 0.1})


def test_a_class_derived_from_a_known_one_is_not_that_one() -> None:
    class Tilted(diffusers.EulerDiscreteScheduler):  # type: ignore[misc]
        pass

    with pytest.raises(ValueError, match="class 'Tilted'"):
        made(Tilted())


def test_a_converted_scheduler_names_its_class_without_being_saved() -> None:
    ours = made(diffusers.DDIMScheduler().config, sampler="heun")
    assert class_name(ours.config) == "SamplerScheduler"
    assert class_name(SamplerScheduler().config) == "SamplerScheduler"
    back = diffusers.DDIMScheduler.from_config(ours.config, clip_sample_range=2.0)
    assert class_name(back.config) == "DDIMScheduler"
    assert made(back.config).config.clip_sample_range == 2.0


def test_what_is_not_a_config_is_refused() -> None:
    for wrong in (None, "folder", 3):
        with pytest.raises(ValueError, match="pass a scheduler or its config"):
            made(wrong)  # type: ignore[arg-type]


# Keys that are carried along from other classes

# A value for each key that is no class's default.
ODD = {
    "clip_sample": True,
    "clip_sample_range": 3.0,
    "dynamic_thresholding_ratio": 0.9,
    "sample_max_value": 2.0,
    "sigma_min": 0.05,
    "sigma_max": 40.0,
    "shift": 3.0,
    "flow_shift": 2.0,
    "set_alpha_to_one": False,
    "variance_type": "fixed_large",
    "sigma_data": 0.7,
    "final_sigmas_type": "sigma_min",
}


@pytest.mark.parametrize("first", ["DDPMScheduler", "EDMEulerScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize(
    "second", ["EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "LCMScheduler"]
)
def test_keys_of_other_classes_survive_the_conversion(first: str, second: str) -> None:
    """Through a second class and this package back to the first."""
    one, two = getattr(diffusers, first), getattr(diffusers, second)
    keys = {key: value for key, value in ODD.items() if key in one().config}
    between = two.from_config({**one(**keys).config, "_class_name": first})
    back = one.from_config(made(between, sampler="ddim").config)
    assert {key: back.config[key] for key in keys} == keys


def test_carried_keys_are_not_read() -> None:
    config = {"_class_name": "PNDMScheduler", "clip_sample": True, "shift": 7.0, "other": 1}
    ours = made(config)
    assert read_config(config).correction is None
    assert read_config(ours).correction is None
    assert ours.config.carried == ["clip_sample", "shift"]
    assert (ours.config.clip_sample, ours.config["other"]) == (True, 1)
    assert read_config(made(ours)).correction is None


def test_an_argument_is_read_even_where_the_key_was_carried() -> None:
    config = {"_class_name": "PNDMScheduler", "clip_sample": True}
    assert read_config(made(config, clip_sample=True)).correction is not None
    assert read_config(made(made(config), clip_sample=True)).correction is not None


def test_a_sigma_max_that_a_flow_config_carries_is_not_that_of_the_grid() -> None:
    """As in Cosmos, whose pipelines write theirs into the config."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "sigma_max": 80.0}
    ours = made(config)
    assert ours.config.sigma_max == 80.0
    ours.set_timesteps(4)
    assert ours.sigmas.tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_a_saved_scheduler_still_carries_them(tmp_path: Any) -> None:
    config = {"_class_name": "EulerDiscreteScheduler", "clip_sample_range": 3.0, "shift": 7.0}
    made(config).save_pretrained(tmp_path)
    loaded = SamplerScheduler.from_pretrained(tmp_path)
    assert diffusers.DDPMScheduler.from_config(loaded.config).config.clip_sample_range == 3.0


# The variance of ancestral sampling


def exact_eps(scheduler: Any, x: Tensor, t: Tensor) -> Tensor:
    """The noise that is expected in x, for data of standard deviation 0.5."""
    kept = scheduler.alphas_cumprod[int(t)].double()
    return x * (1 - kept).sqrt() / (kept / 4 + 1 - kept)


@pytest.mark.parametrize(("variance", "std"), [("fixed_small", 0.330), ("fixed_large", 0.592)])
def test_the_variance_of_the_config_is_that_of_ancestral_sampling(
    variance: str, std: float
) -> None:
    """Ten steps are DDPM's own: 0.330 and 0.592 where the data have 0.5."""
    theirs = diffusers.DDPMScheduler(variance_type=variance, clip_sample=False)
    theirs.set_timesteps(10)
    ours = made(theirs, sampler="ancestral")
    ours.set_timesteps(timesteps=theirs.timesteps)
    x_T = torch.randn(20_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = []
    for scheduler in (theirs, ours):
        x, generator = x_T, torch.Generator().manual_seed(1)
        for t in scheduler.timesteps:
            x = scheduler.step(exact_eps(theirs, x, t), t, x, generator=generator).prev_sample
        ends.append(float(x.std()))
    assert ends == pytest.approx([std, std], rel=0.02)


def test_the_variance_may_be_chosen_and_a_learned_one_must_be() -> None:
    config = {"_class_name": "DDPMScheduler", "variance_type": "learned_range"}
    assert made(config, sampler="dpmpp-2m").config.variance_type == "learned_range"
    with pytest.raises(ValueError, match="predicts the variance of its noise"):
        made(config, sampler="ancestral")
    chosen = made(config, sampler="ancestral", sampler_options={"variance": "large"})
    chosen.set_timesteps(4)
    large = made({**config, "variance_type": "fixed_large"}, sampler="ancestral")
    large.set_timesteps(4)
    for row, other in zip(chosen.tableau.rows, large.tableau.rows, strict=True):
        assert torch.equal(row.noise, other.noise)
    with pytest.raises(ValueError, match="variance_type is 'fixed_large_log'"):
        made({**config, "variance_type": "fixed_large_log"})


# Keys that change the result


def test_every_key_of_a_known_class_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "diffusers.md").read_text()
    for name in KNOWN_CLASSES:
        keys = inspect.signature(getattr(diffusers, name)).parameters
        assert [key for key in keys if f"`{key}`" not in page] == []


DISTILLED = {"_class_name": "LCMScheduler"}
CHOSEN: dict[str, dict[str, Any]] = {
    "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    "flow-sigmas": {
        "_class_name": "UniPCMultistepScheduler",
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
    },
    "karras": {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
    "exponential": {"_class_name": "HeunDiscreteScheduler", "use_exponential_sigmas": True},
    "lu": {"_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": True},
    "edm-exponential": {"_class_name": "EDMEulerScheduler", "sigma_schedule": "exponential"},
    "lcm": DISTILLED,
    "consistency": {"_class_name": "CMStochasticIterativeScheduler"},
    "mean-reverting": {"_class_name": "SamplerScheduler", "schedule": "mean-reverting"},
}
PLAIN: dict[str, dict[str, Any]] = {
    "betas": {"_class_name": "DDIMScheduler"},
    "trailing": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    "edm": {"_class_name": "EDMEulerScheduler"},
    "ve": {"_class_name": "ScoreSdeVeScheduler"},
}


def _levels(config: dict[str, Any], **arguments: Any) -> Tensor:
    scheduler = made(config, **arguments)
    scheduler.set_timesteps(6)
    return scheduler.sigmas


@pytest.mark.parametrize("name", CHOSEN)
def test_a_grid_that_belongs_to_the_network_or_was_chosen_is_the_default(name: str) -> None:
    assert read_config(CHOSEN[name]).default_spacing == "config"
    assert torch.equal(_levels(CHOSEN[name]), _levels(CHOSEN[name], grid="config"))


@pytest.mark.parametrize("name", PLAIN)
def test_all_others_have_the_default_of_sample(name: str) -> None:
    assert read_config(PLAIN[name]).default_spacing == DEFAULT_SPACING
    default = _levels(PLAIN[name])
    assert torch.equal(default, _levels(PLAIN[name], grid=DEFAULT_SPACING))
    assert not torch.equal(default, _levels(PLAIN[name], grid="config"))


def test_a_network_with_the_sampler_of_distilled_ones_has_the_grid_of_its_config() -> None:
    config = {"_class_name": "DDIMScheduler"}
    assert torch.equal(
        _levels(config, sampler="lcm"), _levels(config, sampler="lcm", grid="config")
    )


def test_before_timesteps_are_set_they_are_those_of_training() -> None:
    expected = torch.arange(999, -1, -1).float()
    assert torch.equal(made(PLAIN["trailing"]).timesteps, expected)


CLIPPED = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "DPMSolverSinglestep", "SASolver"])
def test_a_clipped_log_snr_is_where_the_grid_starts(name: str) -> None:
    theirs = getattr(diffusers, f"{name}Scheduler")(**CLIPPED)
    theirs.set_timesteps(10)
    ours = made(theirs, grid="config")
    ours.set_timesteps(10)
    assert ours.timesteps[0] == theirs.timesteps[0] < 999
    ours = made(theirs, grid="karras")
    ours.set_timesteps(10)
    assert float(ours.sigmas[0]) == pytest.approx(164.0, rel=1e-3)
    ours = made(theirs, grid="karras", sigma_max=50.0)
    ours.set_timesteps(10)
    assert float(ours.sigmas[0]) == pytest.approx(50.0, rel=1e-3)


def test_flow_times_are_not_clipped() -> None:
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    ours = made(diffusers.DPMSolverMultistepScheduler(**flow, lambda_min_clipped=-5.1))
    ours.set_timesteps(4)
    assert ours.sigmas[0] == 1


def test_a_clipped_prediction_changes_the_noise_as_well() -> None:
    """As DDIM's does with use_clipped_model_output."""
    theirs = diffusers.DDIMScheduler(clip_sample=True)
    theirs.set_timesteps(10)
    ours = made(theirs, sampler="ddim")
    ours.set_timesteps(timesteps=theirs.timesteps)
    x = y = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        y = theirs.step(torch.tanh(y), t, y, use_clipped_model_output=True).prev_sample
    for t in ours.timesteps:
        x = ours.step(torch.tanh(x), t, x).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_without_alpha_to_one_the_noise_of_the_first_step_remains() -> None:
    theirs = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    theirs.set_timesteps(10)
    ours = made(theirs, sampler="ddim")
    ours.set_timesteps(timesteps=theirs.timesteps)
    x = y = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        y = theirs.step(torch.tanh(y), t, y).prev_sample
    for t in ours.timesteps:
        eps = torch.tanh(x)
        x = ours.step(eps, t, x).prev_sample
    first = theirs.alphas_cumprod[0].double()
    torch.testing.assert_close(first.sqrt() * x + (1 - first).sqrt() * eps, y, rtol=1e-5, atol=1e-5)


def test_keys_without_a_counterpart_are_refused() -> None:
    with pytest.raises(ValueError, match="rho=5"):
        made({"_class_name": "EDMEulerScheduler", "rho": 5.0})
    config = {"_class_name": "EDMEulerScheduler", "rho": 5.0, "sigma_schedule": "exponential"}
    assert made(config).config.sigma_schedule == "exponential"
    with pytest.raises(ValueError, match="scale_factors"):
        made({"_class_name": "FlowMatchLCMScheduler", "scale_factors": [0.5, 1.0]})


@pytest.mark.parametrize("name", [n for n in KNOWN_CLASSES if n != "UnCLIPScheduler"])
def test_absurd_numbers_of_trained_steps_are_refused(name: str) -> None:
    for steps in (0, 1_000_001, 10**12):
        config = {"_class_name": name, "num_train_timesteps": steps}
        with pytest.raises(ValueError, match=f"num_train_timesteps is {steps}; it must be"):
            read_config(config)


# Legitimate settings


def test_a_flow_of_one_training_step_is_given_t_itself() -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=3.0)
    ours = made(theirs)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)
    ours.set_timesteps(4)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)


@pytest.mark.parametrize("dynamic", [False, True])
def test_timesteps_and_sigmas_together_are_those_of_network_and_steps(dynamic: bool) -> None:
    """As CogView4 passes them: levels from the shifted sigmas, timesteps as they are."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
    ours = made(theirs, sampler="ddim")
    given = [1000.0, 750.0, 500.0, 250.0]
    x = y = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(timesteps=given, sigmas=[t / 1000 for t in given], mu=0.7)
    assert ours.timesteps.tolist() == given
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)
    for t in theirs.timesteps:
        y = theirs.step(torch.tanh(y) + t / 1000, t, y).prev_sample
    for t in ours.timesteps:
        x = ours.step(torch.tanh(x) + t / 1000, t, x).prev_sample
    torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_timesteps_and_sigmas_together_need_a_level_for_each_evaluation() -> None:
    given: dict[str, Any] = {"timesteps": [900.0, 500.0], "sigmas": [0.9, 0.5]}
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    heun = made(flow, sampler="heun")
    heun.set_timesteps(**given)
    assert heun.timesteps.tolist() == [900, 500, 500]
    with pytest.raises(ValueError, match="between the sigmas"):
        made(flow, sampler="midpoint").set_timesteps(**given)
    with pytest.raises(ValueError, match="2 timesteps and 1 sigmas"):
        made(flow).set_timesteps(timesteps=[900.0, 500.0], sigmas=[0.9])
    with pytest.raises(ValueError, match="which only flow models take"):
        made({"_class_name": "DDIMScheduler"}).set_timesteps(**given)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_grid_of_trained_steps_may_start_lower(spacing: str) -> None:
    ours = made({"_class_name": "DDIMScheduler", "timestep_spacing": spacing}, sigma_max=10.0)
    assert len(ours.timesteps) == 1000
    ours.set_timesteps(10)
    assert 5 < float(ours.sigmas[0]) <= 10
    with pytest.raises(ValueError, match="sigma_max is 1000"):
        made({"_class_name": "DDIMScheduler"}, sigma_max=1000.0)


def test_the_next_timestep_may_be_named() -> None:
    """As Kandinsky's priors do."""
    ours = made(diffusers.UnCLIPScheduler(prediction_type="sample"), sampler="ddim")
    ours.set_timesteps(3)
    x, steps = torch.randn(2, 8), ours.timesteps
    ours.step(x, steps[0], x, prev_timestep=steps[1])
    with pytest.raises(ValueError, match="index 1 came, but 2 is the next"):
        ours.step(x, steps[1], x, prev_timestep=steps[1])
    ours.set_timesteps(1)
    ours.step(x, ours.timesteps[0], x, prev_timestep=None)
