"""A loop of one's own in modular pipelines: the same network, guidance included, as by hand.

Stable Diffusion XL and Flux with random networks of a few thousand weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    DDIMScheduler,
    FluxAutoBlocks,
    StableDiffusionXLAutoBlocks,
)
from torch import Tensor

from samplers import SamplerScheduler
from samplers.choices import DEFAULT_SAMPLER
from samplers.denoiser import Denoiser
from samplers.diffusers.blocks import Drawn, Loop, Task, adaptive_loop, steps_of, with_loop
from samplers.diffusers.settings import SchedulerSettings
from samplers.probability_flow.adaptive import AdaptiveResult, sample_adaptive
from samplers.probability_flow.integration import Adaptive
from samplers.sampling import sample
from tests import tiny_pipelines

BATCH = 3
SETTINGS = Adaptive("bogacki-shampine", 1e-3, 1e-3)
STEPS = 20
SCALE = 3.0

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    diffusers.utils.logging.set_verbosity_error()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def workflow(blocks: Any, name: str, without: tuple[str, ...]) -> Any:
    """The blocks of one task, from given embeddings to latents."""
    chosen = blocks.get_workflow(name)
    for block in without:
        chosen.sub_blocks.pop(block)
    return chosen


def xl_blocks(name: str = "text2image") -> Any:
    without = ("text_encoder", "decode") + (("vae_encoder",) if name == "image2image" else ())
    return workflow(StableDiffusionXLAutoBlocks(), name, without)


def flux_blocks() -> Any:
    return workflow(
        FluxAutoBlocks(), "text2image", ("text_encoder", "decode", "denoise.unpack_latents")
    )


PROMPTS = {
    "prompt_embeds": random(BATCH, 3, 8),
    "negative_prompt_embeds": random(BATCH, 4, 8)[:, 1:],
    "pooled_prompt_embeds": random(BATCH, 6),
    "negative_pooled_prompt_embeds": random(BATCH, 7)[:, 1:],
}


def xl_pipe(blocks: Any, guider: Any = None, grid: str = "trailing") -> tuple[Any, Tensor]:
    """A pipeline around the tiny network, and latents to begin with, in float64: what is drawn has
    values up to 40, of which float32 keeps no more than the digits that are compared."""
    tiny = tiny_pipelines.stable_diffusion_xl()
    pipe = blocks.init_pipeline()
    pipe.update_components(
        unet=tiny.pipe.unet.double(),
        scheduler=SamplerScheduler.from_config(tiny.pipe.scheduler.config, grid=grid),
        guider=guider or ClassifierFreeGuidance(guidance_scale=SCALE),
    )
    return pipe, tiny.noise(BATCH).double()


def xl_draw(pipe: Any, latents: Tensor, **kwargs: Any) -> Any:
    pixels = 8 * tiny_pipelines.SIZE
    prompts = {name: value.to(latents.dtype) for name, value in PROMPTS.items()}
    size = {"height": pixels, "width": pixels}
    return pipe(latents=latents, num_inference_steps=STEPS, **prompts, **size, **kwargs)


def xl_network(unet: Any, guided: Callable[[Tensor], Tensor]) -> Network:
    """The guided network by hand; ``guided`` says of times [b] where guidance is on."""

    def one(x: Tensor, t: Tensor, prompt: Tensor, pooled: Tensor) -> Tensor:
        pixels = float(8 * tiny_pipelines.SIZE)
        ids = torch.tensor([pixels, pixels, 0, 0, pixels, pixels]).expand(len(x), -1)
        added = {"text_embeds": pooled, "time_ids": ids}
        return unet(x, t, prompt, added_cond_kwargs=added).sample

    def network(x: Tensor, t: Tensor, places: Tensor) -> Tensor:
        rows = [PROMPTS[name][places].to(x) for name in PROMPTS]
        given, without = one(x, t, rows[0], rows[2]), one(x, t, rows[1], rows[3])
        scale = torch.where(guided(t), SCALE, 1.0).reshape(-1, 1, 1, 1)
        return without + scale * (given - without)

    return network


def flux_pipe(guidance: bool) -> tuple[Any, Tensor]:
    tiny = tiny_pipelines.flux()
    transformer = tiny.pipe.transformer
    if guidance:
        torch.manual_seed(6)
        transformer = type(transformer).from_config(transformer.config, guidance_embeds=True).eval()
    pipe = with_loop(flux_blocks(), adaptive_loop(SETTINGS)).init_pipeline()
    scheduler = SamplerScheduler.from_config(tiny.pipe.scheduler.config)
    pipe.update_components(transformer=transformer, scheduler=scheduler)
    return pipe, tiny.noise(BATCH)


def by_hand(network: Network, x: Tensor, settings: SchedulerSettings) -> AdaptiveResult:
    with torch.no_grad():
        return sample_adaptive(
            Denoiser(network, settings.schedule, settings.prediction),
            x,
            conditions={"places": torch.arange(len(x))},
            settings=SETTINGS,
            final=settings.final,
        )


def check(state: Any, expected: AdaptiveResult) -> None:
    torch.testing.assert_close(state.get("latents"), expected.x, rtol=0, atol=1e-5)
    assert torch.equal(state.get("nfe"), expected.nfe)
    assert torch.equal(state.get("within_tolerance"), expected.within_tolerance)


def everywhere(t: Tensor) -> Tensor:
    return torch.ones_like(t, dtype=torch.bool)


# The adaptive loop.


def test_stable_diffusion_xl_is_drawn_as_by_hand() -> None:
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop(SETTINGS)))
    state = xl_draw(pipe, latents)
    expected = by_hand(xl_network(pipe.unet, everywhere), latents, pipe.scheduler.settings)
    check(state, expected)
    assert len(expected.nfe.unique()) > 1, "the prompts should differ in cost"


def test_every_sample_has_its_own_prompt_alone_as_well() -> None:
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop(SETTINGS)))
    together = xl_draw(pipe, latents)
    prompts = {name: value[1:2].to(latents) for name, value in PROMPTS.items()}
    alone = pipe(
        latents=latents[1:2],
        num_inference_steps=STEPS,
        height=8 * tiny_pipelines.SIZE,
        width=8 * tiny_pipelines.SIZE,
        **prompts,
    )
    torch.testing.assert_close(
        alone.get("latents")[0], together.get("latents")[1], rtol=0, atol=1e-4
    )
    assert int(alone.get("nfe")) == int(together.get("nfe")[1])


def test_a_time_belongs_to_the_step_that_begins_there_or_before() -> None:
    """Below sigma / alpha = 1 what an EDM network is told of its time is negative."""
    timesteps = torch.tensor([1.09, 0.3, -0.5, -1.5])
    assert steps_of(timesteps, timesteps) == [0, 1, 2, 3]
    assert steps_of(torch.tensor([2.0, 0.31, 0.0, -0.49, -9.0]), timesteps) == [0, 0, 1, 1, 3]


def test_a_guider_keeps_its_window_of_steps() -> None:
    """On for steps 4 to 13 of 20: between the times of the pipeline's timesteps 4 and 14."""
    guider = ClassifierFreeGuidance(guidance_scale=SCALE, start=0.2, stop=0.7)
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop(SETTINGS)), guider)
    state = xl_draw(pipe, latents)
    timesteps = state.get("timesteps")

    def guided(t: Tensor) -> Tensor:
        return (t <= timesteps[4]) & (t > timesteps[14])

    expected = by_hand(xl_network(pipe.unet, guided), latents, pipe.scheduler.settings)
    check(state, expected)


