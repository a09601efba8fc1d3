"""A clip of a flow, and the file that holds it.

A file is in the format of safetensors, which any language reads and nothing is executed from:
``nodes`` [N, 2] and ``times`` [F] in float64, ``triangles`` [T, 3] and ``kinds`` [N] in int64,
``fields`` [F, N, 3] in float32; of the metadata, in JSON, ``flow`` has the
numbers of the flow in SI units, and ``made_by`` the settings of what made the clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from samplers.files import replacing
from text2pde.mesh import Mesh, Numbers, check_mesh
from text2pde.scene import Scene, scene_from

SUFFIX = ".safetensors"
_TENSORS = {
    "nodes": np.dtype(np.float64),
    "triangles": np.dtype(np.int64),
    "kinds": np.dtype(np.int64),
    "times": np.dtype(np.float64),
    "fields": np.dtype(np.float32),
}


class Clip(NamedTuple):
    """A flow at some times.

    Attributes:
        times: in seconds [F].
        fields: at the nodes [F, N, 3]: velocity in m/s, and pressure by density in m^2/s^2, or the
            density of smoke.
    """

    flow: Scene
    mesh: Mesh
    times: Numbers
    fields: NDArray[np.float32]

    @property
    def interval(self) -> float:
        """Between frames, in units of the flow's clock; 0 if there is but one."""
        return (
            float(self.times[1] - self.times[0]) / self.flow.clock if len(self.times) > 1 else 0.0
        )


def mirrored(clip: Clip) -> Clip:
    """The mirror image, which the same equations have: see ``across`` of the scene."""
    axis = clip.flow.across
    nodes, fields = clip.mesh.nodes.copy(), clip.fields.copy()
    nodes[:, axis] = clip.flow.size[axis] - nodes[:, axis]
    fields[..., axis] *= -1
    # Backwards, so that triangles go on turning left.
    mesh = clip.mesh._replace(nodes=nodes, triangles=clip.mesh.triangles[:, ::-1].copy())
    return clip._replace(flow=clip.flow.mirrored(), mesh=mesh, fields=fields)


def save_clip(clip: Clip, path: Path, made_by: dict[str, Any] | None = None) -> None:
    """Write the file in one rename.

    Args:
        made_by: the settings of what made the clip, as plain values.
    """
    tensors = {**clip.mesh._asdict(), "times": clip.times, "fields": clip.fields}
    kept = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with replacing(path) as part:
        # Not `save_file`, whose files only their owner may read.
        metadata = {"flow": asdict(clip.flow), "made_by": made_by or {}}
        part.write_bytes(save(kept, {name: json.dumps(v) for name, v in metadata.items()}))


def load_clip(path: Path) -> Clip:
    """Read a clip; ValueError if the file is torn, or holds something else."""
    with _opened(path) as file:
        values = {name: file.get_tensor(name) for name in _TENSORS}
        flow = _flow(file)
    for name, kind in _TENSORS.items():
        if values[name].dtype != kind:
            raise ValueError(f"{path} has {name} in {values[name].dtype}; they must be {kind}.")
    mesh = Mesh(*(values[name] for name in Mesh._fields))
    clip = Clip(flow, mesh, values["times"], values["fields"])
    _check(clip, path)
    return clip


def read_flow(path: Path) -> tuple[Scene, dict[str, Any]]:
    """The flow of a clip and what made it, without its fields; ValueError as :func:`load_clip`."""
    with _opened(path) as file:
        made_by: dict[str, Any] = json.loads(file.metadata().get("made_by", "{}"))
        return _flow(file), made_by


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, "np") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no clip of a flow, or is torn ({error}); take a whole file of "
            "`text2pde simulate`."
        ) from error


def _flow(file: Any) -> Scene:
    return scene_from(json.loads(file.metadata()["flow"]))


def _check(clip: Clip, path: Path) -> None:
    try:
        check_mesh(clip.mesh)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    rising = clip.times.ndim == 1 and bool((np.diff(clip.times) > 0).all())
    if not (rising and np.isfinite(clip.times).all()):
        raise ValueError(f"{path} has times that do not rise one by one; they must, in seconds.")
    if not np.array_equal(clip.mesh.kinds, clip.flow.kinds(clip.mesh.nodes)):
        raise ValueError(f"{path} has kinds of nodes that are not those of {clip.flow}.")
    expected = (len(clip.times), len(clip.mesh.nodes), 3)
    if clip.fields.shape != expected or not len(clip.times):
        raise ValueError(
            f"{path} has fields of the shape {list(clip.fields.shape)}, not {list(expected)}."
        )
    if not np.isfinite(clip.fields).all():
        raise ValueError(f"{path} has fields that are not finite; delete it and simulate it again.")
