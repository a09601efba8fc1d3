"""Layer 6. Checkpoints: a diffusers folder on disk as something that draws images from seeds.

Two kinds are told apart by ``model_index.json``. A network without a prompt (``UNet2DModel`` or
``DiTTransformer2DModel``, of classes or not, with an autoencoder or not) runs in the library's own
loop. A pipeline with a prompt runs as diffusers wrote it, with our scheduler in it.

Weights are read from safetensors; a pickle needs to be allowed, and even then holds tensors only
(``weights_only=True``). No code of a checkpoint is ever run.
"""

from __future__ import annotations

import abc
import hashlib
import importlib.util
import inspect
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from samplers.diffusers_config import SchedulerSettings, read_config
from samplers.diffusers_scheduler import SamplerScheduler
from samplers.grid import Final, Grid, Spacing, default_spacing
from samplers.noise import RowNoise, initial_noise
from samplers.prediction import classifier_free_guidance
from samplers.registry import get_sampler
from samplers.sample import NotFiniteError, checked
from samplers.schedule import Point, VarianceExploding
from samplers.solve import Solver, working_dtype
from samplers.tableau import Tableau

INDEX = "model_index.json"
NULL_LABEL = "_null_label"
"""The key of ``model_index.json`` that says which class stands for "no class"."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")

Tick = Callable[[], object]
"""Called after every network call."""


class CheckpointError(Exception):
    """The checkpoint can't be read, or is of a kind that can't be sampled here."""


@dataclass(frozen=True)
class Recipe:
    """What decides the images of a checkpoint, but for their seeds and classes.

    grid: a spacing; None for the schedule's default, or the pipeline's own if it has a prompt.
    final: where the last step ends; None for what the checkpoint's scheduler says.
    guidance: the scale of classifier-free guidance; None for the checkpoint's own.
    prompt, negative_prompt: for checkpoints that draw what a text says.
    """

    sampler: str = "dpmpp-2m"
    steps: int = 20
    grid: Spacing | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    guidance: float | None = None
    guidance_rescale: float = 0.0
    prompt: str | None = None
    negative_prompt: str | None = None


class Checkpoint(abc.ABC):
    """A model on disk, loaded, that draws images."""

    settings: SchedulerSettings
    weights: dict[str, str]
    """The SHA-256 of every file of weights, by its path inside of the checkpoint."""

    classes: tuple[int, ...] = ()
    """The classes that can be asked for, but for the null label; none if the model knows none."""

    null_label: int | None = None
    """The class that stands for "no class", if there is one."""

    @abc.abstractmethod
    def settle(self, recipe: Recipe) -> Recipe:
        """The recipe with every choice made; ValueError if this model can't follow it."""

    @abc.abstractmethod
    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        """Draw one image for each seed: [B, C, H, W], values from -1 to 1.

        Raises NotFiniteError if the network returns NaN or infinity.
        """

    def tableau(self, recipe: Recipe) -> Tableau:
        """The table that the recipe's sampler runs; ValueError if its settings are impossible."""
        return get_sampler(recipe.sampler).tableau(self.grid(recipe), recipe.options)

    def grid(self, recipe: Recipe) -> Grid:
        """The time grid of a recipe on this model's noise schedule."""
        settings = replace(self.settings, final=recipe.final or self.settings.final)
        return settings.grid(
            recipe.steps, recipe.grid, sigma_min=recipe.sigma_min, sigma_max=recipe.sigma_max
        )


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded.

    allow_pickle: whether weights may come from a pickle where there are no safetensors.
    null_label: the class that stands for "no class", if the checkpoint does not say so itself.
    """

    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    allow_pickle: bool = False
    null_label: int | None = None


def load_checkpoint(folder: Path, options: LoadOptions) -> Checkpoint:
    """Load a diffusers folder.

    Raises CheckpointError if it can't be read or can't be sampled, ValueError for an impossible
    null label.
    """
    index = read_index(folder)
    settings = read_settings(folder)
    files = _weight_files(folder, index, options.allow_pickle)
    kind = _kind(folder, index)
    weights = {str(file.relative_to(folder)): _sha256(file) for file in files}
    if kind == "prompt":
        return _load_pipeline(folder, settings, weights, options)
    return _load_network(folder, index, kind, settings, weights, options)


def read_index(folder: Path) -> dict[str, Any]:
    """``model_index.json`` of a checkpoint; CheckpointError if there is none."""
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a single file; a checkpoint is a folder that diffusers saved, with "
            f"{INDEX} in it (from_single_file and save_pretrained make one)."
        )
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint at {folder}: no such folder.")
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} is not a diffusers checkpoint: it has no {INDEX}.")
    return _read_json(folder / INDEX)


def read_settings(folder: Path) -> SchedulerSettings:
    """The noise schedule of a checkpoint and what its network predicts; reads no weights."""
    read_index(folder)
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no noise schedule: {path} is missing.")
    try:
        return read_config(_read_json(path))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"The noise schedule in {path} can't be used: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not a JSON object.")
    return data


# --------------------------------------------------------------------------------- the weights


def _weight_files(folder: Path, index: Mapping[str, Any], allow_pickle: bool) -> list[Path]:
    """Every file of weights that will be loaded, checked as far as can be without loading it."""
    models = [name for name in index if (folder / name / "config.json").is_file()]
    files = [file for name in sorted(models) for file in _component_files(folder / name)]
    pickles = [file for file in files if file.suffix in _PICKLES]
    if pickles and not allow_pickle:
        raise CheckpointError(
            f"{pickles[0]} is a pickle, which can run code when loaded, and there are no "
            "safetensors beside it; if you trust its source, pass --allow-pickle."
        )
    for file in files:
        if file not in pickles:
            _check_safetensors(file)
    return files


def _component_files(folder: Path) -> list[Path]:
    for suffixes in ((".safetensors",), _PICKLES):
        found = sorted(file for file in folder.iterdir() if file.suffix in suffixes)
        # A second dot marks a variant, such as model.fp16.safetensors, which is not loaded.
        plain = [file for file in found if "." not in file.stem]
        if plain:
            return plain
    raise CheckpointError(f"{folder} has no weights: no .safetensors file is in it.")


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is no whole safetensors file ({error}); fetch or export it again."
        ) from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Whatever diffusers raises at a folder that it can't load, as one sentence."""
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    try:
        yield
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError,
        pickle.UnpicklingError, EOFError,
    ) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder} can't be loaded: {reason}") from error


