"""Latent codes on disk: one safetensors file with the codes and how they were computed.

The file has the tensor ``codes`` [N, *shape]; its metadata, in JSON, has the settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from samplers.checkpoint.network import NetworkCheckpoint
from samplers.diffusers.config import read_config
from samplers.files import checked, parse_json, replacing

_CODES = "codes"
_ABOUT = "parameters"


class _About(TypedDict):
    """What is needed of the settings."""

    weights_sha256: dict[str, str]
    configs_sha256: dict[str, str]
    scheduler: dict[str, Any]
    checkpoint: str
    labels: list[int] | None
    null_label: int | None
    guidance: float
    guidance_rescale: float
    guidance_interval: list[float] | None
    sigma_min: float | None
    sigma_max: float | None


class CodesError(OSError):
    """A file of codes can't be read, for the reason in the message."""


class Codes(NamedTuple):
    """Latent codes [N, *shape], the class of each or None, and how they were computed.

    Attributes:
        about: the settings of network and flow, as in the PNG files of the commands.
    """

    codes: Tensor
    labels: tuple[int, ...] | None
    about: dict[str, Any]


def write_codes(path: Path, found: Codes) -> None:
    """Write a file of codes, atomically."""
    with replacing(path) as part:
        save_file({_CODES: found.codes.contiguous()}, part, {_ABOUT: json.dumps(found.about)})


def read_codes(path: Path) -> Codes:
    """Read a file of codes; CodesError if it can't be read, ValueError if it is inconsistent."""
    if not path.is_file():
        raise CodesError(f"There are no codes at {path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {})[_ABOUT])
            codes = file.get_tensor(_CODES)
        labels = checked(_About, about)["labels"]
        found = Codes(codes, None if labels is None else tuple(labels), about)
    except (KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise CodesError(
            f"{path} can't be read; give a file that `samplers encode` wrote."
        ) from error
    count = len(codes) if codes.ndim else 0
    if not count or not codes.is_floating_point() or not bool(codes.isfinite().all()):
        raise ValueError(f"{path} holds no codes, or such that are no finite numbers.")
    if found.labels is not None and len(found.labels) != count:
        raise ValueError(f"{path} holds {count} codes, and classes of {len(found.labels)}.")
    return found


def check_codes(found: Codes, path: Path, checkpoint: NetworkCheckpoint) -> None:
    """Raise ValueError if the codes of a file belong to another network, or to another use of it:
    other configs, noise schedule or prediction type."""
    difference = _difference(found, checkpoint)
    if difference:
        raise ValueError(
            f"The codes in {path} belong to the model of {found.about['checkpoint']}, with other "
            f"{difference}; a code means nothing to another model: decode it with that one."
        )
    interval = found.about["guidance_interval"]
    if interval is not None and len(interval) != 2:
        raise ValueError(f"The guidance interval in {path} is {interval}; it must be two numbers.")
    known = {*checkpoint.classes, checkpoint.null_label}
    wrong = [label for label in found.labels or () if label not in known]
    if wrong:
        raise ValueError(f"A code in {path} is of the class {wrong[0]}, which there is not.")


def _difference(found: Codes, checkpoint: NetworkCheckpoint) -> str:
    """What a checkpoint has other than the one of the codes, in words; empty if nothing."""
    own, about = checkpoint.identity, found.about
    same_shape = tuple(found.codes.shape[1:]) == tuple(checkpoint.shape)
    if about["weights_sha256"] != own.weights_sha256 or not same_shape:
        return "weights than this checkpoint's"
    for name, digest in own.configs_sha256.items():
        if about["configs_sha256"].get(name) != digest:
            return f"settings in {name} than this checkpoint's"
    theirs = read_config(about["scheduler"]).training()
    for name, words in checkpoint.settings.training().items():
        if theirs[name] != words:
            return f"{name} than this checkpoint's ({theirs[name]}, not {words})"
    return ""
