"""Diffusers pipelines with random networks of a few thousand weights, built from configs alone.

Each :class:`Tiny` draws latents with the pipeline, and gives the same network as a plain function
of (x, timestep) for the library's own loop.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor

diffusers.utils.logging.set_verbosity_error()

SIZE = 8
_PIXELS = 16
_SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Tiny:
    """A pipeline, how to draw ``latents`` to the end with it, and the network inside."""

    pipe: Any
    draw: Callable[..., Tensor]
    model: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...]

    def noise(self, batch: int) -> Tensor:
        """Starting latents, the same for every sample of this seed and place."""
        generator = torch.Generator().manual_seed(7)
        return torch.randn(batch, *self.shape, generator=generator)


def ddpm() -> Tiny:
    return _unconditional("DDPMPipeline", DDPMScheduler(clip_sample=False))


def ddim() -> Tiny:
    return _unconditional("DDIMPipeline", DDIMScheduler(clip_sample=True))


def _unconditional(name: str, scheduler: Any) -> Tiny:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    pipe = quiet(_pipeline(name)(unet=unet, scheduler=scheduler))

    def draw(latents: Tensor, steps: int) -> Tensor:
        # These pipelines draw their latents themselves, and clip what they return.
        return _without_clipping(pipe, latents, steps)

    return Tiny(pipe, draw, lambda x, t: unet(x, t).sample, (3, SIZE, SIZE))


def _without_clipping(pipe: Any, latents: Tensor, steps: int) -> Tensor:
    """What the last step of the scheduler returned, starting from ``latents``."""
    module = diffusers.pipelines.ddpm.pipeline_ddpm
    if type(pipe).__name__ == "DDIMPipeline":
        module = diffusers.pipelines.ddim.pipeline_ddim
    drawn, step, seen = module.randn_tensor, pipe.scheduler.step, []

    def recording(*args: Any, **kwargs: Any) -> Any:
        seen.append(step(*args, **kwargs))
        return seen[-1]

    module.randn_tensor, pipe.scheduler.step = lambda *_, **__: latents, recording
    try:
        pipe(batch_size=len(latents), num_inference_steps=steps, output_type="np")
    finally:
        module.randn_tensor = drawn
        del pipe.scheduler.step
    last: Tensor = seen[-1].prev_sample
    return last


def _unet(**kwargs: Any) -> Any:
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=SIZE,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        **kwargs,
    ).eval()


def vae() -> Any:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=[4, 4],
        norm_num_groups=2,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
    ).eval()


def _stable_diffusion_pipe(name: str) -> Any:
    scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1, **_SD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = _pipeline(name)(
            vae=vae(),
            text_encoder=None,
            tokenizer=None,
            unet=_unet(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return quiet(pipe)


def stable_diffusion(guidance_scale: float = 1.0) -> Tiny:
    """Text-to-image; ``guidance_scale`` above 1 doubles the batch of the network."""
    pipe = _stable_diffusion_pipe("StableDiffusionPipeline")
    prompt, negative = _embeddings(3, 8)

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        return pipe(
            **_prompts(prompt, negative, latents),
            **{"num_inference_steps": steps, "guidance_scale": guidance_scale, **kwargs},
            height=_PIXELS,
            width=_PIXELS,
            latents=latents,
            output_type="latent",
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        if guidance_scale == 1:
            return pipe.unet(x, t, prompt.expand(len(x), -1, -1)).sample
        both = torch.cat([e.expand(len(x), -1, -1) for e in (negative, prompt)])
        without, given = pipe.unet(torch.cat([x, x]), t, both).sample.chunk(2)
        return without + guidance_scale * (given - without)

    return Tiny(pipe, draw, model, (4, SIZE, SIZE))


def stable_diffusion_img2img() -> Tiny:
    pipe = _stable_diffusion_pipe("StableDiffusionImg2ImgPipeline")
    prompt, negative = _embeddings(3, 8)

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        """``latents`` is the image here, already encoded."""
        return pipe(
            image=latents,
            **_prompts(prompt, negative, latents),
            **{"strength": 0.5, **kwargs},
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        return pipe.unet(x, t, prompt.expand(len(x), -1, -1)).sample

    return Tiny(pipe, draw, model, (4, SIZE, SIZE))


def stable_diffusion_inpaint() -> Tiny:
    """The network of four channels, where the pipeline edits the latents after every call."""
    pipe = _stable_diffusion_pipe("StableDiffusionInpaintPipeline")
    prompt, negative = _embeddings(3, 8)
    pipe._encode_vae_image = lambda *_, **__: inpainted()[0]

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        mask = torch.zeros(1, 1, _PIXELS, _PIXELS)
        mask[..., : _PIXELS // 2] = 1
        return pipe(
            image=torch.zeros(1, 3, _PIXELS, _PIXELS),
            mask_image=mask,
            **_prompts(prompt, negative, latents),
            **{"strength": 1.0, **kwargs},
            height=_PIXELS,
            width=_PIXELS,
            latents=latents,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        return pipe.unet(x, t, prompt.expand(len(x), -1, -1)).sample

    return Tiny(pipe, draw, model, (4, SIZE, SIZE))


def inpainted() -> tuple[Tensor, Tensor]:
    """The encoded image of the inpainting pipeline, and its mask: the left half is drawn anew."""
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1
    return torch.linspace(-1, 1, 4 * SIZE * SIZE).reshape(1, 4, SIZE, SIZE), mask


def stable_diffusion_xl() -> Tiny:
    unet = _unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=6 * 2 + 6,
    )
    pipe = quiet(
        _pipeline("StableDiffusionXLPipeline")(
            vae=None,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **_SD),
            add_watermarker=False,
        )
    )
    prompt, _ = _embeddings(3, 8)
    pooled = torch.linspace(-1, 1, 6)[None]

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        return pipe(
            prompt_embeds=prompt.to(latents.dtype).expand(len(latents), -1, -1),
            pooled_prompt_embeds=pooled.to(latents.dtype).expand(len(latents), -1),
            latents=latents,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
            **kwargs,
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        pixels = float(8 * SIZE)
        ids = torch.tensor([pixels, pixels, 0, 0, pixels, pixels]).expand(len(x), -1)
        added = {"text_embeds": pooled.expand(len(x), -1), "time_ids": ids}
        return unet(x, t, prompt.expand(len(x), -1, -1), added_cond_kwargs=added).sample

    return Tiny(pipe, draw, model, (4, SIZE, SIZE))


def stable_diffusion_3() -> Tiny:
    torch.manual_seed(3)
    transformer = SD3Transformer2DModel(
        sample_size=SIZE,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=8,
        pooled_projection_dim=6,
        out_channels=4,
    ).eval()
    names = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]
    names += ["text_encoder_3", "tokenizer_3"]
    pipe = quiet(
        _pipeline("StableDiffusion3Pipeline")(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=None,
            **dict.fromkeys(names),
        )
    )
    prompt, _ = _embeddings(3, 8)
    pooled = torch.linspace(-1, 1, 6)[None]

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        return pipe(
            prompt_embeds=prompt.to(latents.dtype).expand(len(latents), -1, -1),
            pooled_prompt_embeds=pooled.to(latents.dtype).expand(len(latents), -1),
            height=8 * SIZE,
            width=8 * SIZE,
            latents=latents,
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="latent",
            **kwargs,
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        return transformer(
            hidden_states=x,
            timestep=t.expand(len(x)),
            encoder_hidden_states=prompt.expand(len(x), -1, -1),
            pooled_projections=pooled.expand(len(x), -1),
        ).sample

    return Tiny(pipe, draw, model, (4, SIZE, SIZE))


def flux() -> Tiny:
    return _flux("FluxPipeline")


def flux_img2img() -> Tiny:
    """``latents`` are the starting point itself here: the pipeline adds no noise to them."""
    return _flux("FluxImg2ImgPipeline")


def _flux(name: str) -> Tiny:
    torch.manual_seed(4)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=6,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    names = ["text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae"]
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    pipe = quiet(
        _pipeline(name)(transformer=transformer, scheduler=scheduler, **dict.fromkeys(names))
    )
    prompt, _ = _embeddings(3, 8)
    pooled = torch.linspace(-1, 1, 6)[None]
    height = 4

    def draw(latents: Tensor, steps: int, **kwargs: Any) -> Tensor:
        if name == "FluxImg2ImgPipeline":
            kwargs = {"image": torch.zeros(1, 16, height, height), "strength": 0.5, **kwargs}
        return pipe(
            prompt_embeds=prompt.to(latents.dtype).expand(len(latents), -1, -1),
            pooled_prompt_embeds=pooled.to(latents.dtype).expand(len(latents), -1),
            height=16 * height,
            width=16 * height,
            latents=latents,
            num_inference_steps=steps,
            output_type="latent",
            **kwargs,
        ).images

    def model(x: Tensor, t: Tensor) -> Tensor:
        rows, columns = np.divmod(np.arange(height * height), height)
        places = np.stack([np.zeros_like(rows), rows, columns], axis=1)
        return transformer(
            hidden_states=x,
            timestep=t.expand(len(x)) / 1000,
            pooled_projections=pooled.expand(len(x), -1),
            encoder_hidden_states=prompt.expand(len(x), -1, -1),
            txt_ids=torch.zeros(3, 3),
            img_ids=torch.from_numpy(places).float(),
        ).sample

    return Tiny(pipe, draw, model, (height * height, 4))


def _pipeline(name: str) -> Any:
    return getattr(diffusers, name)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _embeddings(tokens: int, width: int) -> tuple[Tensor, Tensor]:
    both = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(5))
    return both[:1], both[1:]


def _prompts(prompt: Tensor, negative: Tensor, latents: Tensor) -> dict[str, Tensor]:
    shape = (len(latents), -1, -1)
    return {
        "prompt_embeds": prompt.to(latents.dtype).expand(shape),
        "negative_prompt_embeds": negative.to(latents.dtype).expand(shape),
    }
