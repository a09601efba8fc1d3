"""Markdown reports: tables with the versions and the machine they were measured on."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from samplers.files import replacing

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))


def write(name: str, title: str, *paragraphs: str) -> Path:
    """Write ``docs/benchmarks/name.md`` in one rename, and return its path."""
    path = FOLDER / f"{name}.md"
    with replacing(path) as part:
        part.write_text("\n\n".join([f"# {title}", *paragraphs, _measured_on()]) + "\n")
    return path


def _measured_on() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "numpy"))
    return (
        f"Measured on {date.today():%Y-%m-%d} with Python {platform.python_version()}, {packages}; "
        f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} used by torch."
    )
