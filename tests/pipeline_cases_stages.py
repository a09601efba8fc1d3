"""Pipelines of diffusers of tiny random components: models of several stages, and of sounds."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from tests.pipeline_agreement import Case
from tests.pipeline_cases import (
    PIXELS,
    SD,
    SIDE,
    TOKENS,
    UNET,
    WIDTH,
    image,
    masked,
    normal,
    nothing,
    picture,
    prompts,
    sized,
    unet,
    unet_2d,
    vae,
)
from tests.pipeline_cases_more import deepfloyd, pixels, unet_of_added_keys
from tests.pipeline_cases_unets import Words, image_encoder, text_encoder

PIXEL_OUTPUT = {"output_type": "pt"}


# Kandinsky


def movq(channels: int = 4) -> Any:
    return diffusers.VQModel(
        block_out_channels=[4, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=channels,
        norm_num_groups=2,
        num_vq_embeddings=4,
        vq_embed_dim=channels,
    ).eval()


def kandinsky(channels: int = 4, embedded: str = "image") -> dict[str, Any]:
    network = unet_of_added_keys(
        channels, 8, addition_embed_type=embedded, encoder_hid_dim_type="image_proj"
    )
    scheduler = diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
    )
    return {"unet": network, "scheduler": scheduler, "movq": movq()}


def image_embeds() -> dict[str, Any]:
    return {
        "image_embeds": normal(1, WIDTH, seed=1),
        "negative_image_embeds": normal(1, WIDTH, seed=2),
        "height": PIXELS,
        "width": PIXELS,
        "output_type": "latent",
    }


def kandinsky_prior() -> dict[str, Any]:
    network = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=4,
        embedding_dim=WIDTH,
        num_layers=1,
        num_embeddings=TOKENS,
    ).eval()
    return {
        "prior": network,
        "image_encoder": image_encoder(WIDTH),
        "text_encoder": text_encoder(),
        "tokenizer": Words(),
        "image_processor": transformers.CLIPImageProcessor(crop_size=PIXELS, size=PIXELS),
        "scheduler": diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample=True,
            clip_sample_range=10.0,
        ),
    }


def kandinsky_3() -> dict[str, Any]:
    network = diffusers.Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 8),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    ).eval()
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return {
        **nothing("text_encoder", "tokenizer"),
        "unet": network,
        "scheduler": scheduler,
        "movq": movq(),
    }


def attended() -> dict[str, Any]:
    whole = torch.ones(1, TOKENS, dtype=torch.bool)
    return {"attention_mask": whole, "negative_attention_mask": whole}


# Super-resolution


def larger(**kwargs: Any) -> dict[str, Any]:
    return {
        **deepfloyd(6, class_embed_type="timestep"),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **kwargs,
    }


# Stable Cascade


def cascade_prior() -> dict[str, Any]:
    network = diffusers.StableCascadeUNet(
        conditioning_dim=8,
        block_out_channels=(8, 8),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        switch_level=(False,),
        clip_image_in_channels=4,
        clip_text_in_channels=WIDTH,
        clip_text_pooled_in_channels=WIDTH,
        dropout=(0.1, 0.1),
    ).eval()
    return {
        **nothing("text_encoder", "tokenizer", "feature_extractor", "image_encoder"),
        "prior": network,
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
    }


# Sounds


def vocoder() -> Any:
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=SIDE,
        sampling_rate=SIDE,
        upsample_initial_channel=4,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        normalize_before=False,
    )
    return transformers.SpeechT5HifiGan(config).eval()


def sound(**kwargs: Any) -> dict[str, Any]:
    return {
        **nothing("text_encoder", "tokenizer", "feature_extractor"),
        "vae": vae(in_channels=1, out_channels=1),
        "vocoder": vocoder(),
        "scheduler": diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **SD),
        **kwargs,
    }


def audio_ldm_2() -> dict[str, Any]:
    network = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(WIDTH, WIDTH),
    ).eval()
    others = {name: text_encoder() for name in ("text_encoder_2", "language_model")}
    return sound(unet=network, **others, **nothing("tokenizer_2", "projection_model"))


def generated() -> dict[str, Any]:
    whole = torch.ones(1, TOKENS, dtype=torch.long)
    return {
        "generated_prompt_embeds": normal(1, TOKENS, WIDTH, seed=3),
        "negative_generated_prompt_embeds": normal(1, TOKENS, WIDTH, seed=4),
        "attention_mask": whole,
        "negative_attention_mask": whole,
    }


def music_ldm() -> dict[str, Any]:
    network = unet(
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=WIDTH,
        class_embeddings_concat=True,
        cross_attention_dim=(4, 8),
    )
    return sound(unet=network, text_encoder=text_encoder())


def pooled_prompts() -> dict[str, Any]:
    return {
        "prompt_embeds": normal(1, WIDTH, seed=1),
        "negative_prompt_embeds": normal(1, WIDTH, seed=2),
        "output_type": "latent",
    }


CASES = (
    UNET("KandinskyV22Pipeline", kandinsky, image_embeds),
    UNET(
        "KandinskyV22Img2ImgPipeline",
        kandinsky,
        lambda: {**image_embeds(), "image": image()},
    ),
    UNET(
        "KandinskyV22InpaintPipeline",
        lambda: kandinsky(9),
        lambda: {**image_embeds(), **masked()},
    ),
    UNET(
        "KandinskyV22ControlnetPipeline",
        lambda: kandinsky(8, "image_hint"),
        lambda: {**image_embeds(), **PIXEL_OUTPUT, "hint": image(8 * SIDE)},
    ),
    UNET(
        "KandinskyV22ControlnetImg2ImgPipeline",
        lambda: kandinsky(8, "image_hint"),
        lambda: {**image_embeds(), **PIXEL_OUTPUT, "image": image(), "hint": image(8 * SIDE)},
    ),
    Case("KandinskyV22PriorPipeline", kandinsky_prior, lambda: {"prompt": "a horse"}, "prior"),
    UNET("Kandinsky3Pipeline", kandinsky_3, lambda: {**sized(), **attended()}),
    UNET(
        "Kandinsky3Img2ImgPipeline", kandinsky_3, lambda: {**prompts(), **picture(), **attended()}
    ),
    UNET("IFSuperResolutionPipeline", larger, lambda: {**pixels(), "image": image(SIDE)}),
    UNET(
        "IFImg2ImgSuperResolutionPipeline",
        larger,
        lambda: {**pixels(), "image": image(), "original_image": image()},
    ),
    UNET(
        "IFInpaintingSuperResolutionPipeline",
        larger,
        lambda: {**pixels(), **masked(), "original_image": image()},
    ),
    Case("StableCascadePriorPipeline", cascade_prior, prompts, "prior"),
    UNET("AudioLDM2Pipeline", audio_ldm_2, lambda: {**prompts(), **generated()}),
    UNET("MusicLDMPipeline", music_ldm, pooled_prompts),
    UNET(
        "LDMPipeline",
        lambda: {
            "unet": unet_2d(in_channels=4, out_channels=4),
            "vqvae": movq(),
            "scheduler": diffusers.DDIMScheduler(),
        },
        dict,
    ),
    UNET(
        "LDMSuperResolutionPipeline",
        lambda: {
            "unet": unet_2d(in_channels=6),
            "vqvae": movq(3),
            "scheduler": diffusers.DDIMScheduler(),
        },
        lambda: {"image": image(SIDE)},
    ),
)
