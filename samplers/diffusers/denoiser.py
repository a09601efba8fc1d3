"""The network of a diffusers pipeline as a denoiser."""

from __future__ import annotations

from typing import Any

from torch import nn

from samplers.denoiser import Denoiser
from samplers.diffusers.loop import settings_of
from samplers.diffusers.scheduler import SamplerScheduler
from samplers.diffusers.settings import call_unet


def pipeline_denoiser(pipe: Any) -> Denoiser:
    """The UNet of a pipeline as a denoiser, with the schedule and prediction type of its scheduler.

    It works on the UNet's inputs (latents, if the pipeline has an autoencoder), without guidance,
    which can wrap it: :func:`samplers.classifier_free_guidance`. Conditions are the keywords of the
    UNet, such as ``encoder_hidden_states``.

    Raises ValueError for a pipeline without a UNet (the networks of Stable Diffusion 3 or Flux have
    packed latents and other time conventions: describe them by :class:`samplers.Denoiser`), and for
    a scheduler config that cannot be read.
    """
    unet = pipe.components.get("unet")
    if not isinstance(unet, nn.Module):
        raise ValueError(
            f"{type(pipe).__name__} has no component 'unet'; describe its network by "
            "samplers.Denoiser(network, schedule, prediction)."
        )
    scheduler = SamplerScheduler.from_config(pipe.scheduler)
    return settings_of(scheduler.config).denoiser(unet, call_unet)
