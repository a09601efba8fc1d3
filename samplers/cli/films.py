"""Films on disk, as GIF or MP4."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from samplers.cli.failure import Failure
from samplers.files import replacing

GIF, MP4 = ".gif", ".mp4"
FILMS = (GIF, MP4)
"""The ends of the names that films may have."""

_PAUSE, _REST = 120, 2000
"""How long a frame is shown, and the last one, in milliseconds."""
_QUALITY = "18"
"""Of x264, from 0 (exact) to 51; 18 looks exact."""


def is_film(path: Path) -> bool:
    """Whether a file of this name is a film."""
    return path.suffix.lower() in FILMS


def check_film(path: Path) -> None:
    """Raise ValueError if the package is missing that a film of this name needs."""
    if path.suffix.lower() == MP4:
        _require_av()


def write_film(frames: Sequence[Image.Image], path: Path) -> None:
    """Write frames of one size whole or not at all; the film rests on the last of them.

    A GIF repeats. MP4 (H.264) takes an even number of pixels, so that a last odd row or column is
    cut off.
    """
    write = _write_mp4 if path.suffix.lower() == MP4 else _write_gif
    try:
        with replacing(path) as part:
            write(frames, part)
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror or error}.") from error


def _write_gif(frames: Sequence[Image.Image], path: Path) -> None:
    pauses = [_PAUSE] * (len(frames) - 1) + [_REST]
    first, *others = frames
    first.save(path, "GIF", save_all=True, append_images=others, duration=pauses, loop=0)


def _write_mp4(frames: Sequence[Image.Image], path: Path) -> None:
    av = _require_av()
    resting = [*frames, *[frames[-1]] * round(_REST / _PAUSE - 1)]
    with av.open(path, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1000, _PAUSE))
        stream.options = {"crf": _QUALITY}
        stream.pix_fmt = "yuv420p"  # which every player shows
        stream.width, stream.height = (size // 2 * 2 for size in frames[0].size)
        for frame in resting:
            whole = frame.crop((0, 0, stream.width, stream.height))
            film.mux(stream.encode(av.VideoFrame.from_image(whole)))
        film.mux(stream.encode(None))


def _require_av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise ValueError(
            "MP4 is written by the package av; pip install 'retrograde[film]', or name the film "
            f"{GIF}."
        ) from error
    return av
