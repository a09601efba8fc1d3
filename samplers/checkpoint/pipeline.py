"""Checkpoints with a prompt: an unmodified diffusers pipeline with our scheduler."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import diffusers
import torch
from torch import Tensor

from samplers.checkpoint.base import Checkpoint, LoadOptions, Recipe, Tick
from samplers.checkpoint.folder import Folder, Identity, is_pickle
from samplers.checkpoint.index import CheckpointError
from samplers.checkpoint.loading import dtype_argument, load_errors
from samplers.diffusers.scheduler import SamplerScheduler
from samplers.diffusers.settings import SchedulerSettings
from samplers.errors import NotFiniteError
from samplers.fitting.fitted import FittedGrid

# Arguments of the call by which unsupported pipelines are recognised.
_FOREIGN = {
    "strength": "starts from an image",
    "mask_image": "starts from an image",
    "num_frames": "makes videos",
    "audio_length_in_s": "makes sound",
}


class PipelineCheckpoint(Checkpoint):
    """A checkpoint with a diffusers pipeline that is conditioned on a prompt."""

    pipeline: Any
    """The unmodified pipeline."""

    def __init__(self, settings: SchedulerSettings, identity: Identity, pipeline: Any) -> None:
        self.settings, self.identity = settings, identity
        self.pipeline = pipeline
        self._config = pipeline.scheduler.config
        self._parameters = inspect.signature(pipeline.__call__).parameters

    def settle(self, recipe: Recipe) -> Recipe:
        if recipe.prompt is None:
            raise ValueError("This checkpoint is conditioned on a prompt; pass --prompt.")
        self._check_taken("--guidance", "guidance_scale", recipe.guidance)
        self._check_taken("--guidance-rescale", "guidance_rescale", recipe.guidance_rescale)
        self._check_taken("--guidance-interval", "guidance_interval", recipe.guidance_interval)
        self._check_taken("--negative-prompt", "negative_prompt", recipe.negative_prompt)
        guidance = recipe.guidance
        if guidance is None and "guidance_scale" in self._parameters:
            guidance = self._parameters["guidance_scale"].default
        if recipe.negative_prompt is not None:
            self._check_guided(guidance)
        sampler = self.checked_sampler(recipe, guidance)
        if not isinstance(sampler, str):  # which has its own grid
            return replace(recipe, sampler=sampler, steps=sampler.nfe, guidance=guidance)
        self.check_fitted(recipe, sampler, guidance)
        own = isinstance(recipe.grid, FittedGrid)
        final = None if own else recipe.final or self.settings.final
        grid = recipe.grid or self.settings.default_spacing
        return replace(recipe, sampler=sampler, grid=grid, final=final, guidance=guidance)

    def _check_guided(self, guidance: float | None) -> None:
        """Raise ValueError if the pipeline would ignore a negative prompt."""
        own = self._parameters.get("true_cfg_scale")  # where guidance_scale is the network's input
        scale = guidance if own is None else own.default
        if scale is not None and scale <= 1:
            raise ValueError(
                f"--negative-prompt has no effect at guidance {scale:g}; "
                + ("pass --guidance above 1, or omit it." if own is None else "omit it.")
            )

    def _check_taken(self, option: str, argument: str, value: object) -> None:
        if value not in (None, 0.0) and argument not in self._parameters:
            kind = type(self.pipeline).__name__
            raise ValueError(f"The pipeline of this checkpoint, {kind}, has no {option}.")

    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        self.pipeline.scheduler = self.scheduler(recipe)
        images: Tensor = self.pipeline(**self.arguments(recipe, seeds, tick)).images
        _check_finite(images, "in the finished images")
        return images.float() * 2 - 1

    def scheduler(self, recipe: Recipe) -> SamplerScheduler:
        """The recipe's sampler as a scheduler, configured like that of the pipeline."""
        scheduler: SamplerScheduler = SamplerScheduler.from_config(
            self._config,
            sampler=recipe.sampler,
            grid=recipe.grid,
            noise=recipe.noise,
            sampler_options=dict(recipe.options),
            sigma_min=recipe.sigma_min,
            sigma_max=recipe.sigma_max,
            final_sigmas_type=recipe.final,
        )
        return scheduler

    def arguments(
        self, recipe: Recipe, seeds: Sequence[int], tick: Tick = lambda: None
    ) -> dict[str, Any]:
        """The arguments of the pipeline's call that it accepts; images are tensors in [0, 1]."""
        negative = recipe.negative_prompt
        arguments = {
            "prompt": [recipe.prompt] * len(seeds),
            "negative_prompt": None if negative is None else [negative] * len(seeds),
            "num_inference_steps": recipe.steps,
            "guidance_scale": recipe.guidance,
            "guidance_rescale": recipe.guidance_rescale,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "output_type": "pt",
            "callback_on_step_end": _after_call(tick),
        }
        return {
            name: value
            for name, value in arguments.items()
            if name in self._parameters and value is not None
        }


def _after_call(tick: Tick) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    def after(pipeline: Any, number: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tick()
        total = len(pipeline.scheduler.timesteps)
        _check_finite(
            tensors["latents"], f"at evaluation {number + 1} of {total} (t = {float(t):.6g})"
        )
        return tensors

    return after


def _check_finite(x: Tensor, where: str) -> None:
    if not bool(x.isfinite().all()):
        raise NotFiniteError(f"The network returned NaN or infinity {where}.", x)


# ------------------------------------------------------------------------------------- loading


def load_pipeline(folder: Folder, options: LoadOptions) -> PipelineCheckpoint:
    """Load a pipeline that samples from a prompt; CheckpointError if it is of another kind."""
    _check_pipeline(folder)
    if options.null_label is not None:
        raise ValueError(
            "This checkpoint is conditioned on a prompt, not on classes; omit the null label."
        )
    pickled = any(is_pickle(file) for file in folder.weight_files)
    with load_errors(folder.path):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder.path,
            **{dtype_argument(): options.dtype},
            use_safetensors=None if pickled else True,
            local_files_only=True,
            # Without it, diffusers misses those that its class does not call optional.
            **dict.fromkeys(folder.omitted()),
        )
        pipeline.to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    return PipelineCheckpoint(folder.settings, folder.identity(), pipeline)


def _check_pipeline(folder: Folder) -> None:
    name = folder.index.get("_class_name")
    if "transformers" in folder.libraries():
        _prepare_transformers(folder)
    pipeline = getattr(diffusers, str(name), None)
    if pipeline is None:
        raise CheckpointError(
            f"{folder.path} holds a {name}, which diffusers {diffusers.__version__} does not know; "
            "its own code would have to run, and that is not done here."
        )
    parameters = inspect.signature(pipeline.__call__).parameters
    foreign = [what for parameter, what in _FOREIGN.items() if parameter in parameters]
    foreign += [] if "prompt" in parameters else ["takes neither a class nor a prompt"]
    if foreign:
        raise CheckpointError(
            f"{folder.path} holds a {name}, which {foreign[0]}; only models that draw images from "
            "noise, a class or a prompt can be sampled here."
        )


def _prepare_transformers(folder: Folder) -> None:
    """Silence the log of transformers; CheckpointError if it is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise CheckpointError(
            f"{folder.path} has a text encoder, which needs the package transformers; install it "
            "with pip install 'retrograde[text]'."
        )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
