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

    def check_sentence(self, code: int, why: str) -> None:
        """It ended with this code, and one sentence on stderr that holds ``why``."""
        assert self.code == code, self.err
        assert self.err.startswith("samplers: error: ")
        assert self.err.count("\n") == 1
        assert why in self.err


class Say(NamedTuple):
    """Runs commands in which {names} stand for places."""

    places: dict[str, Path]
    capsys: pytest.CaptureFixture[str]

    def __call__(self, command: str) -> Said:
        self.capsys.readouterr()
        code = main(shlex.split(command.format(**self.places)))
        return Said(code, *self.capsys.readouterr())
