"""The table of measured images as a CSV file that a later run continues."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from samplers.cli.common.errors import Failure, writing
from samplers.files import locked, refuse_special, replacing


class Record(NamedTuple):
    """The likelihood of one image.

    Attributes:
        bits_per_dim: NaN for a network of latents.
        standard_error: of ``log_prob``, in nats; NaN for a single probe.
        made_of: the image and the settings, in words; with the seed it decides all.
    """

    image: str
    bits_per_dim: float
    log_prob: float
    standard_error: float
    nfe: int
    seed: int
    made_of: str

    @property
    def key(self) -> tuple[str, int]:
        return self.made_of, self.seed


Records = dict[tuple[str, int], Record]
"""By key."""


def read_records(path: Path) -> Records:
    """What a CSV file holds, nothing if there is none; Failure if it is no such table."""
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
        bits_per_dim=float(row["bits_per_dim"]),
        log_prob=float(row["log_prob"]),
        standard_error=float(row["standard_error"]),
        nfe=int(row["nfe"]),
        seed=int(row["seed"]),
        made_of=row["made_of"],
    )


def add_records(path: Path, records: Iterable[Record]) -> Records:
    """Add to the table what was measured, and return all that it holds then.

    Two commands may add to one table.
    """
    with locked(path.parent, wait=True):
        found = read_records(path) | {record.key: record for record in records}
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
