"""A clip of a flow, and the file that holds it.

A file is in the format of safetensors, which any language reads and nothing is executed from:
``nodes`` [N, 2] and ``times`` [F] in float64, ``triangles`` [T, 3] and ``kinds`` [N] in int64,
``fields`` [F, N, 3] in float32, velocity and pressure; the metadata ``flow`` has the numbers of the
flow in JSON, in SI units.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from samplers.files import replacing
from text2pde.channel import Channel, Flow
from text2pde.mesh import Mesh, Numbers, check_mesh

SUFFIX = ".safetensors"
_TENSORS = ("nodes", "triangles", "kinds", "times", "fields")


class Clip(NamedTuple):
    """A flow at some times.

    times: in seconds [F].
    fields: velocity in m/s and pressure by density in m^2/s^2, at the nodes, [F, N, 3].
    """

    flow: Flow
    mesh: Mesh
    times: Numbers
    fields: NDArray[np.float32]


def save_clip(clip: Clip, path: Path) -> None:
    """Write the file in one rename."""
    tensors = {**clip.mesh._asdict(), "times": clip.times, "fields": clip.fields}
    kept = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with replacing(path) as part:
        save_file(kept, part, {"flow": json.dumps(asdict(clip.flow))})


def load_clip(path: Path) -> Clip:
    """Read a clip; ValueError if the file is torn, or holds something else."""
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            values = {name: file.get_tensor(name) for name in _TENSORS}
        numbers = json.loads(metadata["flow"])
        flow = Flow(Channel(**numbers.pop("channel")), **numbers)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no clip of a flow, or is torn ({error}); simulate it again."
        ) from error
    clip = Clip(
        flow,
        Mesh(*(values[name] for name in Mesh._fields)),
        values["times"],
        values["fields"],
    )
    _check(clip, path)
    return clip


def _check(clip: Clip, path: Path) -> None:
    try:
        check_mesh(clip.mesh)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    expected = (len(clip.times), len(clip.mesh.nodes), 3)
    if clip.fields.shape != expected:
        raise ValueError(
            f"{path} has fields of the shape {list(clip.fields.shape)}, not {list(expected)}."
        )
    if not np.isfinite(clip.fields).all():
        raise ValueError(f"{path} has fields that are not finite; simulate it again.")
