"""A pipeline of diffusers from sentences, or first frames, to flows.

It is saved and loaded as any other; its scheduler is a :class:`SamplerScheduler`, whose sampler and
grid can be exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from samplers import SamplerScheduler
from samplers.checkpoint import CheckpointError
from samplers.checkpoint.folder import read_index
from samplers.checkpoint.loading import loading
from samplers.diffusers.loop import grid_of, settings_of, tableau_of
from samplers.diffusers.settings import SchedulerSettings
from samplers.grid import Grid
from samplers.noise import initial_noise
from samplers.prediction import classifier_free_guidance
from samplers.sampling import Adjoint, sample
from samplers.solve import State
from samplers.tableau import Tableau
from text2pde.autoencoder.batch import MeshBatch, prepare
from text2pde.autoencoder.clips import prepare_clip, with_units
from text2pde.autoencoder.latents import Scales, encode_frame
from text2pde.autoencoder.model import MeshAutoencoder
from text2pde.diffusion.conditions import Conditions, joined, nothing
from text2pde.diffusion.transformer import FlowTransformer
from text2pde.flows.clip import Clip
from text2pde.mesh import Mesh
from text2pde.scene import Scene, check_fits
from text2pde.subjects import SUBJECTS, Subject
from text2pde.text import TextEncoder, Texts

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        flow: with all its numbers. sentence: that says so; None to leave it out. That they agree is
            not checked.
        mesh: where; one is made if None. first: a clip whose first frame it is to begin at, if any.
        stated: whether the network is told the numbers.
    """

    flow: Scene
    sentence: str | None = None
    mesh: Mesh | None = None
    first: Clip | None = None
    stated: bool = True


@dataclass
class FlowOutput(BaseOutput):
    """clips: one for each request."""

    clips: list[Clip]


