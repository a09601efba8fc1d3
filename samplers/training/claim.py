"""A folder belongs to the settings of the run that is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samplers.files import replacing

SETTINGS = "settings.json"


def claim_folder(folder: Path, settings: Mapping[str, Any], free: tuple[str, ...] = ()) -> None:
    """Note the settings of a run in its folder.

    settings: plain values by name. free: beginnings of names that may change when a run goes on.

    Raises ValueError if a run with other settings is there.
    """
    path, own = folder / SETTINGS, dict(settings)
    if path.exists():
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is broken ({error}); take another folder.") from error
        for name in sorted(own.keys() | found.keys()):
            if found.get(name) != own.get(name) and not name.startswith(free):
                raise ValueError(
                    f"{folder} holds a run with {name} = {found.get(name)!r}, this one has "
                    f"{own.get(name)!r}; use the same settings, or another folder for a new run."
                )
    with replacing(path) as part:
        part.write_text(json.dumps(own, indent=1) + "\n")
