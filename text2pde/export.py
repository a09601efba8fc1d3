"""Clips on disk, in the format that the suffix of a file's name stands for."""

from __future__ import annotations

from glob import escape
from pathlib import Path
from typing import Any

from samplers.images.files import write_png
from samplers.images.films import FILMS, check_film, write_film
from samplers.images.sheets import spread_out
from text2pde.data.clip import SUFFIX, Clip, save_clip
from text2pde.data.mesh_files import PVD, VTU, require_meshio, write_vtk

FORMATS = {
    SUFFIX: "a clip",
    VTU: "a VTK file for each frame",
    **dict.fromkeys(FILMS, "a film"),
    ".png": "a figure with some frames",
}
"""What a clip can be written as, by suffix."""
_FRAMES = 5
"""Of a figure."""


def check_format(path: Path) -> None:
    """Raise ValueError unless a clip can be written to a file of this name, also for lack of a
    package."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(f"{what} (NAME{suffix})" for suffix, what in FORMATS.items())
        raise ValueError(f"The output is {path}; it can be {known}.")
    check_film(path)
    if suffix == VTU:
        require_meshio()


def existing_files(path: Path) -> list[Path]:
    """The files that a clip of this name would replace."""
    if path.suffix.lower() != VTU:
        return [path] if path.exists() else []
    series, frames = path.with_suffix(PVD), path.parent.glob(f"{escape(path.stem)}-*{VTU}")
    return [*([series] if series.exists() else []), *sorted(frames)]


def export_clip(
    clip: Clip, path: Path | str, made_by: dict[str, Any] | None = None, width: int = 640
) -> Path:
    """Write a clip in the format of the suffix, each file atomically.

    Args:
        made_by: the settings that produced the clip, kept by formats that have a place for them.
        width: of figures and films, in pixels.

    Returns:
        The file to open: of VTK files, the series that lists them.
    """
    path = Path(path)
    match path.suffix.lower():
        case suffix if suffix in FILMS:
            from text2pde.figures import film  # matplotlib takes a second to import

            write_film(film(clip, width), path)
        case ".png":
            from text2pde.figures import figure_image, plot_clip

            frames = spread_out(range(len(clip.times)), _FRAMES)
            write_png(figure_image(plot_clip(clip, frames), width), path, made_by or {})
        case suffix if suffix == VTU:
            write_vtk(clip, path)
            return path.with_suffix(PVD)
        case _:
            save_clip(clip, path, made_by)
    return path
