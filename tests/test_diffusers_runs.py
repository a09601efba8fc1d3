"""Runs of the scheduler that are split, shared, copied or begun in the middle."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import diffusers
import pytest
import torch
from torch import Tensor

from samplers import SamplerScheduler, list_samplers
from samplers.noise import hashed_seed, sample_seeds
from samplers.registry import get_sampler
from tests.scheduler_loops import FLOW, VP, made, network, noise
from tests.tiny_pipelines import quiet, stable_diffusion_xl, vae

diffusers.utils.logging.set_verbosity_error()

# Some schedulers of diffusers hand torch tensors to numpy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


# Noise added by pipelines and training scripts


def img2img(scheduler: SamplerScheduler, steps: int = 5, begin: int = 2) -> None:
    """An image-to-image run from the step ``begin`` to the end."""
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(begin * scheduler.order)
    x = noise()
    for t in scheduler.timesteps[begin * scheduler.order :]:
        x = scheduler.step(network(x, t), t, x).prev_sample


def planned(scheduler: SamplerScheduler) -> None:
    scheduler.set_timesteps(5)


def begun(scheduler: SamplerScheduler) -> None:
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2)


def cancelled(scheduler: SamplerScheduler) -> None:
    begun(scheduler)
    scheduler.step(noise(), scheduler.timesteps[2], noise())


@pytest.mark.parametrize("before", [planned, begun, cancelled, img2img])
def test_a_trainer_may_share_the_scheduler_of_a_run(
    before: Callable[[SamplerScheduler], None],
) -> None:
    theirs, ours = diffusers.DDIMScheduler(), made(sampler="ddim")
    before(ours)
    x, z, t = noise(), noise(seed=1), torch.tensor([10, 900])
    torch.testing.assert_close(ours.add_noise(x, z, t), theirs.add_noise(x, z, t))
    torch.testing.assert_close(
        ours.get_velocity(x, z, t), theirs.get_velocity(x, z, t), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("before", [planned, begun, cancelled, img2img])
def test_a_trainer_may_share_a_flow_scheduler(before: Callable[[SamplerScheduler], None]) -> None:
    ours = made(FLOW, sampler="ddim")
    before(ours)
    x, z, t = noise(), noise(seed=1), torch.tensor([10.0, 900.0])
    u = (t / 1000)[:, None, None]
    torch.testing.assert_close(ours.scale_noise(x, t, z), (1 - u) * x + u * z)


@pytest.mark.parametrize("config", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm-solver-3"])
def test_noise_at_a_timestep_is_that_of_its_row(sampler: str, config: dict[str, Any]) -> None:
    """Inpainting pipelines pass the next timestep, also within a step."""
    scheduler = made(config, sampler=sampler, grid="karras")
    scheduler.set_timesteps(5)
    x, z = noise(), noise(seed=1)
    for row, t in zip(scheduler.tableau.rows, scheduler.timesteps, strict=True):
        expected = (row.at.alpha * x + row.at.sigma * z).float()
        torch.testing.assert_close(scheduler.add_noise(x, z, t), expected, rtol=1e-5, atol=1e-6)


# Runs that are split in two

STOCHASTIC = [name for name in list_samplers("fixed-grid") if get_sampler(name).stochastic]
OF_NOISE = ("sde-dpm-solver", "mr-sde-n")  # samplers that extrapolate eps instead of x_0
POINT = torch.linspace(-1, 1, 12).reshape(3, 4)


def without_history(scheduler: SamplerScheduler, x: Tensor, t: Tensor) -> Tensor:
    """An eps-network for which earlier predictions do not matter, since the next is the same.

    It is the exact one of data concentrated at one point, or constant.
    """
    if scheduler.config.sampler.startswith(OF_NOISE):
        return POINT.expand_as(x)
    one, zero = torch.ones(1), torch.zeros(1)
    alpha, sigma = scheduler.add_noise(one, zero, t), scheduler.add_noise(zero, one, t)
    return (x - alpha * POINT) / sigma


def states(
    scheduler: SamplerScheduler, x: Tensor, begin: int, generator: torch.Generator
) -> list[Tensor]:
    """The samples of a run of six steps from the timestep with the index ``begin``."""
    scheduler.set_timesteps(6)
    found = [x]
    for t in scheduler.timesteps[begin:]:
        output = without_history(scheduler, x, t)
        x = scheduler.step(output, t, x, generator).prev_sample
        found.append(x)
    return found


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_run_that_is_split_in_two_has_the_noise_of_the_whole(sampler: str) -> None:
    """Two schedulers and one generator, as in the base and refiner of Stable Diffusion XL."""
    first, second = made(sampler=sampler), made(sampler=sampler)
    generator = torch.Generator().manual_seed(0)
    whole = states(first, noise(), 0, generator)
    begin = 3 * first.order
    rest = states(second, whole[begin], begin, generator)
    for mine, other in zip(rest, whole[begin:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "sde-dpm-solver-2m", "sde-dpmpp-3m"])
def test_the_path_of_a_run_that_is_split_in_two_is_that_of_the_whole(sampler: str) -> None:
    first, second = (made(sampler=sampler, noise="brownian") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    whole = states(first, noise(), 0, generator)
    rest = states(second, whole[3], 3, generator)
    for mine, other in zip(rest, whole[3:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


class Refined(NamedTuple):
    """The latents of a base pipeline, of a refiner that goes on from them, and of a whole run."""

    base: Tensor
    refined: Tensor
    whole: Tensor


def refined(sampler: str, cut: float = 0.6) -> Refined:
    """Stable Diffusion XL with its refiner, both with the same network and one generator."""
    tiny = stable_diffusion_xl().pipe
    parts: dict[str, Any] = {"vae": vae(), "unet": tiny.unet}
    parts |= dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))

    def pipeline(kind: Any) -> Any:
        return quiet(kind(scheduler=made(tiny.scheduler.config, sampler=sampler), **parts))

    base = pipeline(diffusers.StableDiffusionXLPipeline)
    refiner = pipeline(diffusers.StableDiffusionXLImg2ImgPipeline)
    given = {
        "prompt_embeds": torch.linspace(-1, 1, 24).reshape(1, 3, 8),
        "pooled_prompt_embeds": torch.linspace(-1, 1, 6)[None],
        "num_inference_steps": 8,
        "guidance_scale": 1.0,
        "output_type": "latent",
    }

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    whole = base(**given, generator=generator()).images
    shared = generator()
    half = base(**given, denoising_end=cut, generator=shared).images
    rest = refiner(image=half, **given, denoising_start=cut, generator=shared).images
    return Refined(half, rest, whole)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "sde-dpmpp-1"])
def test_a_refiner_goes_on_where_the_base_stopped(sampler: str) -> None:
    found = refined(sampler)
    assert not torch.equal(found.base, found.whole)
    torch.testing.assert_close(found.refined, found.whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "least", "most"), [("dpmpp-2m", 1e-4, 0.02), ("heun", 0.05, 1.0)]
)
def test_what_a_refiner_does_not_go_on_with(sampler: str, least: float, most: float) -> None:
    """The history of a multistep method; and the step in which a pipeline stops."""
    found = refined(sampler, cut=0.75)
    error = (found.refined - found.whole).norm() / found.whole.norm()
    assert least < float(error) < most


# Seeds from latents


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_equal_values_have_equal_seeds(dtype: torch.dtype) -> None:
    x = noise(3).to(torch.float8_e5m2)  # whose numbers every other dtype has
    assert sample_seeds(x.to(dtype)) == sample_seeds(x.float())
    assert len(set(sample_seeds(x.float()))) == 3
    zeros = torch.zeros(1, 5)
    assert sample_seeds(-zeros) == sample_seeds(zeros)
    bits = x.float()[0].numpy().tobytes()
    assert sample_seeds(x)[0] == hashed_seed(bits)


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
        lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
        lambda x: x[:, :1, :1, :1].expand(x.shape),
    ],
    ids=["channels last", "transposed", "strided", "expanded"],
)
@pytest.mark.parametrize("sampler", ["sde-dpmpp-2m", "heun"])
def test_latents_may_have_any_layout(sampler: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))
    found = []
    for latents in (x, x.contiguous()):
        scheduler = made(sampler=sampler)
        scheduler.set_timesteps(3)
        for t in scheduler.timesteps:
            latents = scheduler.step(network(latents, t), t, latents).prev_sample
        found.append(latents)
    assert torch.equal(*found)


def test_rows_of_numbers_may_be_columns_of_a_matrix() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).T
    assert sample_seeds(x) == sample_seeds(x.contiguous())


# Copies

CORRECTED = [
    {"_class_name": "DDPMScheduler"},
    {"_class_name": "DDPMScheduler", "thresholding": True, "sample_max_value": 1.5},
    {**FLOW, "use_dynamic_shifting": True},
    {"_class_name": "EDMEulerScheduler"},
]


@pytest.mark.parametrize("sampler", ["unipc-2", "sde-dpmpp-2m"])
@pytest.mark.parametrize("config", CORRECTED, ids=["clipped", "thresholded", "flow", "edm"])
@pytest.mark.parametrize("noise_kind", ["independent", "brownian"])
def test_a_pickled_run_goes_on(sampler: str, config: dict[str, Any], noise_kind: str) -> None:
    scheduler, x = made(config, sampler=sampler, noise=noise_kind), noise()
    scheduler.set_timesteps(4, mu=0.5)
    begun = pickle.loads(pickle.dumps(scheduler))
    found = []
    for own in (scheduler, begun):
        y = x
        for index in range(4):
            t = own.timesteps[index]
            y = own.step(network(y, t / 500), t, y).prev_sample
            own = pickle.loads(pickle.dumps(own)) if own is not scheduler else own
        found.append(y)
    assert torch.equal(*found)


# Schedulers that several loops share


def loop(scheduler: SamplerScheduler, steps: int, x: Tensor) -> Iterator[Tensor]:
    """A pipeline's loop, which stops before each step; the last is the finished sample."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        yield x
        x = scheduler.step(network(x, t), t, x).prev_sample
    yield x


