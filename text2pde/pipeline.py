"""A diffusers pipeline from prompts, or first frames, to solutions on meshes.

It is saved and loaded like any other. Its scheduler is a
:class:`~samplers.SamplerScheduler`, whose sampler and grid can be exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import torch
import typing_extensions
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from samplers import (
    CheckpointError,
    Denoiser,
    NotFiniteError,
    SamplerScheduler,
    classifier_free_guidance,
    sample,
)
from samplers.checkpoint.folder import read_components
from samplers.checkpoint.index import read_index
from samplers.checkpoint.loading import load_errors
from samplers.diffusers.loop import grid_of, method_of, settings_of, steps_of, tableau_of
from samplers.files import checked
from samplers.grid import Grid
from samplers.sampling import Adjoint
from samplers.solve import State
from samplers.tableau import Tableau
from text2pde.autoencoder.batch import MeshBatch, prepare_mesh
from text2pde.autoencoder.clips import prepare_clip, redimensionalise
from text2pde.autoencoder.latents import LatentScales, encode_frame
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.data.clip import Clip
from text2pde.diffusion.conditions import UNCONDITIONAL, Conditions
from text2pde.diffusion.text_encoder import EncodedText, TextEncoder
from text2pde.diffusion.transformer import FlowTransformer
from text2pde.mesh import Mesh
from text2pde.solver.meshing import mesh_of
from text2pde.subject import SUBJECTS, Scene, Subject

_STEPS = 20


class Request(NamedTuple):
    """What to generate.

    Attributes:
        scene: with all its parameters.
        prompt: from which the scene was read; None to generate without text. It is not checked
            against the scene.
        mesh: of the solution; a default mesh of the scene if None.
        first: a clip whose first frame is the initial condition, if any.
        use_parameters: whether the network is conditioned on the parameters of the scene.
    """

    scene: Scene
    prompt: str | None = None
    mesh: Mesh | None = None
    first: Clip | None = None
    use_parameters: bool = True


class SamplingKeywords(TypedDict, total=False):
    """Keywords that are passed on to :func:`samplers.sample`, which explains them."""

    adjoint: Adjoint | None
    callback: Callable[[State], object] | None
    progress: bool


@dataclass
class FlowOutput(BaseOutput):
    """The result of :class:`Text2PDEPipeline`.

    Attributes:
        clips: one for each prompt, or for each seed of a single prompt.
    """

    clips: list[Clip]


class Text2PDEPipeline(DiffusionPipeline):
    """Generates solutions of partial differential equations from prompts.

    Args:
        autoencoder: of fields on meshes.
        transformer: of latents.
        scheduler: its config has ``sampler``, ``sampler_options`` and ``grid``.
        frames: of a clip.
        interval: between frames, in units of a scene's ``time_unit``.
        subject: a name of :data:`text2pde.subject.SUBJECTS`.
        text_encoder: the name of the text encoder that the transformer was trained with; None for
            the default, see :class:`~text2pde.diffusion.text_encoder.TextEncoder`.
        text_revision: the digest of its weights.
    """

    def __init__(
        self,
        autoencoder: MeshAutoencoder,
        transformer: FlowTransformer,
        scheduler: SamplerScheduler,
        frames: int = 48,
        interval: float = 0.2,
        subject: str = "cylinder",
        text_encoder: str | None = None,
        text_revision: str = "",
    ) -> None:
        super().__init__()
        self.register_modules(autoencoder=autoencoder, transformer=transformer, scheduler=scheduler)
        self.register_to_config(
            frames=frames,
            interval=interval,
            subject=subject,
            text_encoder=text_encoder,
            text_revision=text_revision,
        )
        self._check()

    def _check(self) -> None:
        own, taken = self.autoencoder.config.latent, self.transformer.config.channels
        if not isinstance(self.scheduler, SamplerScheduler):
            raise ValueError(
                f"The scheduler is a {type(self.scheduler).__name__}; it must be a "
                "SamplerScheduler: convert it by SamplerScheduler.from_config."
            )
        if self.config.subject not in SUBJECTS:
            raise ValueError(
                f"The subject is {self.config.subject!r}; it must be one of {', '.join(SUBJECTS)}."
            )
        if not 0 < self.config.interval < math.inf:
            raise ValueError(
                f"The interval between frames is {self.config.interval}; it must be positive and "
                "finite."
            )
        mean, std = self.scales
        if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
            raise ValueError(
                "The transformer's scales of latents are not finite or not positive; its "
                "latent_mean and latent_std are damaged."
            )
        if own != taken:
            raise ValueError(
                f"The autoencoder has latents of {own} channels, the transformer takes {taken}; "
                "they must agree."
            )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        mesh: Mesh | None = None,
        seeds: Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
    ) -> FlowOutput:
        """Generate a clip for each prompt.

        Args:
            prompt: one or several, which state what the subject needs.
            mesh: for all clips; a default mesh for each if None.
            seeds: one for each prompt, or for each clip of a single prompt; 0, 1, 2, … if None.
            num_inference_steps: 20 if None; or as many as a tuned sampler of the scheduler has.
            guidance_scale: of classifier-free guidance; 1 for none.

        Raises:
            ValueError: for prompts that can't be followed, and for a mesh of another domain.
        """
        count = 1 if seeds is None else len(seeds)
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        requests = [Request(self.subject.read(each), each, mesh) for each in prompts]
        numbers = range(len(requests)) if seeds is None else seeds
        return FlowOutput(self.generate(requests, numbers, num_inference_steps, guidance_scale))

    def generate(
        self,
        requests: Sequence[Request],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float = 1.0,
        *,
        noise: Tensor | None = None,
        **keywords: Unpack[SamplingKeywords],
    ) -> list[Clip]:
        """Generate a clip for each request; the arguments are those of :meth:`latents`.

        Raises:
            ValueError: for requests that can't be followed, before anything is sampled.
        """
        requests = [self._with_mesh(request) for request in requests]
        latents = self.latents(requests, seeds, steps, guidance, noise=noise, **keywords)
        return [
            self.decode(latent, request)
            for latent, request in zip(latents.split(1), requests, strict=True)
        ]

    def latents(
        self,
        requests: Sequence[Request],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float = 1.0,
        *,
        noise: Tensor | None = None,
        **keywords: Unpack[SamplingKeywords],
    ) -> Tensor:
        """Sample standardised latents [B, Z, F, rows, columns]; gradients flow through.

        Args:
            steps: 20 if None; or as many as a tuned sampler of the scheduler has.
            guidance: scale of classifier-free guidance; 1 for none.
            noise: initial noise x_T, see :meth:`noise`; that of the seeds if None.
            keywords: of :func:`samplers.sample`.
        """
        if not requests:
            raise ValueError("There are no requests; give at least one prompt.")
        if len(seeds) != len(requests):
            raise ValueError(
                f"{len(seeds)} seeds came for {len(requests)} requests; give one for each."
            )
        config: Any = self.scheduler.config
        return sample(
            self.guided(guidance),
            self.noise(seeds) if noise is None else noise,
            sampler=method_of(config),
            options=config.sampler_options,
            grid=self.grid(steps),
            seeds=seeds,
            noise=config.noise,
            conditions=self.conditions(requests),
            **keywords,
        )

    @property
    def denoiser(self) -> Denoiser:
        """The transformer with its noise schedule, a model of standardised latents."""
        return settings_of(self.scheduler.config).denoiser(self.transformer)

    def guided(self, guidance: float) -> Denoiser:
        """The same with classifier-free guidance of this scale; 1 for none."""
        return classifier_free_guidance(self.denoiser, UNCONDITIONAL, guidance)

    def conditions(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """What the denoiser is conditioned on, by name, see
        :class:`~text2pde.diffusion.conditions.Conditions`."""
        like = next(self.transformer.parameters())
        text = self._encode_text([request.prompt or "" for request in requests])
        absent = torch.tensor([not request.prompt for request in requests])
        parameters = torch.tensor([self.transformer.scaled(request.scene) for request in requests])
        frames = torch.stack([self._first_frame(request) for request in requests])
        conditions = Conditions(
            text.states,
            text.mask & ~absent[:, None],
            parameters,
            torch.tensor([request.use_parameters for request in requests]),
            frames,
            torch.tensor([request.first is not None for request in requests]),
        )
        return conditions.to(like)._asdict()

    def decode(self, latent: Tensor, request: Request) -> Clip:
        """The clip of a standardised latent [1, Z, F, rows, columns], in SI units."""
        scene, mesh = request.scene, self._with_mesh(request).mesh
        assert mesh is not None  # now it has one
        fields = self.fields(latent, self.prepared(mesh))
        if not bool(fields.isfinite().all()):
            raise NotFiniteError("The autoencoder returned NaN or infinity.", latent)
        times = self.config.interval * scene.time_unit * np.arange(len(fields), dtype=np.float64)
        return Clip(scene, mesh, times, redimensionalise(fields.float(), scene))

    def fields(self, latent: Tensor, meshes: MeshBatch) -> Tensor:
        """Dimensionless fields [F, N, 3] of standardised latents; gradients flow through."""
        restored = self.scales.restored(latent).to(meshes.features)
        found: Tensor = self.autoencoder.decode(restored, meshes)
        return found

    def prepared(self, mesh: Mesh) -> MeshBatch:
        """A mesh as the autoencoder takes it, on its device and in its dtype."""
        found = prepare_mesh(mesh, self.autoencoder.grid, self.autoencoder.config.radius)
        return found.to(next(self.autoencoder.parameters()))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Initial noise x_T of latents, in single precision at least."""
        shape = self.autoencoder.latent_shape(self.config.frames)
        # Steps are computed in the dtype of the noise, whatever that of the network.
        dtype = torch.promote_types(self.transformer.dtype, torch.float32)
        return self.denoiser.initial(shape, seeds, dtype=dtype)

    def steps(self, steps: int | None) -> int:
        """The number of steps, if it is None that of a tuned sampler, or 20."""
        return steps_of(self.scheduler.config, steps, _STEPS)

    def grid(self, steps: int | None = None) -> Grid:
        """The time grid of the scheduler."""
        return grid_of(self.scheduler.config, self.steps(steps))

    def tableau(self, steps: int | None = None) -> Tableau:
        """The tableau of the scheduler's sampler."""
        return tableau_of(self.scheduler.config, self.steps(steps))

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return SUBJECTS[self.config.subject]

    @property
    def scales(self) -> LatentScales:
        """By which latents are standardised."""
        return LatentScales(self.transformer.latent_mean, self.transformer.latent_std)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._checked(TextEncoder.from_pretrained(self.config.text_encoder, local=True))

    def use_text_encoder(self, name: str) -> None:
        """Load the text encoder from a folder, or from the hub, and use it from now on.

        Raises:
            ValueError: if it can't be loaded, or is another than the one of the training.
        """
        self.register_to_config(text_encoder=name)
        self._encoder = self._checked(TextEncoder.from_pretrained(name))

    def _checked(self, encoder: TextEncoder) -> TextEncoder:
        if encoder.revision != self.config.text_revision:
            raise ValueError(
                f"The text encoder {encoder.name or 'of the extra text'} is not the one that this "
                "model was trained with; install or name that one."
            )
        return encoder

    def _encode_text(self, prompts: Sequence[str]) -> EncodedText:
        """Encoded prompts; without any, no encoder is loaded."""
        if any(prompts):
            return self._encoder(prompts)
        width, count = self.transformer.config.text_width, len(prompts)
        return EncodedText(torch.zeros(count, 1, width), torch.zeros(count, 1, dtype=torch.bool))

    def _first_frame(self, request: Request) -> Tensor:
        """The standardised latent of a first frame; zero without one."""
        channels, _, rows, columns = self.autoencoder.latent_shape(self.config.frames)
        like = next(self.autoencoder.parameters())
        if request.first is None:
            return torch.zeros(channels, rows, columns, dtype=like.dtype)
        clip = prepare_clip(
            request.first.window(0, 1), self.autoencoder.grid, self.autoencoder.config.radius
        )
        latent = encode_frame(self.autoencoder, clip.fields.to(like), clip.mesh.to(like))
        return self.scales.standardised(latent)[0].cpu()

    def _with_mesh(self, request: Request) -> Request:
        """The request with a mesh that fits its scene."""
        if request.mesh is None:
            return request._replace(mesh=mesh_of(request.scene))
        request.scene.check_fits(request.mesh)
        return request


class _Settings(typing_extensions.TypedDict, total=False):
    """The settings of a pipeline in its index."""

    frames: int
    interval: float
    subject: str
    text_encoder: str | None
    text_revision: str


def load_text2pde(path: Path | str, device: torch.device | str = "cpu") -> Text2PDEPipeline:
    """Load a pipeline.

    Raises:
        CheckpointError: if the folder holds no such pipeline, or is incomplete.
    """
    path = Path(path)
    index = read_index(path)
    name = index.get("_class_name")
    if name != Text2PDEPipeline.__name__:
        raise CheckpointError(f"{path} holds a {name}; a {Text2PDEPipeline.__name__} is needed.")
    read_components(path, index)
    with load_errors(path):
        checked(_Settings, index)
        found: Text2PDEPipeline = Text2PDEPipeline.from_pretrained(
            path, local_files_only=True, use_safetensors=True
        )
        found.to(device)
    return found
