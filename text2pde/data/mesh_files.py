"""Meshes and clips in the formats of other programs, by the package meshio."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from samplers.files import replacing
from text2pde.data.clip import Clip
from text2pde.mesh import FloatArray, IntArray, Mesh, NodeKind, boundary_nodes, check_mesh, compact
from text2pde.subject import Scene

PVD, VTU = ".pvd", ".vtu"


def read_mesh(path: Path | str, scene: Scene) -> Mesh:
    """The mesh of a scene from a file that meshio reads, such as ``.msh`` or ``.vtu``.

    The kinds of nodes follow from their coordinates.

    Raises:
        ValueError: for a file that can't be read, one without plane triangles, and a mesh whose
            boundary is not that of the scene.
    """
    points, triangles = _read_triangles(Path(path))
    try:
        return _mesh_of(points, triangles, scene)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_mesh(mesh: Mesh, path: Path | str) -> None:
    """Write a mesh in the format of gmsh, atomically."""
    meshio = require_meshio()
    with replacing(Path(path)) as part:
        meshio.write(part, meshio.Mesh(*_cells(mesh)), file_format="gmsh")


def write_vtk(clip: Clip, path: Path | str) -> int:
    """Write each frame as a VTK file, and a ParaView series that lists them with their times.

    ``flow.vtu`` makes ``flow-000.vtu``, ``flow-001.vtu``, … and ``flow.pvd``.

    Returns:
        The number of frames.
    """
    meshio, path = require_meshio(), Path(path)
    names = [f"{path.stem}-{number:03d}{VTU}" for number in range(len(clip.times))]
    for name, frame in zip(names, clip.fields, strict=True):
        velocity = np.pad(frame[:, :2], ((0, 0), (0, 1)))
        data = {"velocity": velocity, clip.scene.scalar: frame[:, 2]}
        with replacing(path.with_name(name)) as part:
            meshio.write(part, meshio.Mesh(*_cells(clip.mesh), point_data=data), file_format="vtu")
    with replacing(path.with_suffix(PVD)) as part:
        part.write_text(_series(names, clip.times))
    return len(names)


def require_meshio() -> Any:
    """The package meshio.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import meshio
    except ModuleNotFoundError as error:
        raise ValueError(
            "Mesh files need the package meshio; install it with pip install 'retrograde[pde]'."
        ) from error
    return meshio


def _read_triangles(path: Path) -> tuple[FloatArray, IntArray]:
    """Points [P, 2] and triangles [T, 3] of a file."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    meshio = require_meshio()
    try:
        # meshio prints to the console, and its readers raise exceptions of any type.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = meshio.read(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"meshio reads {path} only with the package {error.name}; install it, or take another "
            "format."
        ) from error
    except SystemExit as error:  # meshio exits if all its readers fail
        raise ValueError(f"{path} holds no mesh that meshio reads; it may be truncated.") from error
    except Exception as error:
        raise ValueError(f"{path} holds no mesh that meshio reads ({error!r}).") from error
    cells = found.cells_dict
    solid = sorted(set(cells) - {"vertex", "line", "triangle"})
    if solid or "triangle" not in cells:
        kinds = ", ".join(solid or sorted(cells)) or "none"
        raise ValueError(f"{path} has cells of type {kinds}; a mesh has triangles in the plane.")
    points = np.asarray(found.points, dtype=np.float64)
    if points.shape[1] == 3 and np.ptp(points[:, 2]) > 0:
        raise ValueError(
            f"The mesh of {path} does not lie in the plane; all its z must be the same."
        )
    return points[:, :2], np.asarray(cells["triangle"], dtype=np.int64)


def _mesh_of(points: FloatArray, corners: IntArray, scene: Scene) -> Mesh:
    """A mesh whose boundary is exactly that of the scene."""
    nodes, triangles = compact(points, corners)
    plain = Mesh(nodes, triangles, np.zeros(len(nodes), dtype=np.int64))
    check_mesh(plain)
    scene.check_fits(plain)
    boundary = boundary_nodes(triangles, len(nodes))
    nodes = scene.snapped(nodes, boundary)
    mesh = Mesh(nodes, triangles, scene.kinds(nodes))
    check_mesh(mesh)
    loose = np.flatnonzero(boundary & (mesh.kinds == NodeKind.INTERIOR))
    if len(loose):
        x, y = nodes[loose[0]]
        raise ValueError(
            f"The mesh has a boundary at ({x:.4g}, {y:.4g}) m, where the prompt has none; state "
            "what the mesh has, or leave the mesh out."
        )
    return mesh


def _cells(mesh: Mesh) -> tuple[FloatArray, list[tuple[str, IntArray]]]:
    """As meshio takes them: points in space, and cells."""
    return np.pad(mesh.nodes, ((0, 0), (0, 1))), [("triangle", mesh.triangles)]


def _series(names: list[str], times: FloatArray) -> str:
    sets = "\n".join(
        f'    <DataSet timestep="{time:.9g}" file={quoteattr(name)}/>'
        for time, name in zip(times, names, strict=True)
    )
    return (
        '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n  <Collection>\n'
        f"{sets}\n  </Collection>\n</VTKFile>\n"
    )
