"""The check that a folder belongs to a run with the same settings, or to none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState

from samplers.errors import FolderTakenError
from samplers.files import parse_json, refuse_special, replacing
from samplers.training.config import FREE, TrainingConfig
from samplers.training.loop import CHECKPOINT, LOG

SETTINGS = "settings.json"

# The precision may be that of `accelerate launch`, and is checked with the checkpoint.
_FREE = tuple(f"training.{name}" for name in sorted(FREE | {"precision"}))


@contextmanager
def claim_folder(
    folder: Path,
    settings: Mapping[str, Any],
    config: TrainingConfig,
    *,
    written: Sequence[str] = (),
    free: tuple[str, ...] = (),
    overwrite: bool = False,
) -> Iterator[None]:
    """A context for a run in a folder, to which its settings are written, by the main process.

    A run with the same settings is resumed. One that ends by an error before it wrote more than
    its settings and its log leaves neither.

    Args:
        settings: plain values by name.
        config: of the training, which belongs to the settings as ``training.steps`` and so on.
        written: names of the files and folders that the run writes, besides those of
            :func:`~samplers.training.train`.
        free: prefixes of names that may change when a run is resumed.
        overwrite: whether to begin anew where the folder holds files of another run; its
            checkpoint and its log are removed, and other files replaced when they are written.

    Raises FolderTakenError if it holds such files, and may not replace them.
    """
    state = PartialState()
    training = {f"training.{name}": value for name, value in dataclasses.asdict(config).items()}
    # As JSON is read: tuples become lists.
    own = json.loads(json.dumps({**settings, **training}))
    if state.is_main_process:
        names = (SETTINGS, CHECKPOINT, LOG, *written)
        _begin(folder, own, _taken(folder, own, names, (*_FREE, *free)), overwrite)
    state.wait_for_everyone()
    try:
        yield
    except BaseException:
        if state.is_main_process and not _first(folder, (CHECKPOINT, *written)):
            _remove(folder, (SETTINGS, LOG))
        raise


def _begin(folder: Path, own: Mapping[str, Any], taken: str, overwrite: bool) -> None:
    if taken and not overwrite:
        raise FolderTakenError(taken)
    if taken:
        _remove(folder, (CHECKPOINT, LOG))
    with replacing(folder / SETTINGS) as part:
        part.write_text(json.dumps(own, indent=1) + "\n")


def _taken(
    folder: Path, own: Mapping[str, Any], names: Sequence[str], free: tuple[str, ...]
) -> str:
    """What is in the folder that another run, or none, wrote; empty if nothing is."""
    refuse_special(folder)
    path = folder / SETTINGS
    if not path.exists():
        first = _first(folder, names)
        return f"{first} exists already" if first else ""
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        return f"{path} exists already, and is broken ({error})"
    if not isinstance(found, dict):
        return f"{path} exists already, and holds no table"
    for name in sorted(own.keys() | found.keys()):
        if found.get(name) != own.get(name) and not name.startswith(free):
            values = f"{found.get(name)!r:.80}, this one has {own.get(name)!r:.80}"
            return f"{path} is of a run with {name} = {values}"
    return ""


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    """The first that exists, as a file or as a folder with files."""
    paths = (folder / name for name in names)
    return next((p for p in paths if (any(p.iterdir()) if p.is_dir() else p.exists())), None)


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
