"""Pipelines of diffusers of tiny random components: further transformers of videos."""

from __future__ import annotations

from typing import Any

import diffusers
from PIL import Image

from tests.pipeline_agreement import Case
from tests.pipeline_cases import PIXELS, POOLED, SIDE, TOKENS, WIDTH, normal, nothing
from tests.pipeline_cases_flow import (
    ENCODERS,
    LATENT,
    TWO,
    VIDEO,
    WAN,
    cogvideo,
    embeddings,
    flow,
    ltx,
    no_prompt,
    ones,
    picture,
    pooled,
    side,
    wan,
)
from tests.pipeline_cases_images import CAUSAL_VAE, kandinsky_5, prompts_kandinsky_5


def frames() -> list[Any]:
    return [Image.new("RGB", (PIXELS, PIXELS), "grey")] * VIDEO["num_frames"]


def photo() -> Any:
    return Image.new("RGB", (4 * SIDE, 4 * SIDE), "grey")


def still() -> dict[str, Any]:
    return {**embeddings(), **LATENT, **VIDEO, **side(2), "image": picture()}


# Wan and its relatives


def wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(base_dim=3, **CAUSAL_VAE).eval()


def wan_video(**kwargs: Any) -> dict[str, Any]:
    return {**wan(**kwargs), "vae": wan_vae()}


def wan_image() -> dict[str, Any]:
    """As of Wan 2.2, without an encoder of images."""
    return {
        **wan_video(in_channels=12),
        **nothing("image_encoder", "image_processor"),
        "boundary_ratio": None,
    }


def wan_vace() -> dict[str, Any]:
    transformer = diffusers.WanVACETransformer3DModel(
        in_channels=4, vace_layers=[0], vace_in_channels=8 + 64, **WAN
    ).eval()
    return {**wan_video(), "transformer": transformer}


def skyreels() -> dict[str, Any]:
    transformer = diffusers.SkyReelsV2Transformer3DModel(in_channels=4, **WAN).eval()
    return {**wan_video(), "transformer": transformer}


def sana_video() -> dict[str, Any]:
    transformer = diffusers.SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        sample_size=SIDE,
        patch_size=(1, 2, 2),
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    ).eval()
    return {**wan_video(), "transformer": transformer}


# LTX


def ltx_vae() -> Any:
    made = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()
    made.use_framewise_encoding = False
    return made


def ltx_image() -> dict[str, Any]:
    return {**ltx(), "vae": ltx_vae()}


def prompts_ltx() -> dict[str, Any]:
    return {**embeddings(mask=True), **LATENT, **VIDEO, **side(4)}


# HunyuanVideo


def hunyuan_video(channels: int = 4, **kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=channels,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=WIDTH,
        pooled_projection_dim=POOLED,
        rope_axes_dim=(2, 4, 4),
        **kwargs,
    ).eval()
    return {
        **nothing(*TWO),
        "transformer": transformer,
        "vae": hunyuan_vae(),
        "scheduler": flow(shift=7.0),
    }


def hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    ).eval()


def prompts_hunyuan_video() -> dict[str, Any]:
    made = {**embeddings(mask=True), **pooled(), **LATENT, **VIDEO, **side(2)}
    return {**made, "negative_prompt": None}


def hunyuan_video_15() -> dict[str, Any]:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=4,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    ).eval()
    decoder = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(4, 4),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
    ).eval()
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=2.0)
    return {
        **nothing(*TWO),
        "transformer": transformer,
        "vae": decoder,
        "scheduler": flow(shift=7.0),
        "guider": guider,
    }


def prompts_hunyuan_15() -> dict[str, Any]:
    made: dict[str, Any] = {**LATENT, **VIDEO, **side(2)}
    for name in ("", "negative_"):
        for end in ("", "_2"):
            made[f"{name}prompt_embeds{end}"] = normal(1, TOKENS, WIDTH, seed=1)
            made[f"{name}prompt_embeds_mask{end}"] = ones(1, TOKENS)
    return made


# Cosmos


class Harmless:
    """A safety checker that lets everything through."""

    def to(self, *_: Any, **__: Any) -> Harmless:
        return self

    def check_text_safety(self, *_: Any) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