def test_the_blocks_for_every_task_can_be_given_whole() -> None:
    whole = StableDiffusionXLAutoBlocks()
    for name in ("text_encoder", "decode"):
        whole.sub_blocks.pop(name)
    pipe, latents = xl_pipe(with_loop(whole, adaptive_loop(SETTINGS)))
    flat, _ = xl_pipe(with_loop(xl_blocks(), adaptive_loop(SETTINGS)))
    found, expected = xl_draw(pipe, latents), xl_draw(flat, latents)
    assert torch.equal(found.get("latents"), expected.get("latents"))


def test_half_precision_stays_with_the_network() -> None:
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop(SETTINGS)))
    pipe.unet.to(torch.bfloat16)
    drawn = xl_draw(pipe, latents.to(torch.bfloat16)).get("latents")
    assert drawn.dtype == torch.bfloat16
    assert bool(drawn.isfinite().all())


@pytest.mark.parametrize("guidance", [False, True])
def test_flux_is_drawn_as_by_hand(guidance: bool) -> None:
    pipe, latents = flux_pipe(guidance)
    state = pipe(
        latents=latents,
        prompt_embeds=PROMPTS["prompt_embeds"],
        pooled_prompt_embeds=PROMPTS["pooled_prompt_embeds"],
        guidance_scale=SCALE,
        num_inference_steps=STEPS,
        height=64,
        width=64,
    )

    def network(x: Tensor, t: Tensor, places: Tensor) -> Tensor:
        return pipe.transformer(
            hidden_states=x,
            timestep=t,
            guidance=torch.full((len(x),), SCALE) if guidance else None,
            encoder_hidden_states=PROMPTS["prompt_embeds"][places],
            pooled_projections=PROMPTS["pooled_prompt_embeds"][places],
            txt_ids=state.get("txt_ids"),
            img_ids=state.get("img_ids"),
        ).sample

    settings = pipe.scheduler.settings
    assert settings.schedule.shift != 1, "the size of the image decides the shift"
    check(state, by_hand(network, latents, settings))


