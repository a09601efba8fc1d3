"""The scheduler's contract with pipelines, tested without one: closed forms and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from samplers import SamplerScheduler, list_samplers
from samplers.diffusers.classes import KNOWN_CLASSES
from samplers.diffusers.config import read_config
from samplers.grid import Grid, make_grid
from samplers.noise import RowNoise, sample_seeds
from samplers.registry import get_sampler
from samplers.schedule import EDMPreconditioned, FlowMatching, Point, VPDiscrete, VPLinear
from samplers.solve import Solver, make_noise
from tests.scheduler_loops import FLOW, VP, made, network, noise

diffusers.utils.logging.set_verbosity_error()

# Some schedulers of diffusers hand torch tensors to numpy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Edit = Callable[[int, Tensor], Tensor]

WITH_BETAS = [name for name, kind in KNOWN_CLASSES.items() if kind == "vp"]
SINGLE_CALL = [name for name in list_samplers("fixed-grid") if get_sampler(name).calls == 1]
SEVERAL_CALLS = [name for name in list_samplers("fixed-grid") if get_sampler(name).calls > 1]
ALONE = [
    name
    for name in list_samplers("fixed-grid")
    if get_sampler(name).tableau(make_grid(VPLinear(), 3)).batch_invariant
]
STOCHASTIC = [name for name in list_samplers("fixed-grid") if get_sampler(name).stochastic]
ONE_STEP = [
    "ddim",
    "heun",
    "midpoint",
    "rk4",
    "dpm-solver-2",
    "dpm-solver-3",
    "dpmpp-2s",
    "dpmpp-3s",
]


def drive(
    scheduler: SamplerScheduler,
    x: Tensor,
    begin: int = 0,
    edit: Edit = lambda _, x: x,
    model: Callable[[Tensor, Tensor], Tensor] = network,
    **kwargs: Any,
) -> Tensor:
    """The loop of a pipeline over the timesteps that are set."""
    for i, t in enumerate(scheduler.timesteps[begin:]):
        x = scheduler.step(model(x, t), t, edit(i, x), **kwargs).prev_sample
    return x


def run(
    config: dict[str, Any], x: Tensor, steps: int = 4, sampler: str = "dpmpp-2m", **kwargs: Any
) -> Tensor:
    scheduler = made(config, sampler=sampler)
    scheduler.set_timesteps(steps)
    return drive(scheduler, x, **kwargs)


# Configs


@pytest.mark.parametrize("name", KNOWN_CLASSES)
def test_the_config_of_every_known_class_goes_there_and_back(name: str) -> None:
    theirs = getattr(diffusers, name)(num_train_timesteps=100)
    ours = made(theirs, sampler="ddim")
    back = type(theirs).from_config(ours.config)
    kept = {key: value for key, value in theirs.config.items() if key != "_use_default_values"}
    assert {key: back.config[key] for key in kept} == kept
    ours.set_timesteps(3, mu=0.5)
    assert len(ours.timesteps) == 3


def test_the_options_of_one_sampler_are_not_those_of_another() -> None:
    first = made(sampler="ancestral", sampler_options={"eta": 0.5}, grid="karras")
    assert made(first.config, sampler="heun").config.sampler_options is None
    assert made(first.config, sampler="heun").config.grid == "karras"
    assert made(first.config).config.sampler_options == {"eta": 0.5}
    assert made(first.config, sampler="ancestral").config.sampler_options == {"eta": 0.5}


@pytest.mark.parametrize("name", WITH_BETAS)
@pytest.mark.parametrize("saved", [False, True], ids=["constructed", "saved"])
def test_betas_are_those_of_the_source_class(name: str, saved: bool) -> None:
    """Also where keys are missing from the config, and classes have other defaults."""
    theirs = getattr(diffusers, name)()
    config: Any = {"_class_name": name} if saved else theirs
    torch.testing.assert_close(
        made(config).alphas_cumprod, theirs.alphas_cumprod.float(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": [0.1, 0.2, 0.3]},
        {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
    ],
    ids=str,
)
def test_every_way_to_give_betas(keys: dict[str, Any]) -> None:
    theirs = diffusers.DDPMScheduler(**keys)
    settings = read_config(theirs.config)
    assert isinstance(settings.schedule, VPDiscrete)
    torch.testing.assert_close(
        settings.schedule.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=1e-3, atol=1e-6
    )


def test_clipping_and_thresholding_follow_the_config() -> None:
    x0 = torch.tensor([[-3.0, 0.5, 2.0]])
    clipping = read_config({"_class_name": "DDIMScheduler", "clip_sample_range": 1.5}).correction
    assert clipping is not None
    assert clipping(x0).tolist() == [[-1.5, 0.5, 1.5]]
    config = {"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 2.0}
    threshold = read_config(config).correction
    assert threshold is not None
    assert float(threshold(x0).abs().max()) == 1.0


def test_flow_shift_of_a_multistep_scheduler_is_the_shift() -> None:
    theirs = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction"
    )
    ours = made(theirs.config)
    settings = read_config(theirs.config)
    assert ours.config.schedule == "flow"
    assert settings.schedule == FlowMatching(shift=5.0, u_min=1e-3)
    assert settings.prediction == "flow"
    assert settings.time_scale == 1000


def test_an_unknown_kind_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="class 'VQDiffusionScheduler', whose noise schedule"):
        made({"_class_name": "VQDiffusionScheduler"})
    with pytest.raises(ValueError, match="names no class"):
        made({"num_vec_classes": 3})
    with pytest.raises(ValueError, match="prediction type is 'trigflow'"):
        made({"_class_name": "DDIMScheduler", "prediction_type": "trigflow"})
    with pytest.raises(ValueError, match="beta schedule is 'wavy'"):
        made({"_class_name": "DDIMScheduler", "beta_schedule": "wavy"})
    with pytest.raises(ValueError, match="invert_sigmas"):
        made({**FLOW, "invert_sigmas": True})
    with pytest.raises(ValueError, match="schedule is 'vpp'"):
        SamplerScheduler(schedule="vpp")


def test_wrong_arguments_are_refused_with_the_nearest_right_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'heun'"):
        made(sampler="huen")
    with pytest.raises(ValueError, match="did you mean 'sampler'"):
        made(sampelr="ddim")
    with pytest.raises(ValueError, match="grid is 'karas'"):
        made(grid="karas")
    with pytest.raises(ValueError, match="no option 'zeta'"):
        made(sampler="ancestral", sampler_options={"zeta": 1}).set_timesteps(3)


def test_saved_and_loaded_it_is_the_same(tmp_path: Any) -> None:
    options: dict[str, Any] = {
        "sampler": "ancestral",
        "sampler_options": {"eta": 0.5},
        "grid": "karras",
    }
    before = made(sigma_min=0.05, **options)
    before.save_pretrained(tmp_path)
    after = SamplerScheduler.from_pretrained(tmp_path)
    for scheduler in (before, after):
        scheduler.set_timesteps(4)
    assert torch.equal(before.timesteps, after.timesteps)
    assert torch.equal(drive(before, noise()), drive(after, noise()))


# Prediction types and noise levels, against schedulers that run the same method


def pair(theirs: Any, sampler: str = "ddim", **ours: Any) -> tuple[Tensor, Tensor]:
    """Both finished samples of a pipeline's loop on the same times and noise."""
    scheduler = made(theirs.config, sampler=sampler)
    scheduler.set_timesteps(**ours)
    x = noise()
    mine = drive(scheduler, x * scheduler.init_noise_sigma)
    x = x * theirs.init_noise_sigma
    for t in theirs.timesteps:
        x = theirs.step(network(theirs.scale_model_input(x, t), t), t, x).prev_sample
    return mine, x


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_configs_equal_their_euler(prediction: str, sigma_data: float) -> None:
    theirs = diffusers.EDMEulerScheduler(prediction_type=prediction, sigma_data=sigma_data)
    theirs.set_timesteps(6)
    scheduler = made(theirs.config, sampler="ddim", grid="config")
    scheduler.set_timesteps(6)
    torch.testing.assert_close(scheduler.timesteps, theirs.timesteps.float())
    torch.testing.assert_close(scheduler.sigmas, theirs.sigmas, rtol=1e-5, atol=0)
    x = noise()
    mine, first = drive(scheduler, x), theirs.sigmas[0]
    x = x * (first**2 + sigma_data**2) ** 0.5
    for t in theirs.timesteps:
        x = theirs.step(network(theirs.scale_model_input(x, t), t), t, x).prev_sample
    torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-5)


