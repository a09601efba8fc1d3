"""Meshes and flows in the files of other programs, by the package meshio."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from samplers.files import replacing
from text2pde.flows.clip import Clip
from text2pde.mesh import Kind, Mesh, Numbers, bordering, check_mesh, trimmed
from text2pde.plume import Plume
from text2pde.scene import Scene, check_fits

SERIES = ".pvd"
VTK = ".vtu"


def read_mesh(path: Path, scene: Scene) -> Mesh:
    """The triangles of a file that meshio reads, such as ``.msh`` or ``.vtu``, of a scene.

    What the nodes are follows from where they lie. Raises ValueError for a file that can't be read,
    or that holds no mesh of triangles in the plane.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    meshio = require_meshio()
    try:
        # meshio says what it thinks on its own, and its readers raise whatever comes.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = meshio.read(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"meshio reads {path} only with the package {error.name}; install it, or take another "
            "format."
        ) from error
    except SystemExit as error:  # so ends meshio where all its readers fail
        raise ValueError(f"{path} holds no mesh that can be read; it may be torn.") from error
    except Exception as error:
        raise ValueError(f"{path} holds no mesh that can be read ({error!r}).") from error
    cells = found.cells_dict
    solid = sorted(set(cells) - {"vertex", "line", "triangle"})
    if solid or "triangle" not in cells:
        kinds = ", ".join(solid or sorted(cells)) or "none"
        raise ValueError(
            f"{path} has cells of the kind {kinds}; a mesh has triangles in the plane."
        )
    places = np.asarray(found.points, dtype=np.float64)
    if places.shape[1] == 3 and np.ptp(places[:, 2]) > 0:
        raise ValueError(f"The mesh of {path} does not lie in the plane; its z must be one number.")
    try:
        return _built(places[:, :2], np.asarray(cells["triangle"], dtype=np.int64), scene)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_vtk(clip: Clip, path: Path) -> int:
    """Write a frame to a file each, in the format of VTK, and a series that names them with their
    times: ``flow.vtu`` makes ``flow.pvd`` and ``flow-000.vtu`` and so on.

    Returns how many frames there are.
    """
    meshio = require_meshio()
    names = [f"{path.stem}-{number:03d}{VTK}" for number in range(len(clip.times))]
    places = np.pad(clip.mesh.nodes, ((0, 0), (0, 1)))
    third = "density" if isinstance(clip.flow, Plume) else "pressure"
    for name, frame in zip(names, clip.fields, strict=True):
        velocity = np.pad(frame[:, :2], ((0, 0), (0, 1)))
        data = {"velocity": velocity, third: frame[:, 2]}
        mesh = meshio.Mesh(places, [("triangle", clip.mesh.triangles)], point_data=data)
        with replacing(path.with_name(name)) as part:
            meshio.write(part, mesh, file_format="vtu")
    with replacing(path.with_suffix(SERIES)) as part:
        part.write_text(_series(names, clip.times))
    return len(names)


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh in the format of gmsh, in one rename."""
    meshio = require_meshio()
    places = np.pad(mesh.nodes, ((0, 0), (0, 1)))
    with replacing(path) as part:
        meshio.write(part, meshio.Mesh(places, [("triangle", mesh.triangles)]), file_format="gmsh")


def _series(names: list[str], times: Numbers) -> str:
    sets = "\n".join(
        f'    <DataSet timestep="{time:.9g}" file={quoteattr(name)}/>'
        for time, name in zip(times, names, strict=True)
    )
    return (
        '<?xml version="1.0"?>\n<VTKFile type="Collection" version="0.1">\n  <Collection>\n'
        f"{sets}\n  </Collection>\n</VTKFile>\n"
    )


def _built(places: Numbers, corners: Any, scene: Scene) -> Mesh:
    """A mesh of a scene, whose border is the scene's, no more and no less."""
    nodes, triangles = trimmed(places, corners)
    plain = Mesh(nodes, triangles, np.zeros(len(nodes), dtype=np.int64))
    check_mesh(plain)
    check_fits(plain, scene)
    border = bordering(triangles, len(nodes))
    nodes = scene.snapped(nodes, border)
    mesh = Mesh(nodes, triangles, scene.kinds(nodes))
    check_mesh(mesh)
    loose = np.flatnonzero(border & (mesh.kinds == Kind.INTERIOR))
    if len(loose):
        x, y = nodes[loose[0]]
        raise ValueError(
            f"The mesh has a border at ({x:.4g}, {y:.4g}) m, where the prompt has none; state what "
            "the mesh has, or leave the mesh out."
        )
    return mesh


def require_meshio() -> Any:
    """The package; ValueError if it is missing."""
    try:
        import meshio
    except ModuleNotFoundError as error:
        raise ValueError(
            "Files of meshes are read and written by the package meshio; "
            "pip install 'retrograde[pde]'."
        ) from error
    return meshio