# Any other loop.


def fixed_loop(sampler: str) -> Loop:
    """The library's own loop on the pipeline's grid, without the scheduler's ``step``."""

    def loop(task: Task) -> Drawn:
        places = torch.arange(len(task.x))
        calls = 0

        def model(x: Tensor, t: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return task.model(x, t, places=places)

        x = sample(
            Denoiser(model, task.settings.schedule, task.settings.prediction),
            task.x,
            sampler=sampler,
            grid=task.settings.grid(STEPS, "trailing"),
        )
        spent = torch.full((len(x),), calls)
        return Drawn(x, spent, torch.ones_like(spent, dtype=torch.bool))

    return loop


def test_another_loop_draws_what_the_scheduler_draws() -> None:
    own, latents = xl_pipe(with_loop(xl_blocks(), fixed_loop(DEFAULT_SAMPLER)))
    stepped, _ = xl_pipe(xl_blocks())
    found, expected = xl_draw(own, latents), xl_draw(stepped, latents)
    torch.testing.assert_close(found.get("latents"), expected.get("latents"), rtol=0, atol=1e-5)
    assert found.get("nfe").tolist() == [STEPS] * BATCH


def test_image_to_image_begins_at_its_strength() -> None:
    tasks: list[Task] = []

    def loop(task: Task) -> Drawn:
        tasks.append(task)
        return adaptive_loop(SETTINGS)(task)

    pipe, latents = xl_pipe(with_loop(xl_blocks("image2image"), loop))
    prompts = {name: value[:1].to(latents) for name, value in PROMPTS.items()}
    state = pipe(
        image_latents=latents[:1],
        strength=0.5,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(3),
        **prompts,
    )
    (task,) = tasks
    # Ten of the twenty steps are left; trailing spacing begins them at 499 of 0 to 999.
    assert float(task.start.t) == 499
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(latents[:1].shape, generator=generator, dtype=latents.dtype)
    expected = float(task.start.alpha) * latents[:1] + float(task.start.sigma) * noise
    torch.testing.assert_close(task.x, expected, rtol=0, atol=1e-5)
    assert bool(state.get("latents").isfinite().all())


# What is refused.


def test_the_scheduler_of_diffusers_is_refused() -> None:
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop()))
    pipe.update_components(scheduler=DDIMScheduler())
    with pytest.raises(ValueError, match="is DDIMScheduler; before a loop"):
        xl_draw(pipe, latents)


def test_a_stop_in_the_middle_is_refused() -> None:
    pipe, latents = xl_pipe(with_loop(xl_blocks(), adaptive_loop()))
    with pytest.raises(ValueError, match="denoising_end"):
        xl_draw(pipe, latents, denoising_end=0.8)


def test_blocks_without_a_known_step_are_refused() -> None:
    blocks = workflow(StableDiffusionXLAutoBlocks(), "text2image", ("denoise.denoise",))
    with pytest.raises(ValueError, match="known are StableDiffusionXLDenoiseStep"):
        with_loop(blocks, adaptive_loop())


def test_the_given_blocks_stay_as_they_were() -> None:
    blocks = xl_blocks()
    before = type(blocks.sub_blocks["denoise.denoise"])
    replaced = with_loop(blocks, adaptive_loop())
    assert type(blocks.sub_blocks["denoise.denoise"]) is before
    assert list(replaced.sub_blocks["denoise.denoise"].sub_blocks) == [
        "before_denoiser",
        "denoiser",
    ]
    assert "nfe" in replaced.sub_blocks["denoise.denoise"].doc