def test_stable_video_diffusion_is_edm_with_unit_data() -> None:
    theirs = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    assert isinstance(read_config(theirs.config).schedule, EDMPreconditioned)
    theirs.set_timesteps(6)
    mine, reference = pair(theirs, num_inference_steps=6)
    torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler_configs_equal_their_euler_on_its_own_sigmas(prediction: str) -> None:
    theirs = diffusers.EulerDiscreteScheduler(prediction_type=prediction, use_karras_sigmas=True)
    theirs.set_timesteps(6)
    scheduler = made(theirs.config, sampler="euler")
    scheduler.set_timesteps(sigmas=theirs.sigmas)
    torch.testing.assert_close(scheduler.timesteps, theirs.timesteps, rtol=1e-3, atol=1e-2)
    x = noise()
    mine, first = drive(scheduler, x), theirs.sigmas[0]
    x = x * (first**2 + 1) ** 0.5
    for t, told in zip(theirs.timesteps, scheduler.timesteps, strict=True):
        x = theirs.step(network(theirs.scale_model_input(x, t), told), t, x).prev_sample
    torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-4)


def test_flow_matching_equals_its_euler_on_fluxs_sigmas() -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = np.linspace(1, 1 / 5, 5)
    theirs.set_timesteps(sigmas=sigmas, mu=0.9)
    scheduler = made(theirs.config, sampler="ddim")
    scheduler.set_timesteps(sigmas=sigmas, mu=0.9)
    torch.testing.assert_close(scheduler.timesteps, theirs.timesteps)
    torch.testing.assert_close(scheduler.sigmas, theirs.sigmas)
    x = noise()
    mine = drive(scheduler, x)
    for t, told in zip(theirs.timesteps, scheduler.timesteps, strict=True):
        x = theirs.step(network(x, told), t, x).prev_sample
    torch.testing.assert_close(mine, x, rtol=1e-5, atol=1e-5)


