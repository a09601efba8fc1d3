"""What pipelines do to the networks and images in them, for each adjoint: exact, or refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adjoint import AbstractAdjoint, CheckpointAdjoint, DirectAdjoint, differentiable
from samplers import SamplerScheduler
from tests import tiny_pipelines
from tests.test_adjoint import error
from tests.test_adjoint_pipelines import built, flat, gradients, inputs, settings

ADJOINTS: dict[str, AbstractAdjoint] = {
    "direct": DirectAdjoint(),
    "checkpoint": CheckpointAdjoint(),
    "split": CheckpointAdjoint(split=2),
}
EACH = pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS)
SD = "stable-diffusion"


def sampling_once(pipe: Any) -> Any:
    """With a sampler of one evaluation a step."""
    pipe.scheduler = SamplerScheduler.from_config(dict(pipe.scheduler.config), sampler="ddim")
    return pipe


def stable_diffusion() -> Any:
    return sampling_once(tiny_pipelines.stable_diffusion().pipe)


def of(pipe: Any, adjoint: AbstractAdjoint) -> list[Tensor]:
    with differentiable(pipe, adjoint) as generate:
        return flat(gradients(generate, SD, pipe))


# A part of a batch may be rounded in another way than the whole, in float32.
def most(adjoint: AbstractAdjoint) -> float:
    return 1e-5 if adjoint == CheckpointAdjoint(split=2) else 1e-6


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@EACH
def test_a_compiled_network(adjoint: AbstractAdjoint) -> None:
    pipe = stable_diffusion()
    expected = of(pipe, DirectAdjoint())
    torch.compiler.reset()
    pipe.unet.compile(backend="eager")
    assert error(of(pipe, adjoint), expected) <= most(adjoint)
    assert pipe.unet._compiled_call_impl is not None
    assert "forward" not in vars(pipe.unet)
    torch.compiler.reset()


@pytest.mark.parametrize("adjoint", [DirectAdjoint(), CheckpointAdjoint()], ids=str)
def test_dropout(adjoint: AbstractAdjoint) -> None:
    pipe = stable_diffusion()
    for module in pipe.unet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    pipe.unet.train()
    torch.manual_seed(5)
    expected = of(pipe, DirectAdjoint())
    torch.manual_seed(5)
    assert error(of(pipe, adjoint), expected) <= 1e-6


@EACH
def test_weights_changed_in_place(adjoint: AbstractAdjoint) -> None:
    pipe = stable_diffusion()
    given = inputs(SD)
    with differentiable(pipe, adjoint) as generate:
        image = generate(**given, **settings(SD), num_inference_steps=2).images
    with torch.no_grad():
        for weight in pipe.unet.parameters():
            weight.mul_(1.01)
    with pytest.raises(RuntimeError, match=r"changed in place|inplace operation"):
        image.sum().backward()


@EACH
def test_runs_in_one_region_of_autocast(adjoint: AbstractAdjoint) -> None:
    pipe = stable_diffusion()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        expected = of(pipe, adjoint)
    with torch.autocast("cpu", torch.bfloat16):
        found = [of(pipe, adjoint) for _ in range(2)]
    # Under its cache, autocast sums the gradients of weights in bfloat16.
    tolerance = 3e-2 if isinstance(adjoint, DirectAdjoint) else 1e-6
    assert all(error(one, expected) <= tolerance for one in found)


def rows_as_long_as_the_batch(adjoint: AbstractAdjoint) -> Tensor:
    """Flux gives its transformer the positions of 3 tokens, for any number of images."""
    pipe = sampling_once(built("flux")[0])
    generator = torch.Generator().manual_seed(3)
    latents, prompts, pooled = (
        torch.randn(3, *shape, generator=generator) for shape in ((16, 4), (3, 8), (6,))
    )
    with differentiable(pipe, adjoint) as generate:
        found: Tensor = generate(
            prompt_embeds=prompts,
            pooled_prompt_embeds=pooled,
            latents=latents.requires_grad_(),
            num_inference_steps=2,
            **settings("flux"),
        ).images
    return torch.autograd.grad(found.square().mean(), latents)[0]


def test_an_argument_that_only_looks_like_one_of_samples() -> None:
    expected = rows_as_long_as_the_batch(DirectAdjoint())
    assert error([rows_as_long_as_the_batch(CheckpointAdjoint())], [expected]) <= 1e-6
    with pytest.raises(ValueError, match=r"split is 3, but .* take split=1"):
        rows_as_long_as_the_batch(CheckpointAdjoint(split=3))


# ----------------------------------------------------------------------------- around the network


class Checker(nn.Module):
    """Blackens the second image, as diffusers' own does: in place, without a graph."""

    device, dtype = torch.device("cpu"), torch.float32

    @torch.no_grad()
    def forward(self, clip_input: Tensor, images: Tensor) -> tuple[Tensor, list[bool]]:
        images[1] = torch.zeros_like(images[1])
        return images, [False, True]


