"""A folder belongs to the settings of the run that is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samplers.files import replacing
from samplers.training.loop import CHECKPOINT

SETTINGS = "settings.json"


def claim_folder(folder: Path, settings: Mapping[str, Any], free: tuple[str, ...] = ()) -> None:
    """Note the settings of a run in its folder, which is free until there is a checkpoint.

    Args:
        settings: plain values by name. free: beginnings of names that may change when a run goes
            on.

    Raises ValueError if a run with other settings is there, or one that does not say its own.
    """
    path = folder / SETTINGS
    own = json.loads(json.dumps(dict(settings)))  # as it comes back: tuples are lists there
    if (folder / CHECKPOINT).exists():
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"{folder} holds a checkpoint, but no {SETTINGS} that says whose it is; take "
                "another folder."
            ) from error
        except ValueError as error:
            raise ValueError(f"{path} is broken ({error}); take another folder.") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} is broken (it holds no table); take another folder.")
        for name in sorted(own.keys() | found.keys()):
            if found.get(name) != own.get(name) and not name.startswith(free):
                raise ValueError(
                    f"{folder} holds a run with {name} = {found.get(name)!r}, this one has "
                    f"{own.get(name)!r}; use the same settings, or another folder for a new run."
                )
    with replacing(path) as part:
        part.write_text(json.dumps(own, indent=1) + "\n")