def test_variance_exploding_states_start_at_their_largest_sigma() -> None:
    config = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0}
    scheduler = made(config, sampler="ddim")
    scheduler.set_timesteps(5)
    assert scheduler.init_noise_sigma == pytest.approx(50)
    assert scheduler.timesteps[0] == pytest.approx(50)

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -(x - 2) / (t**2 + 0.25)  # of data drawn from N(2, 0.5^2)

    scheduler.set_timesteps(400)
    x = drive(scheduler, noise(500) * scheduler.init_noise_sigma, model=score)
    assert float(x.mean()) == pytest.approx(2, abs=0.1)
    assert float(x.std()) == pytest.approx(0.5, abs=0.05)


def test_flow_states_start_with_the_noise_that_they_have_there() -> None:
    """Below pure noise that is sigma; on data drawn from N(0, 0.5^2)."""
    scheduler = made({**FLOW, "shift": 1.0}, sampler="ddim", grid="log-snr", sigma_max=4.0)
    scheduler.set_timesteps(200)
    assert scheduler.init_noise_sigma == pytest.approx(0.8)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        sigma = t / 1000
        return x * (sigma - (1 - sigma) / 4) / (sigma**2 + (1 - sigma) ** 2 / 4)

    x = drive(scheduler, noise(5000) * scheduler.init_noise_sigma, model=velocity)
    assert float(x.std()) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("sampler", SINGLE_CALL)
def test_what_is_shown_of_x_0_may_be_changed(sampler: str) -> None:
    """A preview that clips it in place changes nothing of the run."""
    drawn = []
    for clip in (False, True):
        scheduler, x = made(sampler=sampler), noise()
        scheduler.set_timesteps(5)
        for t in scheduler.timesteps:
            out = scheduler.step(network(x, t), t, x, torch.Generator().manual_seed(0))
            if clip:
                out.pred_original_sample.zero_()
            x = out.prev_sample
        drawn.append(x)
    assert torch.equal(*drawn)


