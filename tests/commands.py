"""Commands of the command line, run on tiny checkpoints and pictures of their size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from samplers.cli import main
from samplers.cli.program import PROGRAM


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


def parsed(command: str) -> dict[str, Any]:
    """The values of a command's parameters, by name; raises click's error for wrong words."""
    program, name, *words = shlex.split(command)
    assert program == "samplers"
    found = PROGRAM.get_command(None, name)
    assert found is not None, f"there is no command {name}"
    return found.make_context(name, words).params


def shown_commands(text: str) -> list[str]:
    """The commands of ours that stand in a text, each on lines of its own, but for ``--help``."""
    whole = re.sub(r"\\\n *", "", text)
    lines = re.findall(r"^ *(?:accelerate launch -m )?(samplers \w+ .*)$", whole, re.MULTILINE)
    return [line.split("   ")[0] for line in lines if "--help" not in line]
