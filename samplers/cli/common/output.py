"""Results on disk: checks of paths, and writing images with their parameters."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samplers.cli.common.errors import Failure, is_main_process, writing
from samplers.errors import FolderTakenError
from samplers.files import locked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

# Parameters that may differ between two equal images.
_INCIDENTAL = ("command", "checkpoint", "device", "images")
_OTHER_IMAGES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def is_png(path: Path) -> bool:
    """Whether an output is one PNG file, and not a folder; ValueError for other images."""
    if path.suffix.lower() in _OTHER_IMAGES:
        raise ValueError(f"The output is {path}, but images are written as PNG; name it .png.")
    return path.suffix.lower() == ".png" and not path.is_dir()


def check_png(path: Path, what: str) -> None:
    """Raise ValueError unless ``what`` can be written as one PNG file."""
    if not is_png(path):
        raise ValueError(f"The output is {path}; {what} is one image, NAME.png.")
    check_folder(path.parent)


def check_places(outputs: Sequence[Path], given: Sequence[Path] = ()) -> None:
    """Raise ValueError if an output is a folder, another output, or an input."""
    read, written = set(map(_resolved, given)), set[Path]()
    for path in outputs:
        refuse_folder(path)
        place = _resolved(path)
        if place in written:
            raise ValueError(f"Two outputs are {path}; name different files.")
        if place in read:
            raise ValueError(f"{path} is one of the given files; choose another output.")
        written.add(place)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:
        raise Failure(f"{path} is a link that leads back to itself.") from error


def refuse_folder(path: Path) -> None:
    """Raise ValueError if the output file is an existing folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file.")


def place_of_partial(path: Path, overwrite: bool) -> Path:
    """Where the image of an unfinished run goes: NAME.partial.png, or NAME.partial-2.png and so on
    if it exists, and may not be replaced."""
    first = path.with_suffix(".partial.png")
    if overwrite:
        return first
    others = (path.with_suffix(f".partial-{number}.png") for number in count(2))
    return next(place for place in chain([first], others) if not os.path.lexists(place))


def refuse_existing(outputs: Iterable[Path]) -> None:
    """Raise ValueError if there is a file, or a link to none, where one will be written."""
    for path in outputs:
        if os.path.lexists(path) and not path.is_dir():
            raise ValueError(
                f"{path} exists already; choose another name, or pass --overwrite to replace it."
            )


def kept(path: Path, parameters: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """What an image in a folder says of itself, if it is the wanted one and need not be made.

    None if there is none, or if it may be replaced; ValueError if it has other settings.
    """
    from samplers.images.files import read_parameters

    if not os.path.lexists(path):
        return None
    found = read_parameters(path)
    difference = _difference(found, parameters)
    if difference and not overwrite:
        raise ValueError(
            f"{path} exists already, with other settings ({difference}); choose another folder, or "
            "pass --overwrite to replace it."
        )
    return None if difference else found


def _difference(found: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    """The first setting that differs, in words; empty if none does."""
    if found is None:
        return "it does not say which"
    for key, value in wanted.items():
        there = found.get(key)
        if key in _INCIDENTAL or there == value:
            continue
        if isinstance(there, dict) and isinstance(value, dict):
            # Keys that only the found one has differ, too.
            return f"{key}: {_difference(there, dict.fromkeys(there) | value)}"
        return f"{key}: {there}, not {value}"
    return ""


def check_folder(folder: Path) -> None:
    """Raise Failure unless the folder is there or can be made; makes nothing."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise Failure(f"{there} is a file; nothing can be written into it.")
    if not os.access(there, os.W_OK):
        raise Failure(f"{folder} can't be written to: permission denied.")


def prepare_folder(folder: Path) -> None:
    """Make the folder and try to write into it, so that a long job does not fail at its end."""
    check_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"{folder} can't be written to: {error.strerror or error}.") from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, so that no second command writes into it meanwhile.

    A folder that did not exist is removed if the run leaves it empty. Of one that holds files of
    another run, the command is told by the names of its options.
    """
    if not is_main_process():
        yield
        return
    existed = folder.exists()
    prepare_folder(folder)
    with ExitStack() as stack:
        if not existed:
            stack.callback(_remove_if_empty, folder)
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            raise Failure(
                f"Another command is writing into {folder}; wait for its end, or name another "
                "folder."
            ) from error
        try:
            yield
        except FolderTakenError as error:
            raise FolderTakenError(error.what, "--overwrite") from error


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def write(image: Image.Image | Figure, path: Path, parameters: dict[str, Any]) -> None:
    """Write an image whole or not at all; Failure if the disk is full or forbids it."""
    from samplers.images.files import write_png

    with writing(path):
        write_png(image, path, parameters)
