"""Pipelines of diffusers of tiny random components: further UNets of latents."""

from __future__ import annotations

from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)

from tests.pipeline_cases import (
    ATTENTION_FIRST,
    CONTROLNET,
    PIXELS,
    POOLED,
    SD,
    SIDE,
    TOKENS,
    UNET,
    WIDTH,
    controlnet,
    controlnet_xl,
    image,
    masked,
    normal,
    nothing,
    picture,
    prompts,
    prompts_xl,
    quiet_xl,
    sized,
    sized_xl,
    stable_diffusion,
    unconditional,
    unet,
    unet_xl,
    vae,
    without,
)

CONTROL = {"control_image": (image() + 1) / 2}


# A text encoder, for pipelines that take no embeddings


class Words:
    """A tokenizer that gives every text the same tokens."""

    model_max_length = TOKENS

    def __call__(self, text: str | list[str], **_: Any) -> Any:
        rows = 1 if isinstance(text, str) else len(text)
        ids = torch.arange(TOKENS).expand(rows, -1)
        return transformers.BatchEncoding(
            {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        )


def text_encoder() -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=8,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=2 * TOKENS,
        bos_token_id=0,
        eos_token_id=2,
    )
    return transformers.CLIPTextModelWithProjection(config).eval()


# Adapters, unions and cross-networks beside the UNet


def adapter() -> Any:
    """Its features have the size of a first block with attention."""
    return diffusers.T2IAdapter(
        in_channels=3, channels=[4, 8], num_res_blocks=1, downscale_factor=2
    ).eval()


def union() -> Any:
    return diffusers.ControlNetUnionModel(
        **CONTROLNET,
        addition_embed_type="text_time",
        addition_time_embed_dim=2,
        projection_class_embeddings_input_dim=12 + POOLED,
        num_control_type=2,
        num_trans_channel=4,
        num_trans_head=2,
        num_proj_channel=4,
    ).eval()


def quiet_union() -> dict[str, Any]:
    return quiet_xl(controlnet=union())


def plain_xl(**kwargs: Any) -> dict[str, Any]:
    return without(quiet_xl(**kwargs), "add_watermarker")


# Image variation, noised image embeddings, upscaling of latents


def variation() -> dict[str, Any]:
    return {
        **without(stable_diffusion(), "text_encoder", "tokenizer"),
        "image_encoder": image_encoder(WIDTH),
    }


def image_encoder(width: int) -> Any:
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=PIXELS,
        intermediate_size=8,
        patch_size=8,
    )
    return transformers.CLIPVisionModelWithProjection(config).eval()


def stable_unclip() -> dict[str, Any]:
    network = unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH)
    return {
        **nothing("text_encoder", "tokenizer", "feature_extractor"),
        "image_encoder": image_encoder(WIDTH),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=WIDTH).eval(),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "unet": network,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(
            prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, **SD
        ),
    }


def latent_upscale() -> dict[str, Any]:
    network = diffusers.UNet2DConditionModel(
        act_fn="gelu",
        attention_head_dim=4,
        norm_num_groups=None,
        block_out_channels=[32, 32, 64, 64],
        time_cond_proj_dim=128 + POOLED,
        conv_in_kernel=1,
        conv_out_kernel=1,
        cross_attention_dim=WIDTH,
        down_block_types=("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3),
        in_channels=8,
        mid_block_type=None,
        out_channels=5,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        up_block_types=(*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"),
    ).eval()
    return {
        **nothing("text_encoder", "tokenizer"),
        "unet": network,
        "vae": vae(),
        "scheduler": diffusers.EulerDiscreteScheduler(prediction_type="sample", **SD),
    }


# Depth, normals and materials of an image


def marigold(kind: str) -> dict[str, Any]:
    maps = 2 if kind == "intrinsics" else 1
    given = {"target_properties": {"target_names": ["a", "b"]}} if maps == 2 else {}
    return {
        "text_encoder": text_encoder(),
        "tokenizer": Words(),
        "unet": unet(in_channels=4 + 4 * maps, out_channels=4 * maps),
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(prediction_type="v_prediction", **SD),
        "prediction_type": kind,
        **given,
    }


def marigold_call() -> dict[str, Any]:
    return {**picture(), "processing_resolution": 0}


MARIGOLD = {"Depth": "depth", "Normals": "normals", "Intrinsics": "intrinsics"}


CASES = (
    UNET("DDIMPipeline", partial(unconditional, "DDIMScheduler"), dict),
    UNET(
        "StableDiffusionControlNetPAGInpaintPipeline",
        lambda: stable_diffusion(controlnet=controlnet()),
        lambda: {**sized(), **masked(), **CONTROL},
    ),
    UNET(
        "StableDiffusionXLControlNetPAGImg2ImgPipeline",
        lambda: quiet_xl(controlnet=controlnet_xl()),
        lambda: {**prompts_xl(), **picture(), **CONTROL},
    ),
    UNET(
        "StableDiffusionXLControlNetUnionPipeline",
        quiet_union,
        lambda: {**sized_xl(), "control_image": [picture()["image"]], "control_mode": [0]},
    ),
    UNET(
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        quiet_union,
        lambda: {
            **prompts_xl(),
            **picture(),
            "control_image": [picture()["image"]],
            "control_mode": [0],
        },
    ),
    UNET(
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        quiet_union,
        lambda: {
            **sized_xl(),
            **masked(),
            "control_image": [picture()["image"]],
            "control_mode": [0],
        },
    ),
    UNET(
        "StableDiffusionAdapterPipeline",
        lambda: stable_diffusion(unet=unet(**ATTENTION_FIRST), adapter=adapter()),
        lambda: {**sized(), **picture()},
    ),
    UNET(
        "StableDiffusionXLAdapterPipeline",
        lambda: plain_xl(unet=unet_xl(**ATTENTION_FIRST), adapter=adapter()),
        lambda: {**sized_xl(), **picture()},
    ),
    UNET("StableDiffusionPanoramaPipeline", stable_diffusion, sized),
    UNET(
        "StableDiffusionImageVariationPipeline",
        variation,
        lambda: {"image": image(), "height": PIXELS, "width": PIXELS, "output_type": "latent"},
    ),
    UNET(
        "StableUnCLIPImg2ImgPipeline",
        stable_unclip,
        lambda: {**sized(), "image_embeds": normal(1, WIDTH)},
    ),
    UNET(
        "StableDiffusionLatentUpscalePipeline",
        latent_upscale,
        lambda: {
            **prompts(),
            "pooled_prompt_embeds": normal(1, POOLED, seed=4),
            "negative_pooled_prompt_embeds": normal(1, POOLED, seed=5),
            "image": normal(1, 4, SIDE, SIDE),
        },
    ),
    *(
        UNET(f"Marigold{what}Pipeline", partial(marigold, kind), marigold_call)
        for what, kind in MARIGOLD.items()
    ),
)
