"""Checkpoints without a prompt: a network of pixels or latents, in the loop of this library."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from samplers.checkpoint.base import Checkpoint, LoadOptions, Recipe, Tick
from samplers.checkpoint.folder import Folder, Identity
from samplers.checkpoint.index import INDEX, NULL_LABEL, CheckpointError
from samplers.checkpoint.loading import load_component
from samplers.denoiser import Denoiser
from samplers.diffusers.settings import SchedulerSettings, call_unet
from samplers.fitting.fitted import FittedGrid
from samplers.guidance import GuidanceInterval, classifier_free_guidance
from samplers.inverse_problems import (
    Guidance,
    InverseProblem,
    Replacement,
    solve_inverse_problem,
)
from samplers.noise import initial_noise
from samplers.sampling import Adjoint, checked, count_evaluations, sample
from samplers.schedule import Point
from samplers.solve import Solver, State, make_noise, working_dtype

NetworkComponent = Literal["unet", "transformer"]

_NETWORKS: dict[NetworkComponent, str] = {
    "unet": "UNet2DModel",
    "transformer": "DiTTransformer2DModel",
}
_AUTOENCODERS = ("vae", "vqvae", "movq")


class NetworkCheckpoint(Checkpoint):
    """A checkpoint with a network of pixels or latents, unconditional or class-conditional.

    It samples images, and has what a custom loop needs: the model as a denoiser, initial noise, and
    the conversion between images and the network's input. Gradients flow through everything: call
    it under ``torch.no_grad()`` if none are wanted.
    """

    shape: tuple[int, int, int]
    """The shape of one sample of the network, [C, H, W]: an image, or its latents."""

    component: NetworkComponent
    """The name of the network's component in the folder."""

    def __init__(
        self,
        settings: SchedulerSettings,
        identity: Identity,
        component: NetworkComponent,
        network: nn.Module,
        autoencoder: nn.Module | None,
        class_count: int,
        null_label: int | None,
    ) -> None:
        self.settings, self.identity = settings, identity
        self.component = component
        self._network: Any = network
        self._autoencoder: Any = autoencoder
        self.null_label = null_label
        self.classes = tuple(label for label in range(class_count) if label != null_label)
        self.shape = _sample_shape(network)

    @property
    def of_pixels(self) -> bool:
        """Whether the network works on pixels, not on latents."""
        return self._autoencoder is None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, [C, H, W]; equal to ``shape`` for a network of pixels."""
        if self._autoencoder is None:
            return self.shape
        config = self._autoencoder.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return int(config.in_channels), factor * self.shape[1], factor * self.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
        dtype: torch.dtype = self._network.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the network, on which its inputs must be."""
        return next(self.parameters()).device

    @property
    def network(self) -> nn.Module:
        """The network, without the autoencoder."""
        network: nn.Module = self._network
        return network

    def with_network(self, network: nn.Module) -> NetworkCheckpoint:
        """The same checkpoint with another network, which is evaluated in the same way."""
        other = copy.copy(self)
        other._network = network
        return other

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights of the network, without those of the autoencoder."""
        return self.network.parameters()

    def settle(self, recipe: Recipe) -> Recipe:
        if recipe.prompt is not None or recipe.negative_prompt is not None:
            raise ValueError("This checkpoint takes no prompt; omit --prompt.")
        guidance = 1.0 if recipe.guidance is None else recipe.guidance
        self._check_guidance(guidance)
        _check_of_guidance(recipe, guidance)
        sampler = self.checked_sampler(recipe, guidance)
        if not isinstance(sampler, str):  # which has its own grid
            return replace(recipe, sampler=sampler, steps=sampler.nfe, guidance=guidance)
        self.check_fitted(recipe, sampler, guidance)
        own = isinstance(recipe.grid, FittedGrid)
        final = None if own else recipe.final or self.settings.final
        grid = recipe.grid or self.settings.default_spacing
        return replace(recipe, sampler=sampler, grid=grid, final=final, guidance=guidance)

    def _check_guidance(self, guidance: float) -> None:
        if guidance == 1:
            return
        if not self.classes:
            raise ValueError("This checkpoint has no classes to guide towards; omit the guidance.")
        if self.null_label is None:
            raise ValueError(
                f"Guidance needs to know which of the {len(self.classes)} classes stands for 'no "
                f"class', and the checkpoint does not say; pass --null-label (the last, "
                f"{len(self.classes) - 1}, is the custom), or write {NULL_LABEL!r} into {INDEX}."
            )

    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        classes = self.conditions(labels).get("labels")
        return self.draw_from(
            self.start(self.tableau(recipe).start, seeds), recipe, seeds, classes, tick=tick
        )

    def draw_from(
        self,
        x_T: Tensor,
        recipe: Recipe,
        seeds: Sequence[int],
        labels: Tensor | None,
        *,
        adjoint: Adjoint | None = None,
        tick: Tick = lambda: None,
    ) -> Tensor:
        """Sample one image for each initial noise ``[B, *shape]``: [B, C, H, W].

        Args:
            seeds: of the noise of stochastic samplers.
            labels: the class of each image [B]; None for an unconditional network.
            adjoint: how gradients are backpropagated, see :func:`samplers.sample`.
        """
        grid = self.grid(recipe)
        x = sample(
            self.guided(recipe),
            x_T,
            sampler=recipe.sampler,
            grid=grid,
            seeds=seeds,
            noise=recipe.noise,
            options=recipe.options,
            callback=lambda state: tick(),
            conditions={} if labels is None else {"labels": labels},
            adjoint=adjoint,
        )
        return self.finished(x, grid.end)

    def watch(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[Tensor]:
        """The predicted images at each network evaluation, and finally those of :meth:`draw`."""
        solver = self._solver(recipe, seeds)
        for state in self._states(solver, recipe, seeds, labels):
            yield self.decode(state.predictions[0])
        yield self.finished(state.x, solver.tableau.end)

    def restore(
        self,
        recipe: Recipe,
        problem: InverseProblem,
        method: Guidance | Replacement,
        seeds: Sequence[int],
        labels: Sequence[int] | None,
        tick: Tick,
    ) -> Tensor:
        """Sample one solution of an inverse problem for each seed: [B, C, H, W].

        For networks of pixels. The noise is independent; the recipe's setting is ignored.
        """
        tableau = self.tableau(recipe)
        x = solve_inverse_problem(
            self.guided(recipe),
            self.start(tableau.start, seeds),
            problem,
            method=method,
            sampler=recipe.sampler,
            grid=self.grid(recipe),
            seeds=seeds,
            options=recipe.options,
            conditions=self.conditions(labels),
            callback=lambda state: tick(),
        )
        return self.finished(x, tableau.end)

    def _solver(self, recipe: Recipe, seeds: Sequence[int]) -> Solver:
        tableau = self.tableau(recipe)
        noise = make_noise(tableau, seeds, self.shape, recipe.noise)
        return Solver(tableau, self.settings.prediction, noise, self.settings.correction)

    def _states(
        self, solver: Solver, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None
    ) -> Iterator[State]:
        model = self.guided(recipe)
        given = self.conditions(labels)
        state = solver.init(self.start(solver.tableau.start, seeds))
        return solver.run(checked(lambda x, t: model(x, t, **given), solver), state)

    def finished(self, x: Tensor, end: Point) -> Tensor:
        """Images [B, C, H, W] from the samples at the end of a grid."""
        # A grid that ends at sigma_min ends in the coordinates of the schedule.
        return self.decode(x / float(end.alpha))

    def start(self, start: Point, seeds: Sequence[int]) -> Tensor:
        """Initial noise at the start of a grid."""
        noise = initial_noise(seeds, self.shape) * self.settings.schedule.initial_std(start)
        return noise.to(self.device, working_dtype(self.dtype))

    def nfe(self, recipe: Recipe) -> int:
        return count_evaluations(self.guided(recipe), self.tableau(recipe))

    def guided(self, recipe: Recipe) -> Denoiser:
        """The network as a denoiser, with the guidance of a recipe."""
        scale = 1.0 if recipe.guidance is None else recipe.guidance
        return self.denoiser(scale, recipe.guidance_rescale, recipe.guidance_interval)

    def denoiser(
        self,
        guidance: float = 1.0,
        guidance_rescale: float = 0.0,
        guidance_interval: tuple[float, float] | None = None,
    ) -> Denoiser:
        """The network as a denoiser of pixels or latents, with the condition ``labels`` [B] if any.

        Outputs are not checked for NaN.

        Args:
            guidance: the scale of classifier-free guidance; 1 is none, and costs half.
            guidance_rescale, guidance_interval: see :class:`samplers.Recipe`.

        Raises ValueError for guidance without classes, or without a null label.
        """
        self._check_guidance(guidance)
        model = self.settings.denoiser(self._network, _call)
        # Without guidance the null label is not read.
        null = {"labels": self.null_label or 0}
        if guidance == 1 or guidance_interval is None:
            return classifier_free_guidance(model, null, guidance, guidance_rescale)
        scale = GuidanceInterval(guidance, *guidance_interval)
        return classifier_free_guidance(model, null, scale, guidance_rescale)

    def conditions(self, labels: Sequence[int] | None) -> dict[str, Tensor]:
        """The conditions of samples of these classes, on the network's device; empty for None."""
        return {} if labels is None else {"labels": torch.tensor(labels, device=self.device)}

    def encode(self, images: Tensor) -> Tensor:
        """Convert images [B, C, H, W] in [-1, 1] to the space of the network, ``[B, *shape]``.

        For a latent model these are scaled latents; of a VAE they are the posterior mean.
        """
        if self._autoencoder is None:
            return images
        pixels = images.to(self._autoencoder.dtype)
        encoded = self._autoencoder.encode(pixels, return_dict=False)[0]
        latents = encoded if isinstance(encoded, Tensor) else encoded.mean
        scaled: Tensor = latents * self._autoencoder.config.scaling_factor
        return scaled.to(images.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """Convert samples of the network to images [B, C, H, W] in [-1, 1].

        For a network of pixels it is the identity.
        """
        if self._autoencoder is None:
            return latents
        unscaled = latents.to(self._autoencoder.dtype) / self._autoencoder.config.scaling_factor
        images: Tensor = self._autoencoder.decode(unscaled, return_dict=False)[0]
        return images.to(latents.dtype)


def _check_of_guidance(recipe: Recipe, guidance: float) -> None:
    """Check the settings of guidance; ValueError if there is none that they could change."""
    if not 0 <= recipe.guidance_rescale <= 1:
        raise ValueError(
            f"The guidance rescale is {recipe.guidance_rescale}; it must be from 0 to 1."
        )
    if recipe.guidance_interval is not None:
        GuidanceInterval(guidance, *recipe.guidance_interval)  # checks the interval
    options = {
        "--guidance-rescale": recipe.guidance_rescale,
        "--guidance-interval": recipe.guidance_interval,
    }
    given = [option for option, value in options.items() if value]
    if given and guidance == 1:
        raise ValueError(
            f"{given[0]} has no effect at guidance 1; pass --guidance above 1, or omit it."
        )


# ------------------------------------------------------------------------------------- loading


def network_component(folder: Folder) -> NetworkComponent | None:
    """The name of the component that is a network without a prompt; None if there is none."""
    found = [name for name, kind in _NETWORKS.items() if folder.class_of(name) == kind]
    return found[0] if found else None


def load_network(
    folder: Folder, component: NetworkComponent, options: LoadOptions
) -> NetworkCheckpoint:
    """Load the network of a checkpoint, and its autoencoder, if any."""
    network = load_component(folder, component, options)
    autoencoders = [name for name in _AUTOENCODERS if folder.class_of(name) is not None]
    autoencoder = load_component(folder, autoencoders[0], options) if autoencoders else None
    count = _class_count(folder, component, network)
    asked = folder.index.get(NULL_LABEL) if options.null_label is None else options.null_label
    null = _null_label(asked, component, network, count)
    parts = (component, network, autoencoder)
    return NetworkCheckpoint(folder.settings, folder.identity(), *parts, count, null)


def _class_count(folder: Folder, component: NetworkComponent, network: Any) -> int:
    if component == "transformer":
        return int(network.config.num_embeds_ada_norm) + 1
    if network.config.class_embed_type is not None:
        raise CheckpointError(
            f"{folder.path} is conditioned on {network.config.class_embed_type!r} embeddings, not "
            "on classes; it can't be sampled here."
        )
    return int(network.config.num_class_embeds or 0)


def _null_label(
    asked: object, component: NetworkComponent, network: Any, class_count: int
) -> int | None:
    """The label for "no class": as given by the options, or DiT's."""
    if asked is None:
        return int(network.config.num_embeds_ada_norm) if component == "transformer" else None
    if not class_count:
        raise ValueError("A null label was given, but the checkpoint knows no classes.")
    if not isinstance(asked, int) or not 0 <= asked < class_count:
        raise ValueError(f"The null label is {asked}; it must be from 0 to {class_count - 1}.")
    return asked


def _sample_shape(network: Any) -> tuple[int, int, int]:
    size = network.config.sample_size
    if size is None:
        raise CheckpointError("The checkpoint does not say how large its images are (sample_size).")
    height, width = (size, size) if isinstance(size, int) else size
    return int(network.config.in_channels), int(height), int(width)


def _call(network: Any, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    return call_unet(network, x, t, class_labels=labels)