class Text2PDEPipeline(DiffusionPipeline):
    """Draws flows.

    Args:
        autoencoder, transformer: of flows, and of their latents.
        scheduler: ``sampler``, ``sampler_options`` and ``grid`` of its config say how.
        frames: of a clip, and interval: between two of them, in units of a flow's clock.
        subject: what it draws, a name of :data:`text2pde.subjects.SUBJECTS`.
        text_encoder, text_revision: the name (None for the default) and the digest of the encoder
            that the transformer was trained with, see :class:`text2pde.text.TextEncoder`.
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
                "SamplerScheduler, which SamplerScheduler.from_config makes of another."
            )
        if self.config.subject not in SUBJECTS:
            raise ValueError(
                f"The subject is {self.config.subject!r}; it must be one of {', '.join(SUBJECTS)}."
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
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
    ) -> FlowOutput:
        """Draw a flow for each prompt.

        Args:
            prompt: sentences that state what the subject needs, see :mod:`text2pde.captions`.
            mesh: of all of them; made to fit each if None.
            seeds: one for each prompt, or for each flow of a single one; 0, 1, 2, … if None.
            guidance_scale: how strongly what is told leads away from what is not; 1 is none.

        Raises ValueError for prompts that can't be followed, and for a mesh of another channel.
        """
        count = 1 if seeds is None else len(seeds)
        sentences = [prompt] * count if isinstance(prompt, str) else list(prompt)
        requests = [Request(self.subject.read(each), each, mesh) for each in sentences]
        numbers = range(len(requests)) if seeds is None else seeds
        return FlowOutput(self.draw(requests, numbers, num_inference_steps, guidance_scale))

    def draw(
        self,
        requests: Sequence[Request],
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 1.0,
        *,
        noise: Tensor | None = None,
        adjoint: Adjoint | None = None,
        callback: Callable[[State], object] | None = None,
    ) -> list[Clip]:
        """A clip for each request.

        Raises ValueError for what can't be drawn, before anything is.
        """
        requests = [self._with_mesh(request) for request in requests]
        latents = self.latents(
            requests, seeds, steps, guidance, noise=noise, adjoint=adjoint, callback=callback
        )
        return [
            self.decode(latent, request)
            for latent, request in zip(latents.split(1), requests, strict=True)
        ]

    def latents(
        self,
        requests: Sequence[Request],
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 1.0,
        *,
        noise: Tensor | None = None,
        adjoint: Adjoint | None = None,
        callback: Callable[[State], object] | None = None,
    ) -> Tensor:
        """Standardised latents [B, Z, F, rows, columns]; gradients flow to weights and noise.

        Args:
            noise: where it starts, see :meth:`noise`; that of the seeds if None.
            adjoint, callback: see :func:`samplers.sample`.
        """
        if not requests:
            raise ValueError("Nothing was asked for; give one prompt at least.")
        if len(seeds) != len(requests):
            raise ValueError(f"{len(seeds)} seeds came for {len(requests)} flows; give one each.")
        told = self.told(requests)
        config: Any = self.scheduler.config
        return sample(
            self.denoiser(told, guidance),
            self.noise(seeds) if noise is None else noise,
            schedule=self._settings.schedule,
            prediction=self._settings.prediction,
            sampler=config.sampler,
            options=config.sampler_options,
            grid=self.grid(steps),
            seeds=seeds,
            noise=config.noise,
            correct=self._settings.correction,
            adjoint=adjoint,
            callback=callback,
        )

    def denoiser(self, told: Conditions, guidance: float = 1.0) -> Denoiser:
        """``model(x, t)`` for latents that are asked for what is told."""
        wanted = torch.arange(len(told.stated), device=self.device)
        both, scale = joined(nothing(told), told), self._settings.time_scale

        def network(x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            output: Tensor = self.transformer(x.to(told.numbers), scale * t, both.of(rows))
            return output.to(x)

        # Conditions are many tensors, so guidance is given the rows where they are.
        return classifier_free_guidance(network, wanted + len(wanted), wanted, guidance)

    def told(self, requests: Sequence[Request]) -> Conditions:
        """What the network is told of the requests, on its device."""
        like = next(self.transformer.parameters())
        texts = self._texts([request.sentence or "" for request in requests])
        silent = torch.tensor([not request.sentence for request in requests])
        numbers = torch.tensor([self.transformer.scaled(request.flow) for request in requests])
        frames = torch.stack([self._frame(request) for request in requests])
        told = Conditions(
            texts.states,
            texts.spoken & ~silent[:, None],
            numbers,
            torch.tensor([request.stated for request in requests]),
            frames,
            torch.tensor([request.first is not None for request in requests]),
        )
        return told.to(like)

    def decode(self, latent: Tensor, request: Request) -> Clip:
        """The clip of a standardised latent [1, Z, F, rows, columns], in SI units."""
        flow, mesh = request.flow, self._with_mesh(request).mesh
        assert mesh is not None  # now it has one
        fields = self.fields(latent, self.prepared(mesh))
        times = self.config.interval * flow.clock * np.arange(len(fields), dtype=np.float64)
        return Clip(flow, mesh, times, with_units(fields.float(), flow))

    def _with_mesh(self, request: Request) -> Request:
        """The request with a mesh that fits, which is made if there is none."""
        if request.mesh is None:
            return request._replace(mesh=self.subject.mesh(request.flow))
        check_fits(request.mesh, request.flow)
        return request

    def fields(self, latent: Tensor, meshes: MeshBatch) -> Tensor:
        """Fields [F, N, 3] without units of standardised latents; gradients flow through."""
        restored = self.scales.restored(latent).to(meshes.features)
        found: Tensor = self.autoencoder.decode(restored, meshes)
        return found

    def prepared(self, mesh: Mesh) -> MeshBatch:
        """The mesh as the autoencoder takes it, on its device and in its type."""
        found = prepare(mesh, self.autoencoder.grid, self.autoencoder.config.radius)
        return found.to(next(self.autoencoder.parameters()))

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Starting noise of latents, one for each seed, in single precision at least."""
        shape = self.autoencoder.latent_shape(self.config.frames)
        like = next(self.transformer.parameters())
        # The steps are formed in the type of the noise, whatever that of the network.
        dtype = torch.promote_types(like.dtype, torch.float32)
        return initial_noise(seeds, shape).to(like.device, dtype)

    def grid(self, steps: int) -> Grid:
        """The time grid of so many steps."""
        return grid_of(self.scheduler.config, steps)

    def tableau(self, steps: int) -> Tableau:
        """The table of the sampler, with as many steps."""
        return tableau_of(self.scheduler.config, steps)

    @property
    def subject(self) -> Subject:
        """What it draws."""
        return SUBJECTS[self.config.subject]

    @property
    def scales(self) -> Scales:
        """Of the channels of the latents."""
        return Scales(self.transformer.latent_mean, self.transformer.latent_std)

    @property
    def _settings(self) -> SchedulerSettings:
        return settings_of(self.scheduler.config)

    @cached_property
    def _encoder(self) -> TextEncoder:
        encoder = TextEncoder.from_pretrained(self.config.text_encoder)
        if encoder.revision != self.config.text_revision:
            raise ValueError(
                f"The text encoder {encoder.name or 'of the extra text'} is not the one that this "
                "model was trained with."
            )
        return encoder

    def _texts(self, sentences: Sequence[str]) -> Texts:
        """The states of sentences; none need an encoder if all are empty."""
        if any(sentences):
            return self._encoder(sentences)
        width, count = self.transformer.config.text_width, len(sentences)
        return Texts(torch.zeros(count, 1, width), torch.zeros(count, 1, dtype=torch.bool))

    def _frame(self, request: Request) -> Tensor:
        """The standardised latent of a first frame; zero without one."""
        channels, _, rows, columns = self.autoencoder.latent_shape(self.config.frames)
        like = next(self.autoencoder.parameters())
        if request.first is None:
            return torch.zeros(channels, rows, columns, dtype=like.dtype)
        first = request.first._replace(
            times=request.first.times[:1], fields=request.first.fields[:1]
        )
        clip = prepare_clip(first, self.autoencoder.grid, self.autoencoder.config.radius)
        latent = encode_frame(self.autoencoder, clip.fields.to(like), clip.mesh.to(like))
        return self.scales.standardised(latent)[0].cpu()


def load_text2pde(path: Path, device: torch.device) -> Text2PDEPipeline:
    """Load a pipeline; CheckpointError if the folder holds none, or is broken."""
    name = read_index(path).get("_class_name")
    if name != Text2PDEPipeline.__name__:
        raise CheckpointError(f"{path} holds a {name}; a {Text2PDEPipeline.__name__} is needed.")
    with loading(path):
        found: Text2PDEPipeline = Text2PDEPipeline.from_pretrained(path, local_files_only=True)
        found.to(device)
    return found