def extracted(images: list[Any], return_tensors: str) -> Any:
    values = SimpleNamespace(pixel_values=torch.zeros(len(images), 3, 4, 4))
    return SimpleNamespace(to=lambda device: values)


@EACH
def test_a_safety_checker(adjoint: AbstractAdjoint) -> None:
    """The gradient of the image that passes is as without it; that of the other is zero."""
    pipe = stable_diffusion()
    without = only_first(pipe, adjoint)
    pipe.safety_checker, pipe.feature_extractor = Checker(), extracted
    given = inputs(SD)
    with differentiable(pipe, adjoint) as generate:
        images = generate(**given, **settings(SD), num_inference_steps=2).images
        assert not images[1].detach().any()
        (found,) = torch.autograd.grad((images - 0.2).square().sum(), given["latents"])
    assert torch.equal(found[1], torch.zeros_like(found[1]))
    assert error([found[0]], [without[0]]) <= most(adjoint)
    assert "run_safety_checker" not in vars(pipe)


def only_first(pipe: Any, adjoint: AbstractAdjoint) -> Tensor:
    """The gradient of the first image without a checker."""
    given = inputs(SD)
    with differentiable(pipe, adjoint) as generate:
        images = generate(**given, **settings(SD), num_inference_steps=2).images
    return torch.autograd.grad((images[0] - 0.2).square().sum(), given["latents"])[0]


def upcasting_xl() -> Any:
    """SDXL in float16, whose VAE is moved to float32 for the decoding alone."""
    pipe = sampling_once(tiny_pipelines.stable_diffusion_xl().pipe)
    vae = tiny_pipelines.vae()
    vae.register_to_config(force_upcast=True)
    pipe.register_modules(vae=vae)
    return pipe.to(torch.float16)


def xl_images(pipe: Any, adjoint: AbstractAdjoint, output: str) -> tuple[Tensor, Tensor]:
    """Latents that require a gradient, and images."""
    given = {name: value.detach().half() for name, value in inputs("stable-diffusion-xl").items()}
    latents = given.pop("latents").requires_grad_()
    with differentiable(pipe, adjoint) as generate:
        images = generate(
            **given, latents=latents, guidance_scale=1.0, num_inference_steps=2, output_type=output
        ).images
    return latents, images


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
@pytest.mark.parametrize("trained", [False, True])
@EACH
def test_a_decoder_that_is_moved_for_the_call(adjoint: AbstractAdjoint, trained: bool) -> None:
    """Against a decoder that stays in float32."""
    pipe = upcasting_xl()
    pipe.vae.requires_grad_(trained)
    weight = pipe.vae.decoder.conv_in.weight
    latents, images = xl_images(pipe, adjoint, "pt")
    assert pipe.vae.dtype == torch.float16
    images.square().mean().backward()
    found, of_weight = latents.grad, weight.grad
    weight.grad = None
    assert pipe.vae.dtype == torch.float16
    latents, finished = xl_images(pipe, DirectAdjoint(), "latent")
    vae = pipe.vae.float()
    decoded = vae.decode(finished.float() / vae.config.scaling_factor).sample
    images = (decoded / 2 + 0.5).clamp(0, 1)
    images.square().mean().backward()
    assert found is not None
    assert latents.grad is not None
    # What passes through the network does so in float16.
    assert error([found], [latents.grad]) <= (2e-3 if most(adjoint) > 1e-6 else 1e-6)
    if trained:
        assert of_weight is not None
        assert weight.grad is not None
        assert error([of_weight], [weight.grad]) <= 1e-6


@EACH
def test_a_watermark(adjoint: AbstractAdjoint) -> None:
    pipe = sampling_once(tiny_pipelines.stable_diffusion_xl().pipe)
    pipe.register_modules(vae=tiny_pipelines.vae())
    pipe.watermark = SimpleNamespace(apply_watermark=lambda images: images.detach())
    given = inputs("stable-diffusion-xl")
    with (
        differentiable(pipe, adjoint) as generate,
        pytest.raises(ValueError, match=r"adds a watermark, which has no gradient"),
    ):
        generate(**given, guidance_scale=1.0, num_inference_steps=2, output_type="pt")
