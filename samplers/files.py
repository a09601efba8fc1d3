"""Layer 0. Files: written atomically, held against other processes, read without surprises."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "checked",
    "locked",
    "new_files",
    "parse_json",
    "refuse_special",
    "replacing",
    "with_sorted_metadata",
]

Kind = TypeVar("Kind")

_FULL = ("No space left", "PytorchStreamWriter failed")
"""What safetensors and PyTorch say of a full disk, in errors of their own."""


_NEW: ContextVar[frozenset[Path]] = ContextVar("files that must not exist yet", default=frozenset())


@contextmanager
def new_files(paths: Iterable[Path]) -> Iterator[None]:
    """A context in which :func:`replacing` makes these files, but does not replace them.

    So none is lost if another process makes one of them while this one computes.
    """
    token = _NEW.set(frozenset(paths))
    try:
        yield
    finally:
        _NEW.reset(token)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that replaces ``path``, a file or a folder, at the end of the block.

    If the block raises, or the process is killed, ``path`` is unchanged. (A folder that is replaced
    does not exist for an instant.) What killed processes of this machine left behind is removed.

    Raises IsADirectoryError if a file would replace a folder, ValueError if the old folder has
    files that the new one has not, and OSError, with the name of the file, if the disk is full, or
    if the file is one of :func:`new_files` and exists.
    """
    import socket

    if not path.is_dir():
        refuse_special(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Machine and process keep two commands that write to one place apart.
    stem = f".{path.name}.{socket.gethostname()}"
    part = path.with_name(f"{stem}.{os.getpid()}.part")
    _remove_left_behind(path.parent, stem)
    try:
        yield part
        if path.is_dir() and not part.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.is_dir():
            _check_same_names(path, part)
            _remove(path)  # nothing can be renamed onto a full folder
        if part.is_file():
            part.chmod(0o666 & ~_umask())  # some writers keep a file to its owner
        if path in _NEW.get() and not part.is_dir():
            path.open("xb").close()  # which fails if there is one, in one step
            _NEW.set(_NEW.get() - {path})
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _remove(part)
        if any(words in str(error) for words in _FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _umask() -> int:
    """What the process leaves out of the modes of new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove_left_behind(folder: Path, stem: str) -> None:
    """Remove the temporary paths of processes that are gone."""
    for part in folder.glob(f"{glob.escape(stem)}.*.part"):
        number = part.name.removeprefix(f"{stem}.").removesuffix(".part")
        if number.isdecimal() and not _runs(int(number)):
            with contextlib.suppress(OSError):
                _remove(part)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def refuse_special(place: Path) -> None:
    """Raise OSError for a pipe or a device, in a folder too: to read one may take for ever."""
    for path in [place, *(place.rglob("*") if place.is_dir() else [])]:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"{path} is a pipe or a device; a file is needed there.")


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold a folder against other processes that lock it, too; it leaves no file there.

    Where the file system or the platform has no such locks, nothing is held.

    Args:
        wait: until the folder is free; else raise BlockingIOError if it is not.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def with_sorted_metadata(serialized: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names, so equal content is equal
    bytes: safetensors writes them in another order in each process."""
    start = 8 + int.from_bytes(serialized[:8], "little")
    header = json.loads(serialized[8:start])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # as safetensors does, for aligned tensors
    return len(text).to_bytes(8, "little") + text + serialized[start:]


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for what is no JSON, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checked(kind: type[Kind], value: object) -> Kind:
    """A value from a file as what its type declares, such as a TypedDict; ValueError if it is not.

    Types are strict: no text becomes a number. Keys that are not declared are left out.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{place} is {first['input']!r:.80}: {first['msg']}") from None


def _check_same_names(old: Path, new: Path) -> None:
    lost = sorted({path.name for path in old.iterdir()} - {path.name for path in new.iterdir()})
    if lost:
        raise ValueError(f"{old} holds {lost[0]}, which would be lost; name another folder.")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
