"""Every sampler inside real pipelines of diffusers equals the library's own loop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from samplers import (
    SamplerScheduler,
    classifier_free_guidance,
    list_samplers,
    pipeline_denoiser,
    sample,
)
from samplers.choices import DEFAULT_SPACING
from samplers.diffusers.config import read_config
from samplers.diffusers.loop import settings_of
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid, Spacing
from samplers.noise import RowNoise, sample_seeds
from samplers.registry import get_sampler
from samplers.schedule import Point
from samplers.solve import Solver
from tests import tiny_pipelines
from tests.tiny_pipelines import Tiny

STEPS = 4
# Grids that begin at the noisiest point, where a sampler's own noise adds nothing to the start.
FAMILIES: dict[str, tuple[Callable[[], Tiny], Spacing | None]] = {
    "ddpm": (tiny_pipelines.ddpm, DEFAULT_SPACING),
    "ddim": (tiny_pipelines.ddim, "uniform"),
    "stable-diffusion": (tiny_pipelines.stable_diffusion, "karras"),
    "stable-diffusion-xl": (tiny_pipelines.stable_diffusion_xl, "trailing"),
    "stable-diffusion-3": (tiny_pipelines.stable_diffusion_3, None),
    "flux": (tiny_pipelines.flux, None),
}


@cache
def built(family: str) -> tuple[Tiny, dict[str, Any]]:
    """A pipeline of this family, and the config of the scheduler that it was built with."""
    tiny = FAMILIES[family][0]()
    return tiny, dict(tiny.pipe.scheduler.config)


def own_solver(
    settings: SchedulerSettings,
    grid: Grid,
    sampler: str,
    x: Tensor,
    generator: Any = None,
    first: int = 0,
) -> Solver:
    """The executor alone, with the seeds that the scheduler takes, from the row ``first``."""
    noise = RowNoise(sample_seeds(x, generator), tuple(x.shape[1:]), first)
    tableau = get_sampler(sampler).tableau(grid)
    return Solver(tableau, settings.prediction, noise, settings.correction)


def own_loop(tiny: Tiny, solver: Solver, scale: float, x: Tensor) -> Tensor:
    """The library's loop, in which the network is told the same times in float32."""
    state = solver.init(x)
    with torch.no_grad():
        while not solver.done(state):
            t = (solver.time(state) * scale).float()
            state = solver.advance(state, tiny.model(state.x, t))
    return state.x


def assert_same(x: Tensor, y: Tensor) -> None:
    assert x.shape == y.shape
    assert bool(x.isfinite().all())
    assert float((x - y).abs().max() / y.abs().max()) < 1e-6


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_gives_what_the_own_loop_gives(family: str, sampler: str) -> None:
    (tiny, config), spacing = built(family), FAMILIES[family][1]
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler, grid=spacing)
    x = tiny.noise(2)
    settings = read_config(config).shifted_by(_mu(tiny))
    solver = own_solver(settings, settings.grid(STEPS, spacing), sampler, x)
    mine = own_loop(tiny, solver, settings.time_scale, x)
    assert_same(tiny.draw(x.clone(), STEPS), mine)


def _mu(tiny: Tiny) -> float | None:
    """What Flux's pipeline computes for its 16 tokens: a line through (256, 0.5), (4096, 1.15)."""
    if not tiny.pipe.scheduler.config.use_dynamic_shifting:
        return None
    return 0.5 + (16 - 256) * (1.15 - 0.5) / (4096 - 256)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "unipc-2", "ancestral"])
def test_guidance_is_inside_the_network(sampler: str) -> None:
    tiny = tiny_pipelines.stable_diffusion(guidance_scale=5.0)
    config = dict(tiny.pipe.scheduler.config)
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler)
    x, settings = tiny.noise(2), read_config(config)
    solver = own_solver(settings, settings.grid(STEPS), sampler, x)
    assert_same(tiny.draw(x, STEPS), own_loop(tiny, solver, settings.time_scale, x))


