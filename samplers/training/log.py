"""The log of a run: a line of JSON for each entry, truncated when a run is resumed."""

from __future__ import annotations

import json
from pathlib import Path

from samplers.files import replacing


def append_line(path: Path, line: dict[str, float]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def trim_log(path: Path, done: int) -> None:
    """Drop the lines after step ``done``, and an incomplete last line."""
    whole = [line for line in _read_lines(path) if line.endswith("\n")]
    try:
        kept = [line for line in whole if json.loads(line)["step"] <= done]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The log {path} is broken; delete it, and run the command again."
        ) from error
    with replacing(path) as part:
        part.write_text("".join(kept))


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []
