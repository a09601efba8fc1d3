"""Commands of the command line, run on tiny checkpoints and pictures of their size."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from samplers.cli import main


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


class Say(NamedTuple):
    """Runs commands in which {names} stand for places."""

    places: dict[str, Path]
    capsys: pytest.CaptureFixture[str]

    def __call__(self, command: str) -> Said:
        self.capsys.readouterr()
        code = main(shlex.split(command.format(**self.places)))
        return Said(code, *self.capsys.readouterr())
