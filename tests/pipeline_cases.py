"""Pipelines of diffusers of tiny random components, all built from configs alone: UNets.

Text encoders are left out: the calls are given embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import diffusers
import torch
from torch import Tensor

from tests.pipeline_agreement import Case

TOKENS, WIDTH, POOLED, SIDE = 3, 8, 6, 8
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIXELS = 2 * SIDE


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nothing(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


# UNets of pixels and of latents without text


def unet_2d(**kwargs: Any) -> Any:
    settings: dict[str, Any] = {"in_channels": 3, "out_channels": 3, **kwargs}
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **settings,
    ).eval()


def unconditional(scheduler: str, **kwargs: Any) -> dict[str, Any]:
    return {"unet": unet_2d(), "scheduler": getattr(diffusers, scheduler)(**kwargs)}


# Stable Diffusion

ATTENTION_FIRST: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def unet(**kwargs: Any) -> Any:
    settings: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "cross_attention_dim": WIDTH,
        "block_out_channels": (4, 8),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE,
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=2,
        **{**settings, **kwargs},
    ).eval()


def vae(channels: int = 4, **kwargs: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=[4, 4],
        norm_num_groups=2,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=channels,
        **kwargs,
    ).eval()


CONTROLNET: dict[str, Any] = {
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 2,
    "conditioning_embedding_out_channels": (2, 4),
}


def controlnet(**kwargs: Any) -> Any:
    return diffusers.ControlNetModel(**CONTROLNET, **kwargs).eval()


def stable_diffusion(**kwargs: Any) -> dict[str, Any]:
    chosen = {"unet": unet(), **kwargs}
    return {
        **nothing("text_encoder", "tokenizer", "safety_checker", "feature_extractor"),
        "requires_safety_checker": False,
        "vae": vae(),
        "scheduler": diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SD),
        **chosen,
    }


def without(made: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in made.items() if name not in names}


def prompts() -> dict[str, Any]:
    return {
        "prompt_embeds": normal(1, TOKENS, WIDTH, seed=1),
        "negative_prompt_embeds": normal(1, TOKENS, WIDTH, seed=2),
        "output_type": "latent",
    }


def sized() -> dict[str, Any]:
    return {**prompts(), "height": PIXELS, "width": PIXELS}


def image(side: int = PIXELS) -> Tensor:
    return normal(1, 3, side, side, seed=3).clamp(-1, 1)


def picture() -> dict[str, Any]:
    return {"image": (image() + 1) / 2}


def masked() -> dict[str, Any]:
    mask = torch.zeros(1, 1, PIXELS, PIXELS)
    mask[..., : PIXELS // 2] = 1
    return {**picture(), "mask_image": mask}


# Stable Diffusion XL


def unet_xl(ids: int = 6, **kwargs: Any) -> Any:
    return unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=ids * 2 + POOLED,
        **kwargs,
    )


def stable_diffusion_xl(**kwargs: Any) -> dict[str, Any]:
    return {
        **nothing("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        "vae": vae(),
        "unet": unet_xl(),
        "scheduler": diffusers.EulerDiscreteScheduler(
            timestep_spacing="leading", steps_offset=1, **SD
        ),
        **kwargs,
    }


def quiet_xl(**kwargs: Any) -> dict[str, Any]:
    return stable_diffusion_xl(add_watermarker=False, **kwargs)


def prompts_xl() -> dict[str, Any]:
    return {
        **prompts(),
        "pooled_prompt_embeds": normal(1, POOLED, seed=4),
        "negative_pooled_prompt_embeds": normal(1, POOLED, seed=5),
    }


def sized_xl() -> dict[str, Any]:
    return {**prompts_xl(), "height": PIXELS, "width": PIXELS}


def controlnet_xl() -> Any:
    return controlnet(
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=12 + POOLED,
    )


# Latent consistency, consistency, Kandinsky, DeepFloyd


def latent_consistency() -> dict[str, Any]:
    scheduler = diffusers.LCMScheduler(original_inference_steps=50)
    return {**stable_diffusion(unet=unet(time_cond_proj_dim=8)), "scheduler": scheduler}


def consistency() -> dict[str, Any]:
    scheduler = diffusers.CMStochasticIterativeScheduler()
    return {"unet": unet_2d(), "scheduler": scheduler}


def _all(*parts: Any) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part().items()}


def _both(*parts: Any) -> Any:
    return partial(_all, *parts)


UNET = partial(Case, network="unet")
SKIP = ("safety_checker", "feature_extractor", "requires_safety_checker")

CASES = (
    UNET("DDPMPipeline", partial(unconditional, "DDPMScheduler"), dict),
    UNET("ConsistencyModelPipeline", consistency, dict),
    UNET("StableDiffusionPipeline", stable_diffusion, sized),
    UNET("StableDiffusionImg2ImgPipeline", stable_diffusion, _both(prompts, picture)),
    UNET("StableDiffusionInpaintPipeline", stable_diffusion, _both(sized, masked)),
    UNET(
        "StableDiffusionInstructPix2PixPipeline",
        lambda: stable_diffusion(unet=unet(in_channels=8)),
        _both(prompts, picture),
    ),
    UNET(
        "StableDiffusionControlNetPipeline",
        lambda: stable_diffusion(controlnet=controlnet()),
        _both(sized, picture),
    ),
    UNET(
        "StableDiffusionControlNetImg2ImgPipeline",
        lambda: stable_diffusion(controlnet=controlnet()),
        lambda: {**prompts(), **picture(), "control_image": (image() + 1) / 2},
    ),
    UNET(
        "StableDiffusionControlNetInpaintPipeline",
        lambda: stable_diffusion(controlnet=controlnet()),
        lambda: {**sized(), **masked(), "control_image": (image() + 1) / 2},
    ),
    UNET("StableDiffusionPAGPipeline", stable_diffusion, sized),
    UNET("StableDiffusionPAGImg2ImgPipeline", stable_diffusion, _both(prompts, picture)),
    UNET("StableDiffusionPAGInpaintPipeline", stable_diffusion, _both(sized, masked)),
    UNET(
        "StableDiffusionControlNetPAGPipeline",
        lambda: stable_diffusion(controlnet=controlnet()),
        _both(sized, picture),
    ),
    UNET(
        "StableDiffusionUpscalePipeline",
        lambda: {
            **without(stable_diffusion(unet=unet(in_channels=7, num_class_embeds=1000)), *SKIP[2:]),
            "low_res_scheduler": diffusers.DDPMScheduler(),
            "scheduler": diffusers.DDIMScheduler(prediction_type="v_prediction"),
        },
        lambda: {**prompts(), "image": image(SIDE), "noise_level": 20},
    ),
    UNET("StableDiffusionSAGPipeline", stable_diffusion, sized),
    UNET(
        "StableDiffusionLDM3DPipeline",
        lambda: {**stable_diffusion(), "image_encoder": None},
        lambda: {**sized(), "output_type": "np"},
    ),
    UNET(
        "StableDiffusionDepth2ImgPipeline",
        lambda: {
            **without(stable_diffusion(unet=unet(in_channels=5)), *SKIP),
            **nothing("depth_estimator", "feature_extractor"),
        },
        lambda: {**prompts(), **picture(), "depth_map": normal(1, PIXELS, PIXELS)},
    ),
    UNET("StableDiffusionXLPipeline", quiet_xl, sized_xl),
    UNET("StableDiffusionXLImg2ImgPipeline", quiet_xl, _both(prompts_xl, picture)),
    UNET("StableDiffusionXLInpaintPipeline", quiet_xl, _both(sized_xl, masked)),
    UNET(
        "StableDiffusionXLInstructPix2PixPipeline",
        lambda: quiet_xl(unet=unet_xl(in_channels=8)),
        _both(sized_xl, picture),
    ),
    UNET(
        "StableDiffusionXLControlNetPipeline",
        lambda: quiet_xl(controlnet=controlnet_xl()),
        _both(sized_xl, picture),
    ),
    UNET(
        "StableDiffusionXLControlNetImg2ImgPipeline",
        lambda: quiet_xl(controlnet=controlnet_xl()),
        lambda: {**prompts_xl(), **picture(), "control_image": (image() + 1) / 2},
    ),
    UNET(
        "StableDiffusionXLControlNetInpaintPipeline",
        lambda: quiet_xl(controlnet=controlnet_xl()),
        lambda: {**sized_xl(), **masked(), "control_image": (image() + 1) / 2},
    ),
    UNET("StableDiffusionXLPAGPipeline", quiet_xl, sized_xl),
    UNET("StableDiffusionXLPAGImg2ImgPipeline", quiet_xl, _both(prompts_xl, picture)),
    UNET("StableDiffusionXLPAGInpaintPipeline", quiet_xl, _both(sized_xl, masked)),
    UNET(
        "StableDiffusionXLControlNetPAGPipeline",
        lambda: quiet_xl(controlnet=controlnet_xl()),
        _both(sized_xl, picture),
    ),
    UNET(
        "LatentConsistencyModelPipeline",
        latent_consistency,
        lambda: without(sized(), "negative_prompt_embeds"),
    ),
    UNET(
        "LatentConsistencyModelImg2ImgPipeline",
        latent_consistency,
        lambda: {**without(prompts(), "negative_prompt_embeds"), **picture()},
    ),
)
