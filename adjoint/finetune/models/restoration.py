"""A network that restores given images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjoint.finetune.config import DrawingSettings, FinetuneConfig
from adjoint.finetune.models.base import Model
from adjoint.finetune.models.network import of_run
from adjoint.finetune.parts import Embedding, Part, learn_classes
from adjoint.rewards.pictures import read_picture
from samplers import SamplerScheduler
from samplers.diffusers.restoration import RestorationPipeline
from samplers.diffusers.settings import named_settings
from samplers.images.pixels import PictureError, listed


class RestorationModel(Model):
    """Restores the degraded images that the settings name; what is asked for is one of these."""

    component = "unet"

    def __init__(self, config: FinetuneConfig, pipe: RestorationPipeline) -> None:
        super().__init__(config.checkpoint)
        drawing, self.adjoint = config.drawing, config.adjoint
        if not drawing.images:
            raise ValueError("This checkpoint restores images; name some by 'images'.")
        used = ("sampler", "steps", "images", "task", "grid", "sigma_min", "sigma_max", "options")
        given = [f.name for f in fields(drawing) if getattr(drawing, f.name) != _default(f.name)]
        foreign = [name for name in given if name not in used]
        if foreign:
            raise ValueError(
                f"This checkpoint restores images, and has no {foreign[0]!r}; leave it away."
            )
        self.pipe, self.network, self.steps = pipe, pipe.unet, drawing.steps
        pipe.scheduler = _changed(pipe.scheduler, drawing)
        self.adjoint.check(pipe.tableau(self.steps))
        self.task = drawing.task
        self.given = _read(drawing.images).to(pipe.device)
        self.asked = tuple(range(len(self.given)))

    def start(self, seeds: Sequence[int]) -> Tensor:
        return self.pipe.noise(self.given[:1].shape, seeds)

    def draw(
        self, part: Part, seeds: Sequence[int], asked: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        assert asked is not None  # there always are images
        self.pipe.register_modules(unet=part.network)
        return self.pipe.restore(
            self.given[asked],
            [self.task] * len(asked),
            seeds,
            self.steps,
            noise=noise,
            adjoint=of_run(self.adjoint, seeds) if torch.is_grad_enabled() else None,
        )

    def with_embedding(self, settings: Embedding) -> Part:
        labels = self.pipe.labels([self.task])
        learn_classes(self.network, () if labels is None else tuple(labels.tolist()), settings)
        return Part(self.network)


def _changed(scheduler: SamplerScheduler, drawing: DrawingSettings) -> SamplerScheduler:
    """The checkpoint's own, but for what the settings name."""
    config: Any = scheduler.config
    named = named_settings(config, drawing.sampler, drawing.options, drawing.grid)
    ends = {"sigma_min": drawing.sigma_min, "sigma_max": drawing.sigma_max}
    named |= {name: sigma for name, sigma in ends.items() if sigma is not None}
    changed: SamplerScheduler = SamplerScheduler.from_config(config, **named)
    return changed


def _default(name: str) -> object:
    return getattr(DrawingSettings(), name)


def _read(places: Sequence[str]) -> Tensor:
    """The pictures, all of one size; those of folders sorted by name."""
    try:
        paths = listed([Path(place) for place in places])
    except PictureError as error:
        raise ValueError(str(error)) from error
    images = [read_picture(str(path)) for path in paths]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise ValueError(
            f"The images have the shapes {sorted(shapes)}; they must be some, of one size."
        )
    return torch.cat(images).float()
