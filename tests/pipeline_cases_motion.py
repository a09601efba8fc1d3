"""Pipelines of diffusers of tiny random components: UNets of videos."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from PIL import Image

from tests.pipeline_cases import (
    ATTENTION_FIRST,
    PIXELS,
    SIDE,
    UNET,
    WIDTH,
    image,
    nothing,
    prompts,
    sized,
    sized_xl,
    unet,
    unet_xl,
    vae,
)
from tests.pipeline_cases_more import animatediff
from tests.pipeline_cases_unets import image_encoder

FRAMES = {"num_frames": 2}


def frames() -> Any:
    return [(image() + 1) / 2] * 2


def video() -> dict[str, Any]:
    return {
        **prompts(),
        "video": [Image.new("RGB", (PIXELS, PIXELS), grey) for grey in ("#555", "#aaa")],
    }


# AnimateDiff


def motion_controlnet() -> Any:
    return diffusers.ControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        in_channels=4,
        down_block_types=ATTENTION_FIRST["down_block_types"],
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=2,
        conditioning_embedding_out_channels=(2, 4),
    ).eval()


def sparse_controlnet() -> Any:
    return diffusers.SparseControlNetModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        in_channels=4,
        conditioning_channels=3,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        conditioning_embedding_out_channels=(2, 4),
        norm_num_groups=2,
        use_simplified_condition_embedding=False,
    ).eval()


def animatediff_xl() -> dict[str, Any]:
    network = unet_xl(block_out_channels=(8, 8), **ATTENTION_FIRST)
    return {**animatediff(unet=network), **nothing("text_encoder_2", "tokenizer_2")}


# Others


def stable_video() -> dict[str, Any]:
    network = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=SIDE,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=2,
        projection_class_embeddings_input_dim=6,
        addition_time_embed_dim=2,
    ).eval()
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    frames = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=[32, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        latent_channels=4,
    ).eval()
    return {
        "unet": network,
        "image_encoder": image_encoder(WIDTH),
        "scheduler": scheduler,
        "vae": frames,
        "feature_extractor": transformers.CLIPImageProcessor(crop_size=PIXELS, size=PIXELS),
    }


def text_to_video() -> dict[str, Any]:
    network = diffusers.UNet3DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        sample_size=SIDE,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    ).eval()
    return {
        **nothing("text_encoder", "tokenizer"),
        "unet": network,
        "vae": vae(),
        "scheduler": diffusers.DDIMScheduler(clip_sample=False),
    }


CASES = (
    UNET("AnimateDiffSDXLPipeline", animatediff_xl, lambda: {**sized_xl(), **FRAMES}),
    UNET(
        "AnimateDiffControlNetPipeline",
        lambda: animatediff(controlnet=motion_controlnet()),
        lambda: {**sized(), **FRAMES, "conditioning_frames": frames()},
    ),
    UNET(
        "AnimateDiffSparseControlNetPipeline",
        lambda: animatediff(controlnet=sparse_controlnet()),
        lambda: {**sized(), **FRAMES, "conditioning_frames": frames()},
    ),
    UNET("AnimateDiffVideoToVideoPipeline", animatediff, video),
    UNET(
        "AnimateDiffVideoToVideoControlNetPipeline",
        lambda: animatediff(controlnet=motion_controlnet()),
        lambda: {**video(), "conditioning_frames": frames()},
    ),
    UNET("AnimateDiffPAGPipeline", animatediff, lambda: {**sized(), **FRAMES}),
    UNET(
        "PIAPipeline",
        lambda: animatediff(unet=unet(in_channels=9, block_out_channels=(8, 8), **ATTENTION_FIRST)),
        lambda: {**sized(), **FRAMES, "image": image()},
    ),
    UNET(
        "StableVideoDiffusionPipeline",
        stable_video,
        lambda: {
            "image": image(),
            **FRAMES,
            "height": PIXELS,
            "width": PIXELS,
            "output_type": "latent",
        },
    ),
    UNET("TextToVideoSDPipeline", text_to_video, lambda: {**sized(), **FRAMES}),
    UNET("VideoToVideoSDPipeline", text_to_video, video),
)