# Timesteps


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
def test_one_timestep_for_every_network_call(sampler: str) -> None:
    scheduler = made(sampler=sampler)
    scheduler.set_timesteps(5)
    calls = get_sampler(sampler).calls
    assert scheduler.order == calls
    assert scheduler.num_inference_steps == 5
    assert len(scheduler.timesteps) == 4 * calls + 1
    assert scheduler.timesteps.dtype == torch.float32
    assert scheduler.timesteps[0] == 999
    assert len(scheduler) == 1000


def test_corrector_steps_are_timesteps_too() -> None:
    options = {"corrector_steps": 2}
    scheduler = made(sampler="ancestral+annealed-langevin", sampler_options=options)
    assert scheduler.order == 3
    scheduler.set_timesteps(5)
    assert scheduler.order == 3
    assert len(scheduler.timesteps) == 4 * 3 + 1
    assert len(scheduler.timesteps.unique()) == 5


@pytest.mark.parametrize("begin", [0, 2])
def test_noise_along_a_path_is_that_of_the_library(begin: int) -> None:
    scheduler, x = made(sampler="sde-dpmpp-2m", noise="brownian"), noise()
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(begin)
    mine = drive(scheduler, x, begin)
    tableau = scheduler.tableau
    path = make_noise(tableau, sample_seeds(x), x.shape[1:], "brownian")
    solver = Solver(tableau, noise=path)
    other = solver.finish(lambda x, t: network(x, t[0].float()), solver.init(x)).x
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_noise_of_no_path_is_refused() -> None:
    scheduler, x = made(sampler="ancestral+langevin", noise="brownian"), noise()
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="not a function of a Brownian path"):
        drive(scheduler, x)


def test_timesteps_before_any_are_set_are_the_trained_ones() -> None:
    assert torch.equal(made().timesteps, torch.arange(999.0, -1, -1))
    torch.testing.assert_close(made({**FLOW, "shift": 1.0}).timesteps, torch.arange(1000.0, 0, -1))


def test_custom_timesteps_are_what_the_network_is_told() -> None:
    scheduler = made(sampler="ddim")
    scheduler.set_timesteps(timesteps=[900, 500.5, 20])
    assert scheduler.timesteps.tolist() == [900, 500.5, 20]
    scheduler = made(FLOW, sampler="ddim")
    scheduler.set_timesteps(timesteps=torch.tensor([1000, 500.0, 250]))
    assert scheduler.timesteps.tolist() == [1000, 500, 250]
    assert scheduler.sigmas.tolist() == [1, 0.5, 0.25, 0]


def test_custom_sigmas_with_and_without_the_zero_at_the_end() -> None:
    scheduler = made(sampler="ddim")
    for sigmas in ([10.0, 2.0, 0.1], [10.0, 2.0, 0.1, 0.0], np.array([10, 2, 0.1, 0])):
        scheduler.set_timesteps(sigmas=sigmas)
        torch.testing.assert_close(scheduler.sigmas, torch.tensor([10, 2, 0.1, 0]))
    scheduler = made({"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min"})
    scheduler.set_timesteps(sigmas=[10.0, 2.0, 0.1])
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([10, 2, 0.1]))
    flow = made(FLOW)
    for sigmas in ([1.0, 0.5], [1.0, 0.5, 0.0]):
        flow.set_timesteps(sigmas=sigmas)
        torch.testing.assert_close(flow.sigmas, torch.tensor([1, 0.75, 0]))


def test_custom_steps_are_counted_in_calls() -> None:
    """Pipelines then take the length of timesteps for the number of steps."""
    scheduler = made(FLOW, sampler="heun")
    scheduler.set_timesteps(sigmas=[0.9, 0.6, 0.3])
    assert scheduler.order == 1
    scheduler.set_timesteps(3)
    assert scheduler.order == 2


