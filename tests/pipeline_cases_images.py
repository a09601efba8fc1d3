"""Pipelines of diffusers of tiny random components: further transformers of images."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from tests.pipeline_agreement import Case
from tests.pipeline_cases import POOLED, SIDE, TOKENS, WIDTH, normal, nothing, vae
from tests.pipeline_cases_flow import (
    ENCODERS,
    LATENT,
    THREE,
    TWO,
    cogview_4,
    embeddings,
    flow,
    flux,
    mask,
    no_prompt,
    of_text,
    ones,
    picture,
    positive,
    prompts_3,
    prompts_flux,
    qwen,
    sana,
    sd3,
    shifted_vae,
    side,
)

BINNED = no_prompt(use_resolution_binning=False)

# Flux


def flux_controlnet() -> Any:
    return diffusers.FluxControlNetModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=POOLED,
        axes_dims_rope=[4, 4, 8],
    ).eval()


def flux_2(**kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        timestep_guidance_channels=8,
        axes_dims_rope=[4, 4, 4, 4],
    ).eval()
    decoder = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    return {
        **nothing(*ENCODERS),
        "transformer": transformer,
        "vae": decoder,
        "scheduler": flow(use_dynamic_shifting=True),
        **kwargs,
    }


def prompt() -> dict[str, Any]:
    return {"prompt_embeds": normal(1, TOKENS, WIDTH, seed=1), **LATENT}


# Stable Diffusion 3


def sd3_controlnet(**kwargs: Any) -> Any:
    return diffusers.SD3ControlNetModel(
        sample_size=SIDE,
        patch_size=1,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=POOLED,
        **kwargs,
    ).eval()


# Qwen, Z-Image, HiDream, Lumina, Bria


CAUSAL_VAE: dict[str, Any] = {
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
"""Of the autoencoders of Wan and Qwen-Image, which are causal in time."""


def qwen_vae() -> Any:
    return diffusers.AutoencoderKLQwenImage(base_dim=4, **CAUSAL_VAE).eval()


def qwen_image(**kwargs: Any) -> dict[str, Any]:
    return {**qwen(), "vae": qwen_vae(), **kwargs}


def prompts_qwen(factor: int = 8) -> dict[str, Any]:
    return {
        **positive(embeddings()),
        "prompt_embeds_mask": ones(1, TOKENS),
        **LATENT,
        **side(factor),
    }


def z_image() -> dict[str, Any]:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[64, 32, 32],
    ).eval()
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):
        pad.data.fill_(1.0)  # diffusers leaves them uninitialised
    return {**of_text(transformer, flow(shift=3.0)), "vae": shifted_vae()}


def prompts_z() -> dict[str, Any]:
    lists = {name: [value[0]] for name, value in embeddings().items()}
    return {**lists, **LATENT, **side(2)}


def hidream() -> dict[str, Any]:
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * POOLED,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(16, 16),
        llama_layers=(0, 1),
    ).eval()
    return {
        **nothing(*THREE, "text_encoder_4", "tokenizer_4"),
        "transformer": transformer,
        "scheduler": flow(shift=3.0),
        "vae": shifted_vae(),
    }


def prompts_hidream() -> dict[str, Any]:
    made: dict[str, Any] = {**LATENT, **side(2)}
    for name in ("", "negative_"):
        made[f"{name}prompt_embeds_t5"] = normal(1, TOKENS, WIDTH, seed=1)
        made[f"{name}prompt_embeds_llama3"] = normal(2, 1, TOKENS, WIDTH, seed=2)
        made[f"{name}pooled_prompt_embeds"] = normal(1, 2 * POOLED, seed=3)
    return made


def lumina() -> dict[str, Any]:
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        learn_sigma=True,
        qk_norm=True,
        cross_attention_dim=WIDTH,
        scaling_factor=1.0,
    ).eval()
    return of_text(transformer, flow())


def bria() -> dict[str, Any]:
    transformer = diffusers.BriaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=None,
        axes_dims_rope=[0, 4, 4],
    ).eval()
    return of_text(transformer, flow())


def kandinsky_5(**kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=POOLED,
        time_dim=8,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=8,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(1, 1, 2),
        visual_cond=False,
        attention_type="regular",
    ).eval()
    return {
        **nothing(*TWO),
        "transformer": transformer,
        "vae": vae(),
        "scheduler": flow(shift=5.0),
        **kwargs,
    }


def prompts_kandinsky_5() -> dict[str, Any]:
    made: dict[str, Any] = {**LATENT, **side(2)}
    for name in ("", "negative_"):
        made[f"{name}prompt_embeds_qwen"] = normal(1, TOKENS, WIDTH, seed=1)
        made[f"{name}prompt_embeds_clip"] = normal(1, POOLED, seed=2)
        made[f"{name}prompt_cu_seqlens"] = torch.tensor([0, TOKENS], dtype=torch.int32)
    return made


# Sana


def sana_sprint() -> dict[str, Any]:
    made = sana(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return {**made, "scheduler": diffusers.SCMScheduler(prediction_type="trigflow")}


def sana_controlnet() -> Any:
    return diffusers.SanaControlNetModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=SIDE,
    ).eval()


def deep_vae() -> Any:
    return diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    ).eval()


def prompts_sana(factor: int = 2) -> dict[str, Any]:
    return {**embeddings(mask=True), **LATENT, **side(factor), **BINNED}


CASES = (
    Case(
        "FluxFillPipeline",
        lambda: flux(24),
        lambda: {**prompts_flux(), "image": picture(4), "mask_image": mask(4)},
    ),
    Case(
        "FluxControlInpaintPipeline",
        lambda: flux(8),
        lambda: {
            **prompts_flux(),
            "image": picture(4),
            "control_image": picture(4),
            "mask_image": mask(4),
        },
    ),
    Case(
        "FluxControlNetPipeline",
        lambda: flux(controlnet=flux_controlnet()),
        lambda: {**prompts_flux(), "control_image": picture(4)},
    ),
    Case(
        "FluxControlNetImg2ImgPipeline",
        lambda: flux(controlnet=flux_controlnet()),
        lambda: {**prompts_flux(), "image": picture(4), "control_image": picture(4)},
    ),
    Case(
        "FluxControlNetInpaintPipeline",
        lambda: flux(controlnet=flux_controlnet()),
        lambda: {
            **prompts_flux(),
            "image": picture(4),
            "control_image": picture(4),
            "mask_image": mask(4),
        },
    ),
    Case(
        "FluxKontextInpaintPipeline",
        flux,
        lambda: {
            **prompts_flux(),
            "image": picture(4),
            "mask_image": mask(4),
            "max_area": (4 * SIDE) ** 2,
            "_auto_resize": False,
        },
    ),
    Case("Flux2Pipeline", flux_2, lambda: {**prompt(), **side(4)}),
    Case("Flux2KleinPipeline", flux_2, lambda: {**embeddings(), **LATENT, **side(4)}),
    Case(
        "StableDiffusion3ControlNetPipeline",
        lambda: sd3(controlnet=sd3_controlnet(in_channels=4, out_channels=4)),
        lambda: {**prompts_3(), **side(2), "control_image": picture()},
    ),
    Case(
        "StableDiffusion3ControlNetInpaintingPipeline",
        lambda: sd3(
            controlnet=sd3_controlnet(in_channels=4, out_channels=4, extra_conditioning_channels=1)
        ),
        lambda: {**prompts_3(), **side(2), "control_image": picture(), "control_mask": mask()},
    ),
    Case(
        "StableDiffusion3PAGImg2ImgPipeline",
        lambda: sd3(pag_applied_layers="blocks.0"),
        lambda: {**prompts_3(), **side(2), "image": picture()},
    ),
    Case("QwenImageImg2ImgPipeline", qwen_image, lambda: {**prompts_qwen(), "image": picture(8)}),
    Case(
        "QwenImageInpaintPipeline",
        qwen_image,
        lambda: {**prompts_qwen(), "image": picture(8), "mask_image": mask(8)},
    ),
    Case("ZImagePipeline", z_image, prompts_z),
    Case("ZImageImg2ImgPipeline", z_image, lambda: {**prompts_z(), "image": picture()}),
    Case(
        "ZImageInpaintPipeline",
        z_image,
        lambda: {**prompts_z(), "image": picture(), "mask_image": mask()},
    ),
    Case("HiDreamImagePipeline", hidream, prompts_hidream),
    Case("LuminaPipeline", lumina, lambda: {**embeddings(mask=True), **LATENT, **side(2)}),
    Case("BriaPipeline", bria, lambda: {**embeddings(), **LATENT, **side(4)}),
    Case(
        "CogView4ControlPipeline",
        lambda: cogview_4(8),
        lambda: {**embeddings(), **LATENT, **side(2), "control_image": picture()},
    ),
    Case("Kandinsky5T2IPipeline", kandinsky_5, prompts_kandinsky_5),
    Case(
        "SanaPAGPipeline",
        lambda: {**sana(), "pag_applied_layers": "transformer_blocks.0"},
        lambda: prompts_sana(32),
    ),
    Case(
        "SanaControlNetPipeline",
        lambda: {**sana(), "vae": deep_vae(), "controlnet": sana_controlnet()},
        lambda: {**prompts_sana(4), "control_image": picture(4)},
    ),
    Case("SanaSprintPipeline", sana_sprint, lambda: {**positive(prompts_sana(32))}),
)