# ----------------------------------------------------------------------------------- the kinds

Kind = Literal["unet", "transformer", "prompt"]


def _kind(folder: Path, index: Mapping[str, Any]) -> Kind:
    """Which component is the network, or that a prompt is needed; CheckpointError if neither."""
    if _class_of(index, "unet") == "UNet2DModel":
        return "unet"
    if _class_of(index, "transformer") == "DiTTransformer2DModel":
        return "transformer"
    name = index.get("_class_name")
    _prepare_transformers(folder, index)
    pipeline = getattr(diffusers, str(name), None)
    if pipeline is None:
        raise CheckpointError(
            f"{folder} holds a {name}, which diffusers {diffusers.__version__} does not know; its "
            "own code would have to run, and that is not done here."
        )
    parameters = inspect.signature(pipeline.__call__).parameters
    foreign = [what for parameter, what in _FOREIGN.items() if parameter in parameters]
    foreign += [] if "prompt" in parameters else ["takes neither a class nor a prompt"]
    if foreign:
        raise CheckpointError(
            f"{folder} holds a {name}, which {foreign[0]}; only models that draw images from "
            "noise, a class or a prompt can be sampled here."
        )
    return "prompt"


# Arguments that tell a pipeline that can't be served.
_FOREIGN = {
    "strength": "starts from an image",
    "mask_image": "starts from an image",
    "num_frames": "makes videos",
    "audio_length_in_s": "makes sound",
}


def _prepare_transformers(folder: Path, index: Mapping[str, Any]) -> None:
    """Have the library of text encoders load without remarks; CheckpointError if it is missing."""
    libraries = [entry[0] for entry in index.values() if isinstance(entry, list)]
    if "transformers" not in libraries:
        return
    if importlib.util.find_spec("transformers") is None:
        raise CheckpointError(
            f"{folder} has a text encoder, which needs the package transformers; install it with "
            "pip install 'retrograde[text]'."
        )
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _class_of(index: Mapping[str, Any], component: str) -> str | None:
    entry = index.get(component)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else None


# ------------------------------------------------------------------------ networks in our loop


def _load_network(
    folder: Path,
    index: Mapping[str, Any],
    component: Literal["unet", "transformer"],
    settings: SchedulerSettings,
    weights: dict[str, str],
    options: LoadOptions,
) -> Checkpoint:
    network = _load_model(folder / component, str(_class_of(index, component)), options)
    decoders = [name for name in ("vae", "vqvae", "movq") if _class_of(index, name) is not None]
    decoder = None
    if decoders:
        name = decoders[0]
        decoder = _load_model(folder / name, str(_class_of(index, name)), options)
    classes = _class_count(folder, component, network)
    null = _null_label(index, component, network, classes, options.null_label)
    return NetworkCheckpoint(settings, weights, network, decoder, classes, null)


