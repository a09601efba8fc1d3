"""A clip: the solution of a scene at several times, and the file that holds it.

A file is in the format of safetensors, which any language reads and which executes nothing:
``nodes`` [N, 2] and ``times`` [F] in float64, ``triangles`` [T, 3] and ``kinds`` [N] in int64,
``fields`` [F, N, 3] in float32. Of the metadata, in JSON, ``flow`` has the parameters of the scene
in SI units, and ``made_by`` the settings that produced the clip.
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

from samplers.files import parse_json, refuse_special, replacing, with_sorted_metadata
from text2pde.mesh import FloatArray, Mesh, check_mesh
from text2pde.subject import Scene, scene_from

SUFFIX = ".safetensors"
_TENSORS = {
    "nodes": np.dtype(np.float64),
    "triangles": np.dtype(np.int64),
    "kinds": np.dtype(np.int64),
    "times": np.dtype(np.float64),
    "fields": np.dtype(np.float32),
}


class Clip(NamedTuple):
    """The solution of a scene at F times.

    Attributes:
        times: in seconds [F].
        fields: at the nodes [F, N, 3]: the velocity in m/s, and the kinematic pressure in m^2/s^2
            or the density of smoke.
    """

    scene: Scene
    mesh: Mesh
    times: FloatArray
    fields: NDArray[np.float32]

    @property
    def interval(self) -> float:
        """The time between frames, in units of the scene's ``time_unit``; 0 for a single frame."""
        return (
            float(self.times[1] - self.times[0]) / self.scene.time_unit
            if len(self.times) > 1
            else 0.0
        )

    def window(self, first: int, last: int | None = None) -> Clip:
        """The frames from ``first`` to before ``last``."""
        return self._replace(times=self.times[first:last], fields=self.fields[first:last])


def mirrored(clip: Clip) -> Clip:
    """The mirror image, which solves the same equations: see ``mirror_axis`` of the scene."""
    axis = clip.scene.mirror_axis
    nodes, fields = clip.mesh.nodes.copy(), clip.fields.copy()
    nodes[:, axis] = clip.scene.size[axis] - nodes[:, axis]
    fields[..., axis] *= -1
    # Reversed, so that triangles stay counterclockwise.
    mesh = clip.mesh._replace(nodes=nodes, triangles=clip.mesh.triangles[:, ::-1].copy())
    return clip._replace(scene=clip.scene.mirrored(), mesh=mesh, fields=fields)


def save_clip(clip: Clip, path: Path | str, made_by: dict[str, Any] | None = None) -> None:
    """Write a clip, atomically.

    Args:
        made_by: the settings that produced the clip, as plain values.
    """
    tensors = {**clip.mesh._asdict(), "times": clip.times, "fields": clip.fields}
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    about = {"flow": json.dumps(asdict(clip.scene)), "made_by": json.dumps(made_by or {})}
    with replacing(Path(path)) as part:
        # Not `save_file`, whose files only their owner may read.
        part.write_bytes(with_sorted_metadata(save(contiguous, about)))


def load_clip(path: Path | str) -> Clip:
    """Read a clip.

    Raises:
        ValueError: if the file is truncated, or is no clip.
    """
    with _opened(path) as file:
        values = {name: file.get_tensor(name) for name in _TENSORS}
        scene = _scene(file)
    for name, kind in _TENSORS.items():
        if values[name].dtype != kind:
            raise ValueError(f"{path} has {name} in {values[name].dtype}; they must be {kind}.")
    mesh = Mesh(*(values[name] for name in Mesh._fields))
    clip = Clip(scene, mesh, values["times"], values["fields"])
    _check(clip, path)
    return clip


def read_header(path: Path | str) -> tuple[Scene, dict[str, Any]]:
    """The scene of a clip and the settings that produced it, without the fields.

    Raises:
        ValueError: as :func:`load_clip` does.
    """
    with _opened(path) as file:
        made_by: dict[str, Any] = parse_json(file.metadata().get("made_by", "{}"))
        return _scene(file), made_by


def clip_paths(folder: Path | str) -> list[Path]:
    """The clips in a folder, sorted by name.

    Raises:
        ValueError: if there are none.
    """
    paths = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if not paths:
        raise ValueError(f"There are no clips in {folder}; create some with `text2pde simulate`.")
    return paths


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    try:
        refuse_special(Path(path))
        with safe_open(path, "np") as file:
            yield file
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no clip, or is truncated ({error}); take a complete file of "
            "`text2pde simulate`."
        ) from error


def _scene(file: Any) -> Scene:
    return scene_from(parse_json(file.metadata()["flow"]))


def _check(clip: Clip, path: Path | str) -> None:
    try:
        check_mesh(clip.mesh)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    ascending = clip.times.ndim == 1 and bool((np.diff(clip.times) > 0).all())
    if not (ascending and np.isfinite(clip.times).all()):
        raise ValueError(f"{path} has times that do not ascend; they must, in seconds.")
    if not np.array_equal(clip.mesh.kinds, clip.scene.kinds(clip.mesh.nodes)):
        raise ValueError(f"{path} has kinds of nodes that are not those of {clip.scene}.")
    expected = (len(clip.times), len(clip.mesh.nodes), 3)
    if clip.fields.shape != expected or not len(clip.times):
        raise ValueError(
            f"{path} has fields of shape {list(clip.fields.shape)}, not {list(expected)}."
        )
    if not np.isfinite(clip.fields).all():
        raise ValueError(f"{path} has fields that are not finite; delete it and simulate it again.")
