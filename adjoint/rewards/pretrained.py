"""Models saved by transformers, loaded from a local folder, and their image preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from adjoint.rewards.reward import Placement
from samplers.checkpoint.loading import reason_of
from samplers.files import parse_json, refuse_special


@dataclass(frozen=True)
class Preparation:
    """Resize to (height, width), and normalise values that were scaled to [0, 1].

    The whole image is resized where transformers may crop it, and nothing is rounded or clipped,
    so that every pixel has a gradient.

    Attributes:
        size: None for no resizing.
        mean, std: of each channel.
    """

    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Preprocess images [B, C, H, W] in [-1, 1]; grey ones are broadcast to the channels."""
        if images.shape[1] not in (1, len(self.mean)):
            raise ValueError(
                f"The images have {images.shape[1]} channels, but the network takes "
                f"{len(self.mean)}; only grey images are converted."
            )
        if self.size is not None:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((images + 1) / 2 - mean) / std


class Pretrained(NamedTuple):
    """A frozen model of transformers, and its image preprocessing."""

    folder: Path
    model: Any
    prepare: Preparation


def load_pretrained(kind: str, folder: Path, placement: Placement) -> Pretrained:
    """Load a model by one of transformers' auto classes; ValueError if the folder has none.

    Weights are read from safetensors only, and no code in the folder is run.
    """
    model, report = _loaded(kind, folder, use_safetensors=True, output_loading_info=True)
    # A classifier's folder has no pooler of the plain model; nothing here uses it.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the weights of a {type(model).__name__}, "
            f"{missing[0]!r} among them; save the complete model there."
        )
    model = model.to(placement.device, placement.dtype).eval().requires_grad_(False)
    return Pretrained(folder, model, read_preparation(folder))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in the folder; ValueError if there is none."""
    return _loaded("AutoTokenizer", folder)


def _loaded(kind: str, folder: Path, **settings: bool) -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{folder} was saved by the package transformers, which is missing; install it with "
            "pip install 'retrograde[text]'."
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    refuse_special(folder)
    try:
        return getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
    except Exception as error:  # it raises any, for configs with values of wrong types
        reason = reason_of(error)
        raise ValueError(f"{folder} can't be loaded by transformers' {kind}: {reason}") from error


def read_preparation(folder: Path) -> Preparation:
    """The preprocessing of the folder's image processor; ValueError if it is not given."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        config = read_json(path)
    else:
        # Image-text models save one processor for both.
        path = folder / "processor_config.json"
        config = read_json(path).get("image_processor", {}) if path.is_file() else {}
    mean, std = config.get("image_mean"), config.get("image_std")
    if not config.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    if not mean or not std:
        raise ValueError(
            f"{folder} does not say how its images are normalised; save the model's image "
            "processor there, whose preprocessor_config.json has image_mean and image_std."
        )
    return Preparation(_size(config, path), tuple(mean), tuple(std))


def _size(config: Mapping[str, Any], path: Path) -> tuple[int, int] | None:
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    resized = config.get("size") if config.get("do_resize", True) else None
    match crop or resized:
        case None:
            return None
        case {"height": int(height), "width": int(width)}:
            return height, width
        case int(side) | {"shortest_edge": int(side)}:
            return side, side
        case other:
            raise ValueError(
                f"{path} has the size {other}; it must be a number, or have a height and a width, "
                "or a shortest_edge."
            )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError if there is none."""
    try:
        refuse_special(path)
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} can't be read, but the network beside it needs it.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a JSON object.")
    return found


def pretrained_features(folder: Path, placement: Placement) -> Callable[[Tensor], list[Tensor]]:
    """The hidden states of a vision model; tokens [B, T, C] become maps [B, C, T, 1]."""
    network = load_pretrained("AutoModel", folder, placement)
    if network.model.main_input_name != "pixel_values":
        raise ValueError(
            f"{folder} holds a {type(network.model).__name__}, which takes more than images; save "
            "its vision model alone."
        )

    def features(images: Tensor) -> list[Tensor]:
        x = network.prepare(images)
        states = network.model(pixel_values=x, output_hidden_states=True).hidden_states
        return [s.transpose(1, 2).unsqueeze(3) if s.ndim == 3 else s for s in states]

    return features


def pretrained_classifier(folder: Path, placement: Placement) -> Callable[[Tensor], Tensor]:
    """The logits [B, classes] of a model for the classification of images."""
    network = load_pretrained("AutoModelForImageClassification", folder, placement)

    def classifier(images: Tensor) -> Tensor:
        logits: Tensor = network.model(pixel_values=network.prepare(images)).logits
        return logits

    return classifier