@pytest.mark.parametrize("steps", [5, 7])
@pytest.mark.parametrize(("before", "between"), [(1, 3), (3, 1), (3, 3)])
def test_a_loop_that_another_one_ended_is_refused(before: int, between: int, steps: int) -> None:
    """Also if it had only set its timesteps, and if the other one has the same."""
    scheduler = made()
    first, second = loop(scheduler, 5, noise()), loop(scheduler, steps, noise(seed=1))
    for _ in range(before):
        next(first)
    for _ in range(between):
        next(second)
    with pytest.raises(ValueError, match="belongs to a run that another call of set_timesteps"):
        next(first)
    *_, found = second
    *_, alone = loop(made(), steps, noise(seed=1))
    assert torch.equal(found, alone)


def test_timesteps_that_are_set_twice_may_be_taken_from_the_first_time() -> None:
    """As Allegro's pipeline does; of two loops that did so, the one that begins has the run."""
    scheduler = made()
    first, second = loop(scheduler, 5, noise()), loop(scheduler, 5, noise(seed=1))
    next(first)
    next(second)
    *_, found = first
    *_, alone = loop(made(), 5, noise())
    assert torch.equal(found, alone)
    with pytest.raises(ValueError, match="belongs to a run that another call of set_timesteps"):
        next(second)


