"""Diffusers folders with random networks of a few thousand weights, for the command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    LDMPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import nn

diffusers.utils.logging.set_verbosity_error()

SIZE = 8
CLASSES = 3
NULL = CLASSES


def unconditional(folder: Path, scheduler: Any = None) -> Path:
    """Colour images of 8x8 pixels, in DDIM's schedule unless another is given."""
    torch.manual_seed(0)
    return _save(DDPMPipeline(_unet(3, None), scheduler or DDIMScheduler()), folder)


def of_classes(folder: Path) -> Path:
    """Grey images of three classes; a fourth label, named in the index, stands for none."""
    torch.manual_seed(1)
    scheduler = DDPMScheduler(prediction_type="v_prediction", clip_sample=False)
    _save(DDPMPipeline(_unet(1, CLASSES + 1), scheduler), folder)
    change(folder / "model_index.json", _null_label=NULL)
    return folder


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _unet(channels: int, classes: int | None, out_channels: int | None = None) -> nn.Module:
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=channels,
        out_channels=out_channels or channels,
        layers_per_block=1,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
        add_attention=False,
    )


def _autoencoder() -> nn.Module:
    return AutoencoderKL(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def transformer_of_classes(folder: Path) -> Path:
    """DiT: latents of 4x4, two classes, and a network that predicts a variance as well."""
    torch.manual_seed(2)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=2,
        norm_num_groups=2,
    )
    names = {0: "cat", 1: "dog"}
    return _save(DiTPipeline(network, _autoencoder(), DDIMScheduler(), names), folder)


def of_restoration(folder: Path, tasks: tuple[str, ...] = ("noisy", "rainy")) -> Path:
    """Colour images of any size, of two degradations."""
    from samplers import SamplerScheduler
    from samplers.diffusers.restoration import RestorationPipeline

    torch.manual_seed(5)
    network = _unet(6, len(tasks) or None, out_channels=3)
    scheduler = SamplerScheduler(
        sampler="mr-ode-d-2", schedule="mean-reverting", num_train_timesteps=100
    )
    return _save(RestorationPipeline(network, scheduler, tasks=tasks), folder)


def of_latents(folder: Path) -> Path:
    """Latents of 8x8, drawn without a condition, of images twice as large."""
    torch.manual_seed(4)
    autoencoder = VQModel(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        latent_channels=3,
        num_vq_embeddings=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return _save(LDMPipeline(autoencoder, _unet(3, None), DDIMScheduler()), folder)


def of_prompts(folder: Path) -> Path:
    """Stable Diffusion: images of 8x8 pixels, prompts of small letters."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=4,
        layers_per_block=1,
        block_out_channels=(4, 4),
        norm_num_groups=2,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    )
    tokenizer, encoder = _text(folder.parent / "words")
    pipe = StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipe, folder)


def _text(folder: Path) -> tuple[Any, Any]:
    """A tokenizer of single letters and an encoder for it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return CLIPTokenizer.from_pretrained(folder, model_max_length=8), CLIPTextModel(config)


def _save(pipeline: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder)
    return folder
