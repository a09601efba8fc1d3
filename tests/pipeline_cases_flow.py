"""Pipelines of diffusers of tiny random components, all built from configs alone: transformers.

Text encoders are left out: the calls are given embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from tests.pipeline_agreement import Case
from tests.pipeline_cases import POOLED, SIDE, TOKENS, WIDTH, image, normal, nothing, vae

ENCODERS = ("text_encoder", "tokenizer")
TWO = (*ENCODERS, "text_encoder_2", "tokenizer_2")
THREE = (*TWO, "text_encoder_3", "tokenizer_3")
LATENT = {"output_type": "latent"}


def flow(**kwargs: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**kwargs)


def ones(*shape: int) -> Any:
    return torch.ones(*shape, dtype=torch.long)


def no_prompt(**kwargs: Any) -> dict[str, Any]:
    """For pipelines whose negative prompt is "" and not None by default."""
    return {"negative_prompt": None, **kwargs}


def embeddings(width: int = WIDTH, *, tokens: int = TOKENS, mask: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {
        "prompt_embeds": normal(1, tokens, width, seed=1),
        "negative_prompt_embeds": normal(1, tokens, width, seed=2),
    }
    if mask:
        made["prompt_attention_mask"] = ones(1, tokens)
        made["negative_prompt_attention_mask"] = ones(1, tokens)
    return made


def of_text(transformer: Any, scheduler: Any) -> dict[str, Any]:
    """The components of a pipeline of latents with one text encoder, which is left out."""
    return {
        **nothing(*ENCODERS),
        "transformer": transformer,
        "scheduler": scheduler,
        "vae": vae(),
    }


def pooled() -> dict[str, Any]:
    return {
        "pooled_prompt_embeds": normal(1, POOLED, seed=4),
        "negative_pooled_prompt_embeds": normal(1, POOLED, seed=5),
    }


def positive(made: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made.items() if not name.startswith("negative")}


def side(factor: int, of: int = SIDE) -> dict[str, int]:
    return {"height": factor * of, "width": factor * of}


def picture(factor: int = 2) -> Any:
    return (image(factor * SIDE) + 1) / 2


def mask(factor: int = 2) -> Any:
    made = torch.zeros(1, 1, factor * SIDE, factor * SIDE)
    made[..., : factor * SIDE // 2] = 1
    return made


# Stable Diffusion 3


def sd3(channels: int = 4, **kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=1,
        in_channels=channels,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=8,
        pooled_projection_dim=POOLED,
        out_channels=channels,
    ).eval()
    return {
        **nothing(*THREE),
        "transformer": transformer,
        "scheduler": flow(shift=3.0),
        "vae": shifted_vae(channels),
        **kwargs,
    }


def prompts_3() -> dict[str, Any]:
    return {**embeddings(), **pooled(), **LATENT}


# Flux and its relatives


def flux(channels: int = 4, **kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=POOLED,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    return {
        **nothing(*TWO),
        "transformer": transformer,
        "scheduler": flow(use_dynamic_shifting=True, shift=3.0),
        "vae": shifted_vae(1),
        **kwargs,
    }


def prompts_flux() -> dict[str, Any]:
    return {**positive({**embeddings(), **pooled()}), **LATENT, **side(4)}


def chroma() -> dict[str, Any]:
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=8,
        approximator_layers=1,
        approximator_num_channels=16,
    ).eval()
    return {
        **nothing(*ENCODERS),
        "transformer": transformer,
        "scheduler": flow(),
        "vae": shifted_vae(1),
    }


def prompts_chroma() -> dict[str, Any]:
    masks = ("prompt_attention_mask", "negative_prompt_attention_mask")
    made = embeddings(mask=True)
    return {**made, **{name: made[name].bool() for name in masks}, **LATENT, **side(4)}


def shifted_vae(channels: int = 4) -> Any:
    return vae(channels, shift_factor=0.1)


# Others of images


def aura_flow() -> dict[str, Any]:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=64,
    ).eval()
    return of_text(transformer, flow(shift=1.73))


def pixart() -> dict[str, Any]:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=SIDE,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
    ).eval()
    return of_text(transformer, diffusers.DPMSolverMultistepScheduler())


def dit() -> dict[str, Any]:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=SIDE,
        num_layers=1,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    ).eval()
    return {"transformer": transformer, "vae": vae(), "scheduler": diffusers.DDIMScheduler()}


def sana(**kwargs: Any) -> dict[str, Any]:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=WIDTH,
        sample_size=SIDE,
        **kwargs,
    ).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    }


def lumina_2() -> dict[str, Any]:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=WIDTH,
    ).eval()
    return of_text(transformer, flow())


def cogview_4(channels: int = 4) -> dict[str, Any]:
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=channels,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    ).eval()
    return of_text(
        transformer,
        flow(
            use_dynamic_shifting=True,
            base_shift=0.25,
            max_shift=0.75,
            time_shift_type="linear",
        ),
    )


def cogview_3() -> dict[str, Any]:
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    ).eval()
    return of_text(transformer, diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction"))


def hunyuan_dit() -> dict[str, Any]:
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=SIDE,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=POOLED,
        hidden_size=24,
        text_len=TOKENS,
        text_len_t5=TOKENS,
        activation_fn="gelu-approximate",
    ).eval()
    return {
        **nothing(*TWO, "safety_checker", "feature_extractor"),
        "requires_safety_checker": False,
        "transformer": transformer,
        "scheduler": diffusers.DDPMScheduler(prediction_type="v_prediction"),
        "vae": vae(),
    }


def prompts_hunyuan() -> dict[str, Any]:
    one = embeddings(mask=True)
    return {**one, **{f"{name}_2": value for name, value in one.items()}}


def qwen() -> dict[str, Any]:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    ).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": flow(use_dynamic_shifting=True),
    }


# Videos


WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "out_channels": 4,
    "text_dim": WIDTH,
    "freq_dim": 16,
    "ffn_dim": 16,
    "num_layers": 1,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
"""Of the transformers of Wan and its relatives."""


def wan(in_channels: int = 4) -> dict[str, Any]:
    transformer = diffusers.WanTransformer3DModel(in_channels=in_channels, **WAN).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": diffusers.UniPCMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    }


def ltx() -> dict[str, Any]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=WIDTH,
    ).eval()
    return {**nothing(*ENCODERS, "vae"), "transformer": transformer, "scheduler": flow()}


def cogvideo(in_channels: int = 4) -> dict[str, Any]:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=in_channels,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=SIDE,
        sample_height=SIDE,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=TOKENS,
    ).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction"),
    }


def latte() -> dict[str, Any]:
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=SIDE,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        video_length=2,
    ).eval()
    return of_text(transformer, diffusers.DDIMScheduler())


def allegro() -> dict[str, Any]:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=SIDE,
        sample_height=SIDE,
        sample_frames=8,
        caption_channels=WIDTH,
    ).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": diffusers.EulerAncestralDiscreteScheduler(),
    }


def mochi() -> dict[str, Any]:
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=WIDTH,
        time_embed_dim=4,
        max_sequence_length=TOKENS,
    ).eval()
    return {
        **nothing(*ENCODERS, "vae"),
        "transformer": transformer,
        "scheduler": flow(invert_sigmas=True),
    }


VIDEO = {"num_frames": 9}

CASES = (
    Case("StableDiffusion3Pipeline", sd3, lambda: {**prompts_3(), **side(2)}),
    Case(
        "StableDiffusion3Img2ImgPipeline",
        sd3,
        lambda: {**prompts_3(), **side(2), "image": picture()},
    ),
    Case(
        "StableDiffusion3InpaintPipeline",
        lambda: sd3(16),
        lambda: {**prompts_3(), **side(2), "image": picture(), "mask_image": mask()},
    ),
    Case(
        "StableDiffusion3PAGPipeline",
        lambda: sd3(pag_applied_layers="blocks.0"),
        lambda: {**prompts_3(), **side(2)},
    ),
    Case("FluxPipeline", flux, prompts_flux),
    Case("FluxImg2ImgPipeline", flux, lambda: {**prompts_flux(), "image": picture(4)}),
    Case(
        "FluxInpaintPipeline",
        flux,
        lambda: {**prompts_flux(), "image": picture(4), "mask_image": mask(4)},
    ),
    Case(
        "FluxControlPipeline",
        lambda: flux(8),
        lambda: {**prompts_flux(), "control_image": picture(4)},
    ),
    Case(
        "FluxControlImg2ImgPipeline",
        lambda: flux(8),
        lambda: {**prompts_flux(), "image": picture(4), "control_image": picture(4)},
    ),
    Case("ChromaPipeline", chroma, prompts_chroma),
    Case("ChromaImg2ImgPipeline", chroma, lambda: {**prompts_chroma(), "image": picture(4)}),
    Case("AuraFlowPipeline", aura_flow, lambda: {**embeddings(mask=True), **LATENT, **side(2)}),
    Case(
        "PixArtAlphaPipeline",
        pixart,
        lambda: {
            **embeddings(mask=True),
            **LATENT,
            **side(2),
            **no_prompt(use_resolution_binning=False),
        },
    ),
    Case(
        "PixArtSigmaPipeline",
        pixart,
        lambda: {
            **embeddings(mask=True),
            **LATENT,
            **side(2),
            **no_prompt(use_resolution_binning=False),
        },
    ),
    Case("DiTPipeline", dit, lambda: {"class_labels": [1], "output_type": "np"}),
    Case(
        "SanaPipeline",
        sana,
        lambda: {
            **embeddings(mask=True),
            **LATENT,
            **side(32),
            **no_prompt(use_resolution_binning=False),
        },
    ),
    Case("Lumina2Pipeline", lumina_2, lambda: {**embeddings(mask=True), **LATENT, **side(2)}),
    Case("CogView4Pipeline", cogview_4, lambda: {**embeddings(), **LATENT, **side(2)}),
    Case("CogView3PlusPipeline", cogview_3, lambda: {**embeddings(), **LATENT, **side(2)}),
    Case(
        "HunyuanDiTPipeline",
        hunyuan_dit,
        lambda: {**prompts_hunyuan(), **LATENT, **side(2), "use_resolution_binning": False},
    ),
    Case(
        "QwenImagePipeline",
        qwen,
        lambda: {
            **positive(embeddings()),
            "prompt_embeds_mask": ones(1, TOKENS),
            **LATENT,
            **side(8),
        },
    ),
    Case("WanPipeline", wan, lambda: {**embeddings(), **LATENT, **VIDEO, **side(8)}),
    Case("LTXPipeline", ltx, lambda: {**embeddings(mask=True), **LATENT, **VIDEO, **side(32)}),
    Case("CogVideoXPipeline", cogvideo, lambda: {**embeddings(), **LATENT, **VIDEO, **side(8)}),
    Case(
        "LattePipeline",
        latte,
        lambda: {**embeddings(), **LATENT, **side(2), **no_prompt(video_length=2)},
    ),
    Case(
        "AllegroPipeline",
        allegro,
        lambda: {**embeddings(mask=True), **LATENT, **side(8), **no_prompt(num_frames=8)},
    ),
    Case("MochiPipeline", mochi, lambda: {**embeddings(mask=True), **LATENT}),
)