def test_each_loop_may_have_its_own_copy() -> None:
    scheduler = made()
    loops = [loop(deepcopy(scheduler), 5, noise(seed=seed)) for seed in range(3)]
    *_, found = zip(*loops, strict=True)
    for seed, x in enumerate(found):
        *_, alone = loop(made(), 5, noise(seed=seed))
        assert torch.equal(x, alone)


# Custom timesteps of a config that ends at sigma_min

ENDING = {"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min"}


def test_the_network_is_given_all_custom_timesteps() -> None:
    """As in diffusers, whose last step goes to the cleanest trained level."""
    given = [999, 700, 400, 100]
    theirs, ours = (
        diffusers.EulerDiscreteScheduler.from_config(ENDING),
        made(ENDING, sampler="ddim"),
    )
    theirs.set_timesteps(timesteps=given)
    ours.set_timesteps(timesteps=given)
    assert ours.timesteps.tolist() == given
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, rtol=1e-4, atol=0)
    x = noise()
    mine, x = x, x * (theirs.sigmas[0] ** 2 + 1) ** 0.5
    for t in ours.timesteps:
        mine = ours.step(network(mine, t), t, mine).prev_sample
    for t in theirs.timesteps:
        x = theirs.step(network(theirs.scale_model_input(x, t), t), t, x).prev_sample
    torch.testing.assert_close(mine / ours.tableau.end.alpha.float(), x, rtol=1e-4, atol=1e-4)


def test_ten_aligned_steps_give_the_spread_of_the_data() -> None:
    """Of data from N(0, 0.05^2); without the last of them it would be three times too large."""
    scheduler = made({**ENDING, "beta_schedule": "scaled_linear"}, sampler="dpmpp-2m")
    scheduler.set_timesteps(timesteps=[999, 850, 736, 645, 545, 455, 343, 233, 124, 24])
    assert len(scheduler.timesteps) == 10
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    one, zero = torch.ones(1), torch.zeros(1)
    for t in scheduler.timesteps:
        alpha, sigma = scheduler.add_noise(one, zero, t), scheduler.add_noise(zero, one, t)
        output = sigma * x / (alpha**2 * 0.05**2 + sigma**2)
        x = scheduler.step(output, t, x).prev_sample
    assert float(x.std()) == pytest.approx(0.05, rel=0.2)


def test_the_cleanest_level_itself_goes_to_the_clean_end() -> None:
    scheduler = made(ENDING)
    scheduler.set_timesteps(timesteps=[999, 500, 0])
    assert scheduler.timesteps.tolist() == [999, 500, 0]
    assert scheduler.sigmas[-1] == 0
    scheduler = made(ENDING, sigma_min=0.1, grid="karras")
    scheduler.set_timesteps(timesteps=[999, 500, 100])
    assert scheduler.sigmas[-1] == pytest.approx(0.1)


def test_the_network_is_given_all_times_of_a_flow() -> None:
    config = {
        "_class_name": "UniPCMultistepScheduler",
        "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
        "final_sigmas_type": "sigma_min",
    }
    scheduler = made(config)
    scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.25])
    assert scheduler.timesteps.tolist() == [1000, 500, 250]
    assert scheduler.sigmas[-1] == pytest.approx(1e-3)
    scheduler.set_timesteps(timesteps=[1000, 500, 250])
    assert scheduler.timesteps.tolist() == [1000, 500, 250]


# Where a run begins


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_a_strength_that_leaves_no_step_is_refused(sampler: str) -> None:
    """Pipelines count in steps times ``order``, which goes beyond the last timestep."""
    scheduler = made(sampler=sampler)
    scheduler.set_timesteps(5)
    for index in (len(scheduler.timesteps), 5 * scheduler.order):
        with pytest.raises(ValueError, match="no step is left; raise the strength"):
            scheduler.set_begin_index(index)