def test_mu_is_the_logarithm_of_the_shift() -> None:
    config = {**FLOW, "use_dynamic_shifting": True}
    dynamic, static = made(config), made({**FLOW, "shift": math.exp(0.7)})
    dynamic.set_timesteps(5, mu=0.7)
    static.set_timesteps(5, mu=123.0)  # Flux always passes one
    torch.testing.assert_close(dynamic.timesteps, static.timesteps)
    linear = made({**config, "time_shift_type": "linear"})
    linear.set_timesteps(5, mu=math.exp(0.7))
    torch.testing.assert_close(linear.timesteps, static.timesteps)
    with pytest.raises(ValueError, match="pass mu"):
        dynamic.set_timesteps(5)


def test_flow_times_are_stretched_to_shift_terminal() -> None:
    scheduler = made({**FLOW, "shift_terminal": 0.1})
    scheduler.set_timesteps(5)
    assert scheduler.sigmas[0] == 1
    assert scheduler.sigmas[-2] == pytest.approx(0.1)
    with pytest.raises(ValueError, match="take two steps or more"):
        scheduler.set_timesteps(1)


def test_grids_and_noise_levels_are_in_sigma_over_alpha() -> None:
    scheduler = made(grid="karras", sigma_min=0.05, sigma_max=20.0)
    scheduler.set_timesteps(4)
    expected = (20 ** (1 / 7) + torch.arange(4) / 3 * (0.05 ** (1 / 7) - 20 ** (1 / 7))) ** 7
    torch.testing.assert_close(scheduler.sigmas[:-1], expected)
    assert scheduler.sigmas[-1] == 0


def test_without_sigma_min_the_source_is_followed() -> None:
    config = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.01}
    scheduler = made(config, sigma_min=None, grid="config")
    assert scheduler.config.sigma_min == 0.01
    scheduler.set_timesteps(3)
    assert scheduler.sigmas[-2] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_inference_steps": 0}, "whole number from 1 up"),
        ({"num_inference_steps": -3}, "whole number from 1 up"),
        ({}, "needs num_inference_steps"),
        ({"timesteps": [3.0], "sigmas": [1.0]}, "pass one of them"),
        ({"timesteps": [900, 900, 20]}, "must fall strictly"),
        ({"timesteps": [20, 900]}, "must fall strictly"),
        ({"timesteps": [1200, 20]}, "trained from 999 to 0"),
        ({"sigmas": [700.0, 1.0]}, "goes up to 157"),
        ({"sigmas": [10.0, 1.0], "num_inference_steps": 5}, "leave one of them out"),
    ],
    ids=str,
)
def test_impossible_timesteps_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made().set_timesteps(**kwargs)


def test_an_eps_network_cannot_start_where_there_is_no_signal() -> None:
    scheduler = made({**VP, "rescale_betas_zero_snr": True})
    with pytest.raises(ValueError, match="alpha = 0"):
        scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="call set_timesteps"):
        drive(scheduler, noise())


# Runs


@pytest.mark.parametrize("config", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ALONE)
def test_a_sample_is_the_same_alone_and_in_a_batch(sampler: str, config: dict[str, Any]) -> None:
    x = noise(3)
    together = run(config, x, sampler=sampler)
    for i in range(3):
        assert torch.equal(run(config, x[i : i + 1], sampler=sampler), together[i : i + 1])


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
def test_beginning_later_is_a_run_on_the_shorter_grid(sampler: str) -> None:
    scheduler, x = made(sampler=sampler, grid="karras"), noise()
    scheduler.set_timesteps(6)
    begin = 3 * scheduler.order
    scheduler.set_begin_index(begin)
    mine = drive(scheduler, x, begin)

    settings = read_config(VP)
    whole = settings.grid(6, "karras")
    rest = Grid(whole.schedule, Point(*(values[3:] for values in whole.points)))
    options = {"s_churn": 20.0} if sampler == "edm-churn" else {}  # of 40 over twice the steps
    solver = Solver(get_sampler(sampler).tableau(rest, options), settings.prediction)
    solver = solver.with_noise(RowNoise(sample_seeds(x), tuple(x.shape[1:]), begin))
    # A pipeline's latents lie where the network is first called: no noise before it.
    state = solver.init(x)._replace(points=(x, *solver.init(x).points[1:]))
    other = solver.finish(lambda x, t: network(x, t[0].float()), state).x
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("how", ["begin index", "view", "value", "number"])
def test_where_a_run_begins_is_found_in_every_way(how: str) -> None:
    x, results = noise(), []
    scheduler = made(sampler="heun")
    for way in ("begin index", how):
        scheduler.set_timesteps(5)
        if way == "begin index":
            scheduler.set_begin_index(4)
        y = x
        for t in scheduler.timesteps[4:]:
            told = {"value": t.clone(), "number": float(t)}.get(way, t)
            y = scheduler.step(network(y, t), told, y).prev_sample
        results.append(y)
    assert torch.equal(*results)


