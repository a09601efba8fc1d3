"""Reading and writing the files of tuned samplers and fitted grids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from samplers.files import refuse_special, replacing

Kind = TypeVar("Kind")


class TunedError(OSError):
    """A file of a tuned sampler or a fitted grid can't be read, for the reason in the message."""


def read_file(
    path: Path | str, what: str, writer: str, parse: Callable[[str | bytes], Kind]
) -> Kind:
    """What a function makes of a file. Raises TunedError for a file of which it makes nothing."""
    path = Path(path)
    if not path.is_file():
        raise TunedError(f"There is no {what} at {path}: no such file.")
    refuse_special(path)
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TunedError(
            f"{path} is not the file of a {what} ({error}); give one that {writer} wrote."
        ) from error


def write_file(path: Path | str, text: str) -> None:
    """Write the text to a file, atomically."""
    with replacing(Path(path)) as part:
        part.write_text(text, encoding="utf-8")
