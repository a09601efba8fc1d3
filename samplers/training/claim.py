"""The check that a folder belongs to a run with the same settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samplers.files import parse_json, refuse_special, replacing
from samplers.training.loop import CHECKPOINT

SETTINGS = "settings.json"


def claim_folder(folder: Path, settings: Mapping[str, Any], free: tuple[str, ...] = ()) -> None:
    """Write the settings of a run to its folder, or check them if it has a checkpoint.

    Args:
        settings: plain values by name.
        free: prefixes of names that may change when a run is resumed.

    Raises ValueError if the folder has a run with other settings, or without a file of settings.
    """
    refuse_special(folder)
    path = folder / SETTINGS
    own = json.loads(json.dumps(dict(settings)))  # as JSON is read: tuples become lists
    if (folder / CHECKPOINT).exists():
        try:
            found = parse_json(path.read_bytes())
        except FileNotFoundError as error:
            raise ValueError(
                f"{folder} holds a checkpoint, but no {SETTINGS} with its settings; take "
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