@pytest.mark.parametrize("sampler", SEVERAL_CALLS)
def test_a_run_cannot_begin_in_the_middle_of_a_step(sampler: str) -> None:
    scheduler = made(sampler=sampler)
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="where no step of the sampler begins"):
        scheduler.step(noise(), scheduler.timesteps[1], noise())
    with pytest.raises(ValueError, match="where no step of the sampler begins"):
        scheduler.set_begin_index(scheduler.order + 1)


def test_below_pure_noise_every_step_has_the_same_number_of_calls() -> None:
    scheduler = made(FLOW, sampler="heun")
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="set sigma_max if the grid starts at pure noise"):
        scheduler.set_begin_index(2 * scheduler.order)
    scheduler = made(FLOW, sampler="heun", sigma_max=100.0)
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2 * scheduler.order)
    assert len(scheduler.timesteps) == 4 * scheduler.order + 1
    assert scheduler.sigmas[0] == pytest.approx(100 / 101)


def test_a_copy_goes_on_as_the_original_does() -> None:
    scheduler, x = made(sampler="unipc-3"), noise()
    scheduler.set_timesteps(5)
    first, *rest = scheduler.timesteps
    x = y = scheduler.step(network(x, first), first, x).prev_sample
    copy = deepcopy(scheduler)
    for t, told in zip(rest, copy.timesteps[1:], strict=True):
        x = scheduler.step(network(x, t), t, x).prev_sample
        y = copy.step(network(y, told), told, y).prev_sample
    assert torch.equal(x, y)


HOW: dict[str, Callable[[Tensor], Any]] = {
    "number": float,
    "whole number": int,
    "value": torch.clone,
    "half": torch.Tensor.bfloat16,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("order", [(0, 2), (0, 1, 0), (0, 1, 3), (0, 0)])
def test_a_timestep_by_value_that_is_not_the_next_is_refused(
    how: str, order: tuple[int, ...]
) -> None:
    """Every second one, a jump back as in RePaint, one left out, one twice."""
    scheduler, x = made(sampler="ddim"), noise()
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(0)
    *begun, wrong = (HOW[how](scheduler.timesteps[index]) for index in order)
    for t in begun:
        x = scheduler.step(x, t, x).prev_sample
    with pytest.raises(ValueError, match=r"timestep .* came, but .* is the next of this run"):
        scheduler.step(x, wrong, x)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("grid", ["trailing", "karras"])
def test_a_timestep_may_be_rounded(how: str, grid: str) -> None:
    x, y = noise(), noise()
    first, second = (made(sampler="heun", grid=grid) for _ in range(2))
    for scheduler in (first, second):
        scheduler.set_timesteps(6)
        scheduler.set_begin_index(0)
    for t, told in zip(first.timesteps, second.timesteps, strict=True):
        x = first.step(network(x, t), t, x).prev_sample
        y = second.step(network(y, t), HOW[how](told), y).prev_sample
    assert torch.equal(x, y)


def test_a_timestep_that_is_not_the_next_is_refused() -> None:
    scheduler, x = made(sampler="ddim"), noise()
    with pytest.raises(ValueError, match="not one of this scheduler's"):
        scheduler.set_timesteps(3)
        scheduler.step(x, 3.25, x)
    scheduler.step(x, scheduler.timesteps[0], x)
    with pytest.raises(ValueError, match="index 0 came, but 1 is the next"):
        scheduler.step(x, scheduler.timesteps[0], x)
    for t in scheduler.timesteps[1:]:
        scheduler.step(x, t, x)
    with pytest.raises(ValueError, match="run is finished"):
        scheduler.step(x, scheduler.timesteps[0], x)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "unipc-3", "sde-dpmpp-2m", "heun"])
