"""Layer 0. Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that replaces ``path``, a file or a folder, at the end of the block.

    If the block raises, or the process is killed, ``path`` is unchanged. (A folder that is replaced
    does not exist for an instant.) Raises IsADirectoryError if a file would replace a folder,
    ValueError if the old folder has files that the new one has not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's number keeps two commands that write to one place apart.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if path.is_dir() and not part.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.is_dir():
            _check_same_names(path, part)
            _remove(path)  # nothing can be renamed onto a full folder
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(part)
        raise


def _check_same_names(old: Path, new: Path) -> None:
    lost = sorted({path.name for path in old.iterdir()} - {path.name for path in new.iterdir()})
    if lost:
        raise ValueError(f"{old} holds {lost[0]}, which would be lost; name another folder.")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