def cosmos_transformer(channels: int = 4) -> Any:
    return diffusers.CosmosTransformer3DModel(
        in_channels=channels,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        mlp_ratio=2,
        text_embed_dim=WIDTH,
        adaln_lora_dim=4,
        max_size=(4, 16, 16),
        patch_size=(1, 2, 2),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False,
        extra_pos_embed_type="learnable",
    ).eval()


def cosmos(channels: int = 4) -> dict[str, Any]:
    decoder = diffusers.AutoencoderKLCosmos(
        latent_channels=4,
        encoder_block_out_channels=(4, 4, 4, 4),
        decode_block_out_channels=(4, 4, 4, 4),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        patch_size=4,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
    ).eval()
    return {
        **nothing(*ENCODERS),
        "transformer": cosmos_transformer(channels),
        "vae": decoder,
        "safety_checker": Harmless(),
        "scheduler": diffusers.EDMEulerScheduler(
            sigma_min=0.002, sigma_max=80, sigma_data=0.5, final_sigmas_type="sigma_min"
        ),
    }


def cosmos_2(channels: int = 4) -> dict[str, Any]:
    return {
        **cosmos(channels),
        "vae": wan_vae(),
        "scheduler": flow(use_karras_sigmas=True),
    }


# CogVideoX, EasyAnimate


def cogvideo_vae() -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()


def cogvideo_image() -> dict[str, Any]:
    return {**cogvideo(in_channels=8), "vae": cogvideo_vae()}


def kandinsky_5_video() -> dict[str, Any]:
    return kandinsky_5(vae=hunyuan_vae())


CASES = (
    Case("WanImageToVideoPipeline", wan_image, still),
    Case(
        "WanVideoToVideoPipeline",
        wan_video,
        lambda: {**embeddings(), **LATENT, **side(2), "video": frames()},
    ),
    Case("WanVACEPipeline", wan_vace, lambda: {**embeddings(), **LATENT, **VIDEO, **side(2)}),
    Case("SkyReelsV2Pipeline", skyreels, lambda: {**embeddings(), **LATENT, **VIDEO, **side(2)}),
    Case(
        "SanaVideoPipeline",
        sana_video,
        lambda: {
            **embeddings(mask=True),
            **LATENT,
            "frames": 9,
            **side(4),
            **no_prompt(use_resolution_binning=False),
        },
    ),
    Case("LTXImageToVideoPipeline", ltx_image, lambda: {**prompts_ltx(), "image": picture(4)}),
    Case("LTXConditionPipeline", ltx_image, lambda: {**prompts_ltx(), "image": photo()}),
    Case("HunyuanVideoPipeline", hunyuan_video, prompts_hunyuan_video),
    Case(
        "HunyuanSkyreelsImageToVideoPipeline",
        lambda: hunyuan_video(8),
        lambda: {**prompts_hunyuan_video(), "image": picture()},
    ),
    Case(
        "HunyuanVideoImageToVideoPipeline",
        lambda: {**hunyuan_video(9, image_condition_type="latent_concat"), "image_processor": None},
        lambda: {**prompts_hunyuan_video(), "image": picture()},
    ),
    Case("HunyuanVideo15Pipeline", hunyuan_video_15, prompts_hunyuan_15),
    Case(
        "CosmosTextToWorldPipeline", cosmos, lambda: {**embeddings(), **LATENT, **VIDEO, **side(4)}
    ),
    Case(
        "CosmosVideoToWorldPipeline",
        lambda: cosmos(5),
        lambda: {**embeddings(), **LATENT, **VIDEO, **side(4), "image": picture(4)},
    ),
    Case("Cosmos2TextToImagePipeline", cosmos_2, lambda: {**embeddings(), **LATENT, **side(4)}),
    Case(
        "Cosmos2VideoToWorldPipeline",
        lambda: cosmos_2(5),
        lambda: {**embeddings(), **LATENT, **VIDEO, **side(4), "image": picture(4)},
    ),
    Case("CogVideoXImageToVideoPipeline", cogvideo_image, still),
    Case(
        "CogVideoXFunControlPipeline",
        cogvideo_image,
        lambda: {**embeddings(), **LATENT, **side(2), "control_video": [frames()]},
    ),
    Case("Kandinsky5T2VPipeline", kandinsky_5_video, lambda: {**prompts_kandinsky_5(), **VIDEO}),
)