def test_cancelled_and_run_again_it_gives_the_same(sampler: str) -> None:
    scheduler, x = made(sampler=sampler), noise()
    scheduler.set_timesteps(5)
    expected = drive(scheduler, x)
    scheduler.set_timesteps(5)
    scheduler.step(noise(seed=9), scheduler.timesteps[0], x)
    scheduler.set_timesteps(5)
    assert scheduler.step_index is None
    assert torch.equal(drive(scheduler, x), expected)
    assert scheduler.step_index == len(scheduler.timesteps)


def test_a_step_reads_no_tensor_of_the_device() -> None:
    """A tensor on the meta device has no values: to ask for one is an error."""
    for sampler in set(list_samplers("fixed-grid")) - set(STOCHASTIC):
        scheduler, known = made(sampler=sampler), made(sampler=sampler)
        scheduler.set_timesteps(4, device="meta")
        known.set_timesteps(4)
        scheduler.set_begin_index(0)
        x = torch.empty(2, 3, 4, device="meta")
        for t in (*scheduler.timesteps.unbind()[:1], *known.timesteps.tolist()[1:]):
            x = scheduler.step(torch.empty_like(x), t, x * 1).prev_sample
        assert x.device.type == "meta"


def test_gradients_pass_through_steps() -> None:
    scheduler = made(sampler="unipc-2")
    scheduler.set_timesteps(4)
    x = noise().requires_grad_()
    drive(scheduler, x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_a_learned_variance_is_not_used() -> None:
    plain, learned = made(sampler="ddim"), made(sampler="ddim")
    for scheduler in (plain, learned):
        scheduler.set_timesteps(3)
    x = noise()
    expected = drive(plain, x)
    both = drive(learned, x, model=lambda x, t: torch.cat([network(x, t), 9 * x], dim=1))
    assert torch.equal(both, expected)
    learned.set_timesteps(3)
    with pytest.raises(ValueError, match="must return the same"):
        drive(learned, x, model=lambda x, t: x[:, :1])


def test_eta_belongs_to_the_sampler() -> None:
    scheduler = made(sampler="ddim")
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match='sampler="ancestral"'):
        scheduler.step(noise(), scheduler.timesteps[0], noise(), eta=0.5)


def test_a_step_also_returns_a_tuple_and_the_predicted_sample() -> None:
    scheduler, x = made(sampler="ddim"), noise()
    scheduler.set_timesteps(1)
    previous, predicted = scheduler.step(x, scheduler.timesteps[0], x, return_dict=False)
    assert torch.equal(previous, predicted)  # the step to sigma = 0 returns the prediction
    assert scheduler.scale_model_input(x, scheduler.timesteps[0]) is x


def test_a_noise_level_is_not_scaled() -> None:
    """The latent upscaler scales the output of its network by a scaled noise level."""
    scheduler = made(sampler="ddim")
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match=r"single number.*pipeline's own scheduler"):
        scheduler.scale_model_input(scheduler.sigmas[0], scheduler.timesteps[0])


