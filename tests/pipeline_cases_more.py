"""Pipelines of diffusers of tiny random components: DeepFloyd, AnimateDiff, and PAG."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.pipeline_agreement import Case
from tests.pipeline_cases import (
    ATTENTION_FIRST,
    SIDE,
    UNET,
    WIDTH,
    image,
    normal,
    nothing,
    prompts,
    sized,
    unet,
    vae,
)
from tests.pipeline_cases_flow import (
    LATENT,
    cogvideo,
    embeddings,
    flux,
    hunyuan_dit,
    mask,
    no_prompt,
    picture,
    pixart,
    prompts_flux,
    prompts_hunyuan,
    side,
)

# Their attention with added keys has 32 groups.
WIDE = 32


def unet_of_added_keys(channels: int, out_channels: int, **kwargs: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=channels,
        out_channels=out_channels,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=WIDTH,
        cross_attention_dim=WIDE,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        **kwargs,
    ).eval()


def deepfloyd(channels: int = 3, **kwargs: Any) -> dict[str, Any]:
    network = unet_of_added_keys(
        channels,
        6,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        act_fn="gelu",
        **kwargs,
    )
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        variance_type="learned_range",
    )
    names = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "watermarker")
    return {
        **nothing(*names),
        "requires_safety_checker": False,
        "unet": network,
        "scheduler": scheduler,
    }


def pixels() -> dict[str, Any]:
    return {**prompts(), "output_type": "pt"}


def animatediff(**kwargs: Any) -> dict[str, Any]:
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 8),
        motion_layers_per_block=1,
        motion_norm_num_groups=2,
        motion_num_attention_heads=4,
    ).eval()
    return {
        **nothing("text_encoder", "tokenizer"),
        "vae": vae(),
        "unet": unet(block_out_channels=(8, 8), **ATTENTION_FIRST),
        "motion_adapter": adapter,
        "scheduler": diffusers.DDIMScheduler(clip_sample=False),
        **kwargs,
    }


CASES = (
    UNET("IFPipeline", deepfloyd, lambda: {**pixels(), **side(1)}),
    UNET("IFImg2ImgPipeline", deepfloyd, lambda: {**pixels(), "image": image(SIDE)}),
    UNET(
        "IFInpaintingPipeline",
        deepfloyd,
        lambda: {**pixels(), "image": image(SIDE), "mask_image": mask(1)},
    ),
    UNET("AnimateDiffPipeline", animatediff, lambda: {**sized(), "num_frames": 2}),
    Case(
        "FluxKontextPipeline",
        flux,
        lambda: {
            **prompts_flux(),
            "image": picture(4),
            "max_area": (4 * SIDE) ** 2,
            "_auto_resize": False,
        },
    ),
    Case(
        "PixArtSigmaPAGPipeline",
        lambda: {**pixart(), "pag_applied_layers": "blocks.0"},
        lambda: {
            **embeddings(mask=True),
            **LATENT,
            **side(2),
            **no_prompt(use_resolution_binning=False),
        },
    ),
    Case(
        "HunyuanDiTPAGPipeline",
        lambda: {**hunyuan_dit(), "pag_applied_layers": "blocks.0"},
        lambda: {
            **prompts_hunyuan(),
            **LATENT,
            **side(2),
            "use_resolution_binning": False,
        },
    ),
    Case(
        "CogVideoXVideoToVideoPipeline",
        cogvideo,
        lambda: {**embeddings(), **LATENT, **side(8), "latents": normal(1, 3, 4, SIDE, SIDE)},
    ),
)
