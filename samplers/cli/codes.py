"""Latent codes on disk: one safetensors file, which says what its codes belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from samplers.cli.failure import Failure
from samplers.files import replacing

_CODES = "codes"
_ABOUT = "parameters"


class Codes(NamedTuple):
    """Codes [N, *shape], the class of each or None, and how they were found.

    ``about`` holds the parameters that pictures hold, see ``output.common_parameters``.
    """

    codes: Tensor
    labels: tuple[int, ...] | None
    about: dict[str, Any]


def write_codes(path: Path, found: Codes) -> None:
    """Write the file, whole or not at all."""
    try:
        with replacing(path) as part:
            save_file({_CODES: found.codes.contiguous()}, part, {_ABOUT: json.dumps(found.about)})
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}.") from error


def read_codes(path: Path, shape: Sequence[int], weights: dict[str, str]) -> Codes:
    """The codes of a file, which are for a network of samples ``shape`` with these weights.

    Raises Failure if it can't be read, ValueError if the codes are of another network.
    """
    if not path.is_file():
        raise Failure(f"There are no codes at {path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            codes = file.get_tensor(_CODES)
        labels = about["labels"]
        found = Codes(codes, None if labels is None else tuple(labels), about)
    except (KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise Failure(f"{path} can't be read; give a file that `samplers encode` wrote.") from error
    if about["weights_sha256"] != weights or tuple(codes.shape[1:]) != tuple(shape):
        raise ValueError(
            f"The codes in {path} belong to the network of {about['checkpoint']}, with other "
            "weights than this checkpoint's; a code means nothing to another network."
        )
    return found