# What the pipeline edits between two calls


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
def test_latents_that_are_copied_but_not_changed_change_nothing(sampler: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = noise().to(dtype)
        expected = run(VP, x, sampler=sampler)
        copied = run(VP, x, sampler=sampler, edit=lambda _, x: x.clone())
        assert torch.equal(copied, expected)
        assert copied.dtype == dtype


@pytest.mark.parametrize("sampler", ONE_STEP)
def test_an_edit_within_a_step_moves_the_sample(sampler: str) -> None:
    """With eps = 0 every point is alpha x_0, so an edit of alpha c moves the sample by c."""
    scheduler, x = made(sampler=sampler, grid="karras"), noise().double()
    scheduler.set_timesteps(5)
    alphas = [row.at.alpha for row in scheduler.tableau.rows]
    c = torch.linspace(-1, 1, 4, dtype=torch.float64)

    def still(x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    expected = x / alphas[0] + c
    for place, alpha in enumerate(alphas):

        def edit(i: int, x: Tensor, place: int = place, alpha: Tensor = alpha) -> Tensor:
            return x + alpha * c if i == place else x

        scheduler.set_timesteps(5)
        torch.testing.assert_close(drive(scheduler, x, edit=edit, model=still), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("sampler", ["heun", "unipc-2", "dpmpp-3s", "dpmpp-2m"])
def test_an_edit_in_place_is_an_edit(sampler: str, dtype: torch.dtype) -> None:
    def apart(i: int, x: Tensor) -> Tensor:
        return x + 0.5 if i % 2 else x

    def in_place(i: int, x: Tensor) -> Tensor:
        return x.add_(0.5) if i % 2 else x

    assert torch.equal(
        run(VP, noise().to(dtype), sampler=sampler, edit=apart),
        run(VP, noise().to(dtype), sampler=sampler, edit=in_place),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_single(dtype: torch.dtype) -> None:
    """Between steps only what the network sees is rounded."""
    x, output = noise().to(dtype), noise(seed=1).to(dtype)
    half, single = made(sampler="dpmpp-2m"), made(sampler="dpmpp-2m")
    for scheduler in (half, single):
        scheduler.set_timesteps(20)
    rounded = drive(half, x, model=lambda x, t: output)
    exact = drive(single, x.float(), model=lambda x, t: output.float())
    assert torch.equal(rounded, exact.to(dtype))


def test_inference_mode_serves_too() -> None:
    with torch.inference_mode():
        inside = run(VP, noise(), sampler="heun")
    assert torch.equal(inside, run(VP, noise(), sampler="heun"))


# Seeds


def test_seeds_from_generators_do_not_depend_on_the_batch_and_do_not_advance_them() -> None:
    generators = [torch.Generator().manual_seed(s) for s in (3, 4, 5)]
    states = [g.get_state() for g in generators]
    seeds = sample_seeds(noise(3), generators)
    assert len(set(seeds)) == 3
    for i, generator in enumerate(generators):
        assert sample_seeds(noise(1), generator) == (seeds[i],)
        assert torch.equal(generator.get_state(), states[i])
    shared = sample_seeds(noise(3), generators[0])
    assert shared[0] == seeds[0]
    assert len(set(shared)) == 3
    torch.randn(1, generator=generators[0])
    assert sample_seeds(noise(1), generators[0]) != seeds[:1]
    with pytest.raises(ValueError, match="2 generators came for 3 samples"):
        sample_seeds(noise(3), generators[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_without_generators_the_starting_noise_is_the_seed(dtype: torch.dtype) -> None:
    x = noise(3).to(dtype)
    seeds = sample_seeds(x)
    assert len(set(seeds)) == 3
    assert sample_seeds(x[1:2]) == seeds[1:2]
    assert sample_seeds(x + 1) != seeds


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_another_generator_is_other_noise(sampler: str) -> None:
    def with_seed(seed: int) -> Tensor:
        return run(VP, noise(), sampler=sampler, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(with_seed(1), with_seed(1))
    assert not torch.equal(with_seed(1), with_seed(2))


# Noise added by pipelines and training scripts


def test_add_noise_is_the_marginal_at_the_timestep() -> None:
    theirs = diffusers.DDIMScheduler()
    x, z, t = noise(), noise(seed=1), torch.tensor([20, 900])
    torch.testing.assert_close(made().add_noise(x, z, t), theirs.add_noise(x, z, t))
    torch.testing.assert_close(
        made().get_velocity(x, z, t), theirs.get_velocity(x, z, t), rtol=1e-4, atol=1e-5
    )
    half = made().add_noise(x.bfloat16(), z.bfloat16(), t)
    assert half.dtype == torch.bfloat16


def test_scale_noise_is_the_straight_line() -> None:
    x, z, t = noise(), noise(seed=1), torch.tensor([250.0, 1000.0])
    u = (t / 1000)[:, None, None]
    torch.testing.assert_close(made(FLOW).scale_noise(x, t, z), (1 - u) * x + u * z)
