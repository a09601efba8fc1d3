"""The table of measured images as a CSV file that a later run continues."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from samplers.cli.common.errors import Failure, writing
from samplers.files import locked, refuse_special, replacing


class Record(NamedTuple):
    """The likelihood of one image.

    Attributes:
        label: the class that it was conditioned on; None for a network without classes.
        bits_per_dim: NaN for a network of latents.
        standard_error: of ``log_prob``, in nats; NaN for a single probe.
        content: a digest of the image; label, seed and the settings decide the rest.
        settings: in words, those of the whole table.
    """

    image: str
    label: int | None
    bits_per_dim: float
    log_prob: float
    standard_error: float
    nfe: int
    seed: int
    content: str
    settings: str

    @property
    def key(self) -> Key:
        return self.content, self.label, self.seed


Key = tuple[str, int | None, int]
Records = dict[Key, Record]

SEPARATOR = "; "
"""Of the settings in the text of all."""


def read_records(path: Path, settings: str, overwrite: bool) -> Records:
    """What a CSV file holds, nothing if there is none.

    If it was measured with other settings it counts as nothing if it may be replaced; else it is a
    ValueError. Failure if it is no such table.
    """
    records = _read(path)
    others = next((one.settings for one in records.values() if one.settings != settings), None)
    if others is None:
        return records
    if overwrite:
        return {}
    raise ValueError(
        f"{path} was measured with other settings ({_difference(others, settings)}); choose "
        "another name for --csv, or pass --overwrite to replace it."
    )


def _difference(found: str, wanted: str) -> str:
    """The first setting that differs, in words."""
    pairs = zip(found.split(SEPARATOR), wanted.split(SEPARATOR), strict=False)
    return next((f"{one}, not {other}" for one, other in pairs if one != other), found)


def _read(path: Path) -> Records:
    if not path.exists():
        return {}
    refuse_special(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != Record._fields:
                raise ValueError("other columns")
            records = [_record(row) for row in reader]
    except (TypeError, ValueError, csv.Error) as error:
        raise Failure(
            f"{path} is no table that this command wrote; choose another name for --csv."
        ) from error
    return {record.key: record for record in records}


def _record(row: dict[str, Any]) -> Record:
    return Record(
        image=row["image"],
        label=int(row["label"]) if row["label"] else None,
        bits_per_dim=float(row["bits_per_dim"]),
        log_prob=float(row["log_prob"]),
        standard_error=float(row["standard_error"]),
        nfe=int(row["nfe"]),
        seed=int(row["seed"]),
        content=row["content"],
        settings=row["settings"],
    )


def add_records(path: Path, records: Sequence[Record], overwrite: bool) -> Records:
    """Add to the table what was measured, and return all that it holds then.

    Two commands of the same settings may add to one table.
    """
    with locked(path.parent, wait=True):
        found = read_records(path, records[0].settings, overwrite)
        found |= {record.key: record for record in records}
        _write_records(path, found.values())
    return found


def _write_records(path: Path, records: Iterable[Record]) -> None:
    """Write the table, whole or not at all."""
    with (
        writing(path),
        replacing(path) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(Record._fields)
        writer.writerows(records)
