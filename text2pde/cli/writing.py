"""Clips on disk, in the format that the name of a file asks for."""

from __future__ import annotations

from pathlib import Path

from samplers.cli.films import FILMS, check_film, write_film
from samplers.cli.output import refuse_folder, spread_out
from samplers.images.pixels import write_png
from text2pde.flows.clip import SUFFIX, Clip, save_clip
from text2pde.mesh_files import SERIES, VTK, require_meshio, write_vtk
from text2pde.pictures import frames, strip

FORMATS = {
    SUFFIX: "a clip",
    VTK: "a file of VTK for each frame",
    **dict.fromkeys(FILMS, "a film"),
    ".png": "a strip of pictures",
}
"""What files can be written, by the ends of their names."""
_ROWS = 5


def check_output(path: Path) -> None:
    """Raise ValueError unless a clip can be written to a file of this name, also for want of a
    package."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(f"{what} (NAME{suffix})" for suffix, what in FORMATS.items())
        raise ValueError(f"The output is {path}; it can be {known}.")
    refuse_folder(path)
    check_film(path)
    if suffix == VTK:
        require_meshio()


def write_clip(clip: Clip, path: Path, about: dict[str, str], width: int = 640) -> str:
    """Write a clip, each file in one rename; returns what to say of where it is.

    Args:
        about: what made it, as it is noted in files that have a place for that.
    """
    match path.suffix.lower():
        case suffix if suffix in FILMS:
            write_film(frames(clip, width), path)
        case ".png":
            write_png(strip(spread_out(frames(clip, width), _ROWS)), path, about)
        case suffix if suffix == VTK:
            count = write_vtk(clip, path)
            return f"{path.with_suffix(SERIES)}, with {count} frames"
        case _:
            save_clip(clip, path, about)
    return str(path)
