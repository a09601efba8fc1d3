r"""Layer 6. A diffusers pipeline that restores images by mean-reverting diffusion.

It is saved and loaded like any other. Its scheduler is a :class:`SamplerScheduler`, whose sampler
and grid can be exchanged; its network is conditioned on the degraded image and the degradation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from samplers.checks import check_one_each
from samplers.denoiser import Denoiser
from samplers.diffusers.loop import grid_of, method_of, settings_of, steps_of, tableau_of
from samplers.diffusers.scheduler import SamplerScheduler
from samplers.diffusers.settings import SchedulerSettings
from samplers.images.pixels import levels_of, to_8_bit, to_images, values_of
from samplers.noise import initial_noise
from samplers.restoration import RestorationProcess, restore
from samplers.sampling import Adjoint
from samplers.schedule.mean_reverting import MeanReverting
from samplers.solve import State
from samplers.tableau import Tableau

_STEPS = 10


@dataclass
class RestorationOutput(BaseOutput):
    """The restored images: PIL images, or a tensor [B, C, H, W] of values from 0 to 1."""

    images: Any


class RestorationPipeline(DiffusionPipeline):
    """A diffusers pipeline that restores images of any size by mean-reverting diffusion.

    Args:
        unet: ``unet([x, mu] [B, 2 C, H, W], t, class_labels=task)``.
        scheduler: with a schedule of the kind ``mean-reverting``; its config has ``sampler``,
            ``sampler_options`` and ``grid``.
        lambda_inf, predicts: see :class:`samplers.restoration.RestorationProcess`.
        tasks: the names of the degradations, in the order of the class labels; empty if the network
            is not conditioned on the degradation.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SamplerScheduler,
        lambda_inf: float = 0.4,
        predicts: str = "residual",
        tasks: list[str] | tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(lambda_inf=lambda_inf, predicts=predicts, tasks=list(tasks))
        self._check()

    def _check(self) -> None:
        config: Any = self.unet.config
        if config.in_channels != 2 * config.out_channels:
            raise ValueError(
                f"The network takes {config.in_channels} channels and gives {config.out_channels}; "
                "one that restores takes an image and the degraded one, twice as many as it gives."
            )
        if len(self.config.tasks) != int(config.num_class_embeds or 0):
            raise ValueError(
                f"{len(self.config.tasks)} tasks are named, but the network knows "
                f"{int(config.num_class_embeds or 0)}."
            )
        _ = self.process

    @property
    def process(self) -> RestorationProcess:
        """The mean-reverting process of the network's training."""
        schedule = self._settings.schedule
        if not isinstance(schedule, MeanReverting):
            raise ValueError(
                f"The scheduler of this checkpoint has a {type(schedule).__name__} schedule; a "
                "network that restores has a mean-reverting one."
            )
        if self._settings.correction is not None:
            raise ValueError(
                "The scheduler clips or thresholds what is predicted, which is a residual here and "
                "no image; set clip_sample and thresholding to False."
            )
        config: Any = self.config
        return RestorationProcess(schedule, config.lambda_inf, config.predicts)

    def denoiser(self) -> Denoiser:
        """The network as a denoiser of y = (x - mu) / lambda_inf, with the condition ``mu``."""
        return self.process.denoiser(self._network)

    @property
    def stride(self) -> int:
        """The stride of the network: images are padded to multiples of it, and must not be
        smaller."""
        config: Any = self.unet.config
        return int(2 ** (len(config.block_out_channels) - 1))

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image] | Tensor,
        task: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        seeds: Sequence[int] | None = None,
        output_type: str = "pil",
    ) -> RestorationOutput:
        """Restore images, one after the other if their sizes differ.

        Args:
            image: PIL images, or a tensor [B, C, H, W] of values from -1 to 1. Grey images are
                converted to colour for a network of colour images, and the result to grey.
            task: the degradation, of all images or of each.
            num_inference_steps: 10 if None; or as many as a tuned sampler of the scheduler has.
            seeds: one for each image, for its initial noise and for stochastic samplers; 0, 1, 2, …
                if None.
            output_type: ``pil``, or ``pt`` for a tensor from 0 to 1 (of images of one size).

        Raises ValueError for images or tasks that the network does not support.
        """
        if output_type not in ("pil", "pt"):
            raise ValueError(f"The output_type is {output_type!r}; it must be 'pil' or 'pt'.")
        batches = _batches(image)
        shapes = {batch.shape[1:] for batch in batches}
        if output_type == "pt" and len(shapes) != 1:
            raise ValueError(
                f"The images have the shapes {sorted(map(list, shapes))}; a tensor needs some, of "
                "one shape."
            )
        count = sum(map(len, batches))
        names = _spread(task, count)
        numbers = range(count) if seeds is None else seeds
        check_one_each("seeds", numbers, "images", count)
        found: list[Tensor] = []
        for batch in batches:
            part = slice(len(found), len(found) + len(batch))
            found += self.restore(batch, names[part], numbers[part], num_inference_steps)
        if output_type == "pt":
            return RestorationOutput((torch.stack(found).clamp(-1, 1) + 1) / 2)
        return RestorationOutput([to_images(x[None])[0] for x in found])

    def restore(
        self,
        images: Tensor,
        tasks: Sequence[str | None],
        seeds: Sequence[int],
        steps: int | None = None,
        *,
        noise: Tensor | None = None,
        adjoint: Adjoint | None = None,
        callback: Callable[[State], object] | None = None,
    ) -> Tensor:
        """Restore images [B, C, H, W]; gradients flow to the degraded images and the weights.

        Args:
            images: of values from -1 to 1.
            steps: 10 if None; or as many as a tuned sampler of the scheduler has.
            noise: initial noise, see :meth:`noise`; that of the seeds if None.
            adjoint, callback: see :func:`samplers.sample`.

        Raises ValueError for images or tasks that the network does not support.
        """
        conditions = self.conditions(images, tasks)
        channels = int(self.unet.config.out_channels)
        config: Any = self.scheduler.config
        x0 = restore(
            self._network,
            conditions.pop("mu"),
            self.process,
            seeds=seeds,
            noise=noise,
            noise_kind=config.noise,
            sampler=method_of(config),
            grid=grid_of(config, self.steps(steps)),
            options=config.sampler_options,
            conditions=conditions,
            adjoint=adjoint,
            callback=callback,
        )
        x0 = x0[..., : images.shape[2], : images.shape[3]].to(images)
        return x0.mean(1, keepdim=True) if images.shape[1] < channels else x0

    def conditions(self, images: Tensor, tasks: Sequence[str | None]) -> dict[str, Tensor]:
        """What :meth:`denoiser` is conditioned on to restore images [B, C, H, W]: ``mu``, which are
        the images, of padded size, and ``task`` [B], if the network has tasks.

        Raises ValueError for images or tasks that the network does not support.
        """
        self.check_images(images)
        check_one_each("tasks", tasks, "images", len(images))
        labels = self.labels(tasks)
        channels = int(self.unet.config.out_channels)
        mu = _filled(images, self.stride).expand(-1, channels, -1, -1).to(self.device)
        return {"mu": mu} if labels is None else {"mu": mu, "task": labels}

    def initial(self, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """What :meth:`denoiser` starts from at the noisiest level, y_T, for images [B, C, H, W]."""
        return float(self._settings.schedule.noisiest.sigma) * self.noise(shape, seeds)

    def noise(self, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Initial noise for images [B, C, H, W], one for each seed, of the padded size."""
        height, width = (side + -side % self.stride for side in shape[2:])
        channels = int(self.unet.config.out_channels)
        return initial_noise(seeds, (channels, height, width)).float().to(self.device)

    def steps(self, steps: int | None) -> int:
        """The number of steps, if it is None that of a tuned sampler, or 10."""
        return steps_of(self.scheduler.config, steps, _STEPS)

    def tableau(self, steps: int | None = None) -> Tableau:
        """The tableau of the sampler with this number of steps."""
        return tableau_of(self.scheduler.config, self.steps(steps))

    @property
    def _settings(self) -> SchedulerSettings:
        return settings_of(self.scheduler.config)

    def _network(self, x: Tensor, mu: Tensor, t: Tensor, task: Tensor | None = None) -> Tensor:
        given = torch.cat([x, mu], dim=1).to(self.unet.dtype)
        output: Tensor = self.unet(given, t, class_labels=task).sample
        return output.to(x.dtype)

    def check_images(self, images: Tensor) -> None:
        """Raise ValueError for images that the network does not support."""
        channels = int(self.unet.config.out_channels)
        if images.ndim != 4 or images.shape[1] not in (1, channels):
            raise ValueError(
                f"The images have shape {list(images.shape)}; this network restores [B, C, H, W] "
                f"with C = {channels}, or 1 for grey ones."
            )
        if min(images.shape[2:]) < self.stride:
            raise ValueError(
                f"The images are of {images.shape[3]} x {images.shape[2]} pixels; this network "
                f"needs {self.stride} in each direction at least."
            )

    def labels(self, tasks: Sequence[str | None]) -> Tensor | None:
        """The class labels of the tasks, [B]; ValueError for an unknown task."""
        known = list(self.config.tasks)
        if not known:
            if any(task is not None for task in tasks):
                raise ValueError(
                    "This network is not conditioned on the degradation; omit the task."
                )
            return None
        for task in tasks:
            if task not in known:
                came = "No task was named" if task is None else f"There is no task {task!r}"
                raise ValueError(f"{came}; this network has {', '.join(known)}.")
        return torch.tensor([known.index(str(task)) for task in tasks], device=self.device)


def _batches(image: Image.Image | Sequence[Image.Image] | Tensor) -> list[Tensor]:
    """Tensors [B, C, H, W]; each PIL image is a batch."""
    if isinstance(image, Tensor):
        if not image.is_floating_point():
            raise ValueError(
                f"The images are a tensor of {image.dtype}; give values from -1 to 1, as floats."
            )
        return [image]
    pictures = [image] if isinstance(image, Image.Image) else list(image)
    return [_values(picture) for picture in pictures]


def _values(picture: object) -> Tensor:
    """A PIL image as a batch [1, C, H, W]."""
    if not isinstance(picture, Image.Image):
        raise ValueError(
            f"A {type(picture).__name__} came; pass one or several PIL images, or one tensor "
            "[B, C, H, W]."
        )
    plain = to_8_bit(picture)
    if plain.mode not in ("L", "RGB"):
        raise ValueError(f"An image has the mode {plain.mode}; convert it to L or RGB.")
    return values_of(levels_of(plain)).float()


def _spread(task: str | Sequence[str] | None, count: int) -> list[str | None]:
    if task is None or isinstance(task, str):
        return [task] * count
    if len(task) != count:
        raise ValueError(f"{len(task)} tasks came for {count} images; give one, or one for each.")
    return list(task)


def _filled(images: Tensor, stride: int) -> Tensor:
    """The images, padded by reflection at the right and below to multiples of the stride."""
    right, below = (-images.shape[3] % stride, -images.shape[2] % stride)
    return F.pad(images, (0, right, 0, below), mode="reflect")