def _load_model(folder: Path, name: str, options: LoadOptions) -> nn.Module:
    safe = any(file.suffix == ".safetensors" for file in _component_files(folder))
    with _loading(folder):
        model, report = getattr(diffusers, name).from_pretrained(
            folder,
            dtype=options.dtype,
            use_safetensors=safe,
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise CheckpointError(
            f"{folder} lacks {len(report['missing_keys'])} of the network's weights, "
            f"{report['missing_keys'][0]!r} among them."
        )
    loaded: nn.Module = model.to(options.device).eval().requires_grad_(False)
    return loaded


def _class_count(folder: Path, component: str, network: Any) -> int:
    if component == "transformer":
        return int(network.config.num_embeds_ada_norm) + 1
    if network.config.class_embed_type is not None:
        raise CheckpointError(
            f"{folder} is conditioned on {network.config.class_embed_type!r} embeddings, not on "
            "classes; it can't be sampled here."
        )
    return int(network.config.num_class_embeds or 0)


def _null_label(
    index: Mapping[str, Any], component: str, network: Any, classes: int, asked: int | None
) -> int | None:
    """The class that means "no class": as asked, as the index says, or as DiT always has it."""
    label = index.get(NULL_LABEL) if asked is None else asked
    if label is None:
        return int(network.config.num_embeds_ada_norm) if component == "transformer" else None
    if not classes:
        raise ValueError("A null label was given, but the checkpoint knows no classes.")
    if not isinstance(label, int) or not 0 <= label < classes:
        raise ValueError(f"The null label is {label}; it must be from 0 to {classes - 1}.")
    return label


class NetworkCheckpoint(Checkpoint):
    """A network over images or latents, of classes or not, run by the library's own loop."""

    def __init__(
        self,
        settings: SchedulerSettings,
        weights: dict[str, str],
        network: nn.Module,
        decoder: nn.Module | None,
        class_count: int,
        null_label: int | None,
    ) -> None:
        self.settings, self.weights = settings, weights
        self._network: Any = network
        self._decoder: Any = decoder
        self.null_label = null_label
        self.classes = tuple(label for label in range(class_count) if label != null_label)
        self._shape = _sample_shape(network)

    def settle(self, recipe: Recipe) -> Recipe:
        if recipe.prompt is not None or recipe.negative_prompt is not None:
            raise ValueError("This checkpoint takes no prompt; leave --prompt away.")
        guidance = 1.0 if recipe.guidance is None else recipe.guidance
        if guidance != 1 and not self.classes:
            raise ValueError("This checkpoint knows no classes; there is nothing to guide towards.")
        if guidance != 1 and self.null_label is None:
            raise ValueError(
                f"Guidance needs to know which of the {len(self.classes)} classes stands for 'no "
                f"class', and the checkpoint does not say; pass --null-label (the last, "
                f"{len(self.classes) - 1}, is the custom), or write {NULL_LABEL!r} into {INDEX}."
            )
        if not 0 <= recipe.guidance_rescale <= 1:
            raise ValueError(
                f"The guidance rescale is {recipe.guidance_rescale}; it must be from 0 to 1."
            )
        name = get_sampler(recipe.sampler).name
        final = recipe.final or self.settings.final
        grid = recipe.grid or default_spacing(self.settings.schedule)
        return replace(recipe, sampler=name, grid=grid, final=final, guidance=guidance)

    @torch.no_grad()
    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        settings, parameter = self.settings, next(self._network.parameters())
        noise = RowNoise(tuple(seeds), self._shape)
        solver = Solver(self.tableau(recipe), settings.prediction, noise, settings.correction)
        state = solver.init(self._start(solver.tableau.start, seeds).to(parameter.device))
        model = checked(self._model(recipe, labels), solver)
        for state in solver.run(model, state):  # noqa: B007  the last one holds the sample
            tick()
        # A grid that ends at sigma_min ends in the coordinates of the network.
        x0 = state.x / float(solver.tableau.end.alpha)
        return self._decode(x0.to(parameter.dtype)).float() if self._decoder else x0

    def _start(self, start: Point, seeds: Sequence[int]) -> Tensor:
        """Starting noise, of deviation 1 but for states whose variance grows with the noise."""
        noise = initial_noise(seeds, self._shape)
        if isinstance(self.settings.schedule, VarianceExploding):
            noise = noise * start.sigma
        return noise.to(working_dtype(self._network.dtype))

    def _model(
        self, recipe: Recipe, labels: Sequence[int] | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        if labels is None:
            return lambda x, t: self._call(x, t, None)
        device = next(self._network.parameters()).device
        wanted = torch.tensor(labels, device=device)
        scale = 1.0 if recipe.guidance is None else recipe.guidance
        # Without guidance the null label is not read.
        null = torch.full_like(wanted, self.null_label or 0)
        return classifier_free_guidance(self._call, wanted, null, scale, recipe.guidance_rescale)

    def _call(self, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        time = t * self.settings.time_scale
        output = self._network(x.to(self._network.dtype), time, class_labels=labels).sample
        # Some networks also predict a variance, in channels after those of the prediction.
        prediction: Tensor = output[:, : x.shape[1]].to(x.dtype)
        return prediction

    def _decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self._decoder.decode(latents / self._decoder.config.scaling_factor).sample
        return images


def _sample_shape(network: Any) -> tuple[int, int, int]:
    size = network.config.sample_size
    if size is None:
        raise CheckpointError("The checkpoint does not say how large its images are (sample_size).")
    height, width = (size, size) if isinstance(size, int) else size
    return int(network.config.in_channels), int(height), int(width)


# ------------------------------------------------------------------------ pipelines with a prompt


def _load_pipeline(
    folder: Path, settings: SchedulerSettings, weights: dict[str, str], options: LoadOptions
) -> Checkpoint:
    if options.null_label is not None:
        raise ValueError("This checkpoint is asked by a prompt and knows no classes.")
    safe = all(name.endswith(".safetensors") for name in weights)
    with _loading(folder):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder,
            dtype=options.dtype,
            use_safetensors=True if safe else None,
            local_files_only=True,
        )
        pipeline.to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    return PipelineCheckpoint(settings, weights, pipeline)


class PipelineCheckpoint(Checkpoint):
    """A diffusers pipeline that draws what a prompt says, with our scheduler in it."""

    def __init__(self, settings: SchedulerSettings, weights: dict[str, str], pipeline: Any) -> None:
        self.settings, self.weights = settings, weights
        self._pipeline = pipeline
        self._config = pipeline.scheduler.config
        self._parameters = inspect.signature(pipeline.__call__).parameters

    def settle(self, recipe: Recipe) -> Recipe:
        if recipe.prompt is None:
            raise ValueError("This checkpoint draws what a text says; give it a --prompt.")
        for name in ("guidance", "guidance_rescale", "negative_prompt"):
            self._check_taken(recipe, name)
        guidance = recipe.guidance
        if guidance is None and "guidance_scale" in self._parameters:
            guidance = self._parameters["guidance_scale"].default
        name, final = get_sampler(recipe.sampler).name, recipe.final or self.settings.final
        return replace(recipe, sampler=name, final=final, guidance=guidance)

    def _check_taken(self, recipe: Recipe, name: str) -> None:
        argument = {"guidance": "guidance_scale"}.get(name, name)
        if getattr(recipe, name) not in (None, 0.0) and argument not in self._parameters:
            option = name.replace("_", "-")
            kind = type(self._pipeline).__name__
            raise ValueError(f"The pipeline of this checkpoint, {kind}, has no --{option}.")

    def draw(
        self, recipe: Recipe, seeds: Sequence[int], labels: Sequence[int] | None, tick: Tick
    ) -> Tensor:
        self._pipeline.scheduler = SamplerScheduler.from_config(
            self._config,
            sampler=recipe.sampler,
            grid=recipe.grid,
            sampler_options=dict(recipe.options),
            sigma_min=recipe.sigma_min,
            sigma_max=recipe.sigma_max,
            final_sigmas_type=recipe.final,
        )
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
        given = {
            name: value
            for name, value in arguments.items()
            if name in self._parameters and value is not None
        }
        images: Tensor = self._pipeline(**given).images
        _check_finite(images, "in the finished images")
        return images.float() * 2 - 1


def _after_call(tick: Tick) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    def after(pipeline: Any, number: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tick()
        total = len(pipeline.scheduler.timesteps)
        _check_finite(tensors["latents"], f"at call {number + 1} of {total} (t = {float(t):.6g})")
        return tensors

    return after


def _check_finite(x: Tensor, where: str) -> None:
    if not bool(x.isfinite().all()):
        raise NotFiniteError(f"The network returned NaN or infinity {where}.", x)
