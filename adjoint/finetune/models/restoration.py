"""A network that restores degraded images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjoint.finetune.config import FinetuneConfig, SamplingSettings
from adjoint.finetune.models.base import ImageModel
from adjoint.finetune.models.network import of_run
from adjoint.finetune.trainable import OptimiseEmbedding, Trainable, learn_classes
from adjoint.rewards.targets import read_target
from samplers import SamplerScheduler
from samplers.diffusers.restoration import RestorationPipeline
from samplers.diffusers.settings import named_settings
from samplers.images.files import ImageError, image_paths

_USED = ("sampler", "steps", "images", "task", "grid", "sigma_min", "sigma_max", "options")
"""The settings that a restoration pipeline has."""


class RestorationModel(ImageModel):
    """A pipeline that restores the degraded images of the settings; these are its conditions."""

    component = "unet"

    def __init__(self, config: FinetuneConfig, pipe: RestorationPipeline) -> None:
        super().__init__(config.checkpoint)
        settings, self.adjoint = config.sampling, config.adjoint
        if not settings.images:
            raise ValueError("This checkpoint restores images; name some by 'images'.")
        _check_settings(settings)
        self.pipe, self.network, self.steps = pipe, pipe.unet, settings.steps
        pipe.scheduler = _changed(pipe.scheduler, settings)
        self.adjoint.check(pipe.tableau(self.steps))
        self.task = settings.task
        self.degraded = _read(settings.images).to(pipe.device)
        self.conditions = tuple(range(len(self.degraded)))

    def initial_noise(self, seeds: Sequence[int]) -> Tensor:
        return self.pipe.noise(self.degraded[:1].shape, seeds)

    def sample(
        self,
        trained: Trainable,
        seeds: Sequence[int],
        condition: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        assert condition is not None  # there always are images
        self.pipe.register_modules(unet=trained.network)
        return self.pipe.restore(
            self.degraded[condition],
            [self.task] * len(condition),
            seeds,
            self.steps,
            noise=noise,
            adjoint=of_run(self.adjoint, seeds) if torch.is_grad_enabled() else None,
        )

    def with_embedding(self, settings: OptimiseEmbedding) -> Trainable:
        labels = self.pipe.labels([self.task])
        learn_classes(self.network, () if labels is None else tuple(labels.tolist()), settings)
        return Trainable(self.network)


def _check_settings(settings: SamplingSettings) -> None:
    """Raise ValueError for a setting that differs from its default and is not used here."""
    default = SamplingSettings()
    names = [f.name for f in fields(settings)]
    given = [name for name in names if getattr(settings, name) != getattr(default, name)]
    foreign = [name for name in given if name not in _USED]
    if foreign:
        raise ValueError(
            f"This checkpoint restores images, and has no {foreign[0]!r}; omit it in [sampling]."
        )


def _changed(scheduler: SamplerScheduler, settings: SamplingSettings) -> SamplerScheduler:
    """The checkpoint's scheduler, with what the settings name."""
    config: Any = scheduler.config
    tuned = settings.tuned
    if tuned is not None:
        own: SamplerScheduler = SamplerScheduler.from_config(config, sampler=tuned)
        return own
    named = named_settings(config, settings.sampler, settings.options, settings.grid)
    ends = {"sigma_min": settings.sigma_min, "sigma_max": settings.sigma_max}
    named |= {name: sigma for name, sigma in ends.items() if sigma is not None}
    changed: SamplerScheduler = SamplerScheduler.from_config(config, **named)
    return changed


def _read(places: Sequence[str]) -> Tensor:
    """The images [N, C, H, W], all of one size; those of folders sorted by name."""
    try:
        paths = image_paths([Path(place) for place in places])
    except ImageError as error:
        raise ValueError(str(error)) from error
    images = [read_target(str(path)) for path in paths]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"The images have the shapes {sorted(shapes)}; pass at least one, and all of one size."
        )
    return torch.cat(images).float()
