"""Layer 6. Films: frames as a GIF or an MP4.

Pillow writes GIF, PyAV writes H.264. imageio would replace the dozen lines of :func:`_write_mp4` by
a dependency that calls PyAV in turn, and would hide the duration of each frame of a GIF.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from samplers.files import replacing

GIF, MP4 = ".gif", ".mp4"
FILMS = (GIF, MP4)
"""The suffixes of the supported formats."""

_FRAME, _LAST_FRAME = 120, 2000
"""The duration of a frame, and of the last one, in milliseconds."""
_QUALITY = "18"
"""Constant rate factor of x264, from 0 (lossless) to 51; 18 is visually lossless."""


def is_film(path: Path) -> bool:
    """Whether a file of this name is a film."""
    return path.suffix.lower() in FILMS


def check_film(path: Path) -> None:
    """Raise ValueError if the package is missing that a film of this name needs."""
    if path.suffix.lower() == MP4:
        _require_av()


def write_film(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames of one size as a film, atomically.

    The last frame is held for two seconds, and a GIF repeats. H.264 needs an even width and height,
    so an odd last row or column is cut off. Raises OSError if the file can't be written.
    """
    write = _write_mp4 if path.suffix.lower() == MP4 else _write_gif
    with replacing(path) as part:
        write(frames, part)


def _write_gif(frames: Sequence[Image.Image], path: Path) -> None:
    durations = [_FRAME] * (len(frames) - 1) + [_LAST_FRAME]
    first, *others = frames
    first.save(path, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _write_mp4(frames: Sequence[Image.Image], path: Path) -> None:
    av = _require_av()
    held = [*frames, *[frames[-1]] * round(_LAST_FRAME / _FRAME - 1)]
    with av.open(path, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1000, _FRAME))
        stream.options = {"crf": _QUALITY}
        stream.pix_fmt = "yuv420p"  # which every player shows
        stream.width, stream.height = (size // 2 * 2 for size in frames[0].size)
        for frame in held:
            even = frame.crop((0, 0, stream.width, stream.height))
            film.mux(stream.encode(av.VideoFrame.from_image(even)))
        film.mux(stream.encode(None))


def _require_av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ValueError(
            "MP4 is written by the package av: pip install 'retrograde[film]', or name the film "
            f"{GIF}."
        ) from error
    return av