# EDM's churn before the first call is in a pipeline's latents already, so its run differs.
@pytest.mark.parametrize("sampler", sorted(set(list_samplers("fixed-grid")) - {"edm-churn"}))
def test_image_to_image_is_a_run_on_the_shorter_grid(sampler: str) -> None:
    tiny = _img2img()
    config = dict(tiny.pipe.scheduler.config)
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler, grid="karras")
    image, generator = tiny.noise(2), torch.Generator().manual_seed(11)
    result = tiny.draw(image, 6, strength=0.5, generator=generator)

    settings, generator = read_config(config), generator.manual_seed(11)
    whole = settings.grid(6, "karras")
    rest = Grid(whole.schedule, Point(*(values[3:] for values in whole.points)))
    noise = torch.randn(image.shape, generator=generator)
    x = rest.start.alpha.float() * image + rest.start.sigma.float() * noise
    begin = 3 * get_sampler(sampler).calls
    solver = own_solver(settings, rest, sampler, x, generator, begin)
    assert_same(result, own_loop(tiny, solver, settings.time_scale, x))


@cache
def _img2img() -> Tiny:
    return tiny_pipelines.stable_diffusion_img2img()


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
def test_inpainting_edits_between_the_calls_are_taken_over(sampler: str) -> None:
    tiny = _inpaint()
    config = dict(tiny.pipe.scheduler.config)
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler, grid="log-snr")
    x, settings = tiny.noise(2), read_config(config)
    result = tiny.draw(x.clone(), STEPS)

    image, mask = tiny_pipelines.inpainted()
    solver = own_solver(settings, settings.grid(STEPS, "log-snr"), sampler, x)
    state = solver.init(x)
    while not solver.done(state):
        with torch.no_grad():
            state = solver.advance(state, tiny.model(state.x, solver.time(state).float()))
        if solver.done(state):
            break
        at = solver.tableau.rows[state.row].at
        known = at.alpha.float() * image + at.sigma.float() * x
        state = solver.moved(state, (1 - mask) * known + mask * state.x)
    assert_same(result, (1 - mask) * image + mask * state.x)


@cache
def _inpaint() -> Tiny:
    return tiny_pipelines.stable_diffusion_inpaint()


@pytest.mark.parametrize("sampler", list_samplers("fixed-grid"))
def test_flux_image_to_image_runs_or_says_where_it_could_begin(sampler: str) -> None:
    """Its pipeline counts its own sigmas in network calls, and may stop within a step."""
    tiny = _flux_img2img()
    config = dict(tiny.pipe.scheduler.config)
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler)
    tiny.pipe.scheduler.set_timesteps(4, mu=1.0)
    steps = [row.step for row in tiny.pipe.scheduler.tableau.rows]
    inside = [k for k in range(1, len(steps)) if steps[k - 1] == steps[k]]

    def draw(start: int) -> Tensor:
        return tiny.draw(tiny.noise(2), 4, strength=1 - (start + 0.5) / len(steps))

    assert bool(inside) == (get_sampler(sampler).calls > 1)
    if inside:
        with pytest.raises(ValueError, match="where no step of the sampler begins"):
            draw(inside[0])
    assert bool(draw(steps.index(2)).isfinite().all())
    assert len(tiny.pipe.scheduler.timesteps) == len(steps)


@cache
def _flux_img2img() -> Tiny:
    return tiny_pipelines.flux_img2img()


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "sde-dpmpp-2m", "ancestral", "heun"])
def test_an_image_hardly_depends_on_its_batch(sampler: str) -> None:
    """The network's own kernels may round otherwise with the size of the batch."""
    tiny, config = built("stable-diffusion")
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    x = tiny.noise(3)
    together = tiny.draw(x, STEPS, generator=generators)
    alone = tiny.draw(x[1:2], STEPS, generator=generators[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-3", "flux"])
def test_latents_in_half_precision_stay_so(family: str) -> None:
    tiny = FAMILIES[family][0]()
    config = tiny.pipe.scheduler.config
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler="dpmpp-2m")
    single = tiny.draw(tiny.noise(2), STEPS)
    tiny.pipe.to(torch.bfloat16)
    half = tiny.draw(tiny.noise(2).bfloat16(), STEPS)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - single).norm() / single.norm()) < 0.05


