"""Gradients through pipelines of diffusers, unmodified, with our samplers and theirs in them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from adjoint import (
    AbstractAdjoint,
    CheckpointAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
    TruncatedAdjoint,
    differentiable,
)
from samplers import SamplerScheduler
from tests import tiny_pipelines
from tests.test_adjoint import bytes_kept, error

SAMPLERS = (
    *("ddim", "heun", "dpm-solver-2m", "dpmpp-2s", "dpmpp-2m", "dpmpp-3m-corrected"),
    *("unipc-2", "deis-3", "ancestral", "sde-dpmpp-2m", "ancestral+annealed-langevin", "o-belm"),
)
FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "flux")
STEPS = 3


@cache
def built(family: str) -> tuple[Any, dict[str, Any]]:
    """A tiny random pipeline, and the config of its own scheduler."""
    make = {
        "stable-diffusion": tiny_pipelines.stable_diffusion,
        "stable-diffusion-xl": tiny_pipelines.stable_diffusion_xl,
        "flux": tiny_pipelines.flux,
    }[family]
    pipe = make().pipe
    return pipe, dict(pipe.scheduler.config)


def inputs(family: str) -> dict[str, Tensor]:
    """Latents and embeddings that require a gradient."""
    generator = torch.Generator().manual_seed(3)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    if family == "flux":
        latents = leaf(2, 16, 4)
    else:
        latents = leaf(2, 4, tiny_pipelines.SIZE, tiny_pipelines.SIZE)
    given = {"latents": latents, "prompt_embeds": leaf(2, 3, 8)}
    if family == "stable-diffusion":
        return given | {"negative_prompt_embeds": leaf(2, 3, 8)}
    return given | {"pooled_prompt_embeds": leaf(2, 6)}


def settings(family: str) -> dict[str, Any]:
    """The rest of the arguments: guidance, where the model knows it, and pixels, where it can."""
    if family == "flux":
        return {"height": 64, "width": 64, "output_type": "latent"}
    if family == "stable-diffusion":
        return {"height": 16, "width": 16, "guidance_scale": 3.0, "output_type": "pt"}
    return {"guidance_scale": 1.0, "output_type": "latent"}


def weights_of(pipe: Any) -> list[Tensor]:
    network = pipe.components.get("unet") or pipe.components["transformer"]
    return list(network.parameters())


def gradients(draw: Callable[..., Any], family: str, pipe: Any) -> list[Tensor]:
    """Of a loss of pixels or latents: to latents, embeddings and all weights."""
    given = inputs(family)
    finished = draw(**given, **settings(family), num_inference_steps=STEPS).images
    loss = (finished - 0.2).square().mean()
    wanted = [*given.values(), *weights_of(pipe)]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, wanted, strict=True)]


def with_sampler(family: str, sampler: str) -> Any:
    pipe, config = built(family)
    pipe.scheduler = SamplerScheduler.from_config(config, sampler=sampler)
    return pipe


def flat(tensors: list[Tensor]) -> list[Tensor]:
    """All in one, because the gradients of some weights are nothing but rounding."""
    return [*tensors[:3], torch.cat([tensor.flatten() for tensor in tensors[3:]])]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_pipeline_itself(family: str, sampler: str) -> None:
    """Of its call without the decorator that turns gradients off."""
    pipe = with_sampler(family, sampler)
    own = inspect.unwrap(type(pipe).__call__)
    torch.manual_seed(0)
    expected = flat(gradients(lambda **given: own(pipe, **given), family, pipe))
    assert all(float(gradient.norm()) > 0 for gradient in expected)
    # A part of a batch may be rounded in another way than the whole.
    for adjoint, most in (
        (CheckpointAdjoint(), 1e-6),
        (DirectAdjoint(), 1e-6),
        (CheckpointAdjoint(split=2), 1e-5),
    ):
        torch.manual_seed(0)
        with differentiable(pipe, adjoint) as draw:
            found = flat(gradients(draw, family, pipe))
        assert error(found, expected) <= most


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler]
)
def test_schedulers_of_diffusers_serve_as_well(scheduler: Any) -> None:
    pipe, config = built("stable-diffusion")
    pipe.scheduler = scheduler.from_config(config)
    found = []
    for adjoint in (DirectAdjoint(), CheckpointAdjoint()):
        with differentiable(pipe, adjoint) as draw:
            found.append(flat(gradients(draw, "stable-diffusion", pipe)))
    assert error(found[1], found[0]) <= 1e-6


def test_what_is_kept_are_latents_and_embeddings() -> None:
    """Not the activations of the network, nor those of the decoder."""
    pipe = with_sampler("stable-diffusion", "dpmpp-2m")
    own = [*weights_of(pipe), *pipe.vae.parameters()]

    def kept(adjoint: AbstractAdjoint, steps: int) -> int:
        given = inputs("stable-diffusion")
        chosen = settings("stable-diffusion")
        with differentiable(pipe, adjoint) as draw:
            return bytes_kept(
                lambda: draw(**given, **chosen, num_inference_steps=steps).images, own
            )

    few, many = (kept(CheckpointAdjoint(), steps) for steps in (2, 12))
    latents = 2 * 4 * tiny_pipelines.SIZE**2 * 4
    # The doubled latents go into the network, and the outputs of both halves into the guidance.
    assert many - few <= 10 * 4 * latents
    assert kept(DirectAdjoint(), 2) > 20 * few


def test_the_pipeline_is_left_as_it_was() -> None:
    pipe = with_sampler("stable-diffusion", "dpmpp-2m")
    given = {k: v.detach() for k, v in inputs("stable-diffusion").items()}
    chosen = settings("stable-diffusion") | {"num_inference_steps": STEPS}
    before = pipe(**given, **chosen).images
    with differentiable(pipe) as draw:
        with torch.no_grad():
            assert torch.equal(draw(**given, **chosen).images, before)
        assert "forward" in vars(pipe.unet)
    assert "forward" not in vars(pipe.unet)
    assert "decode" not in vars(pipe.vae)
    assert torch.equal(pipe(**given, **chosen).images, before)
    with pytest.raises(RuntimeError, match="stop"), differentiable(pipe):
        raise RuntimeError("stop")
    assert "forward" not in vars(pipe.unet)


def test_a_gradient_may_pass_back_after_the_block() -> None:
    pipe = with_sampler("stable-diffusion", "dpmpp-2m")
    given, chosen = inputs("stable-diffusion"), settings("stable-diffusion")
    with differentiable(pipe) as draw:
        image = draw(**given, **chosen, num_inference_steps=STEPS).images
    image.square().mean().backward()
    assert all(
        float(tensor.grad.norm()) > 0 for tensor in given.values() if tensor.grad is not None
    )
    assert given["latents"].grad is not None


@pytest.mark.parametrize(
    "adjoint", [TruncatedAdjoint(1), ReversibleAdjoint(), CheckpointAdjoint(keep=1)], ids=str
)
def test_ways_that_need_the_loop_are_refused(adjoint: AbstractAdjoint) -> None:
    pipe = with_sampler("stable-diffusion", "dpmpp-2m")
    with pytest.raises(ValueError, match="which owns its loop"), differentiable(pipe, adjoint):
        pass


def test_a_pipeline_without_a_known_network_is_refused() -> None:
    class Other(NamedTuple):
        components: dict[str, object]

    with pytest.raises(ValueError, match="Other has none"), differentiable(Other({})):
        pass


@pytest.mark.parametrize("kind", [{}, {"output_type": "np"}], ids=str)
def test_images_without_a_gradient_are_refused(kind: dict[str, str]) -> None:
    """At once, and not by NumPy at the end; where no gradient is recorded they are sampled."""
    pipe = with_sampler("stable-diffusion", "ddim")
    given = inputs("stable-diffusion")
    chosen = settings("stable-diffusion") | {"num_inference_steps": 1}
    del chosen["output_type"]
    with differentiable(pipe) as generate:
        with pytest.raises(ValueError, match="pass output_type='pt'"):
            generate(**given, **chosen, **kind)
        with torch.no_grad():
            assert len(generate(**given, **chosen, **kind).images) > 0