def test_saved_with_a_pipeline_and_loaded_in_a_fresh_process(tmp_path: Path) -> None:
    tiny = tiny_pipelines.ddpm()
    tiny.pipe.scheduler = SamplerScheduler.from_config(
        tiny.pipe.scheduler.config,
        sampler="sde-dpmpp-2m",
        sampler_options={"eta": 0.7},
        grid="karras",
        sigma_min=0.05,
    )
    tiny.pipe.save_pretrained(tmp_path / "pipe")
    code = (
        "import sys, numpy, torch, samplers.diffusers.scheduler, diffusers\n"
        "pipe = diffusers.DDPMPipeline.from_pretrained(sys.argv[1])\n"
        "assert type(pipe.scheduler).__name__ == 'SamplerScheduler'\n"
        "g = torch.Generator().manual_seed(3)\n"
        "kwargs = dict(generator=g, num_inference_steps=4, output_type='np', batch_size=2)\n"
        "numpy.save(sys.argv[2], pipe(**kwargs).images)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipe"), str(tmp_path / "images.npy")],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    generator = torch.Generator().manual_seed(3)
    here = tiny.pipe(
        generator=generator, num_inference_steps=4, output_type="np", batch_size=2
    ).images
    assert np.array_equal(np.load(tmp_path / "images.npy"), here)


def test_a_reloaded_stable_diffusion_keeps_its_sampler(tmp_path: Path) -> None:
    tiny, config = built("stable-diffusion")
    tiny.pipe.scheduler = SamplerScheduler.from_config(config, sampler="unipc-3")
    before = tiny.draw(tiny.noise(1), STEPS)
    tiny.pipe.save_pretrained(tmp_path)
    loaded = type(tiny.pipe).from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    assert isinstance(loaded.scheduler, SamplerScheduler)
    tiny.pipe.scheduler = loaded.scheduler
    assert torch.equal(tiny.draw(tiny.noise(1), STEPS), before)


def test_the_ddim_pipeline_replaces_its_scheduler_when_it_is_made() -> None:
    """A limit of diffusers: there the scheduler has to be set after construction."""
    tiny, config = built("ddim")
    scheduler = SamplerScheduler.from_config(config, sampler="dpmpp-2m")
    pipe = type(tiny.pipe)(unet=tiny.pipe.unet, scheduler=scheduler)
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    assert pipe.scheduler.config.clip_sample is True


def test_the_network_of_a_pipeline_is_a_model() -> None:
    """Guided and sampled by the library's own loop, it gives what the pipeline gives."""
    tiny, scale = tiny_pipelines.stable_diffusion(guidance_scale=3.0), 3.0
    scheduler = SamplerScheduler.from_config(
        tiny.pipe.scheduler.config, sampler="unipc-2", grid="karras"
    )
    model = pipeline_denoiser(tiny.pipe)
    prompt, negative = tiny_pipelines._embeddings(3, 8)
    guided = classifier_free_guidance(model, {"encoder_hidden_states": negative}, scale)
    x_T = tiny.noise(2)
    with torch.no_grad():
        found = sample(
            guided,
            x_T,
            sampler="unipc-2",
            grid=settings_of(scheduler.config).grid(STEPS, "karras"),
            conditions={"encoder_hidden_states": prompt.expand(2, -1, -1)},
        )
        tiny.pipe.scheduler = scheduler
        expected = tiny.draw(x_T, STEPS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_pipeline_without_a_unet_is_refused() -> None:
    with pytest.raises(ValueError, match="no component 'unet'; describe its network"):
        pipeline_denoiser(tiny_pipelines.flux().pipe)
