"""The frame of the command lines: options in groups, lazy commands, errors in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from samplers.cli.common.output import check_folder, is_png
from samplers.cli.common.program import Program
from samplers.cli.common.values import POSITIVE_NUMBER, SEEDS, WHOLE, seeds_text

COMMAND = '''
from samplers.cli.common.errors import Failure
from pathlib import Path

from samplers.cli.common.program import Options, argument, changed, command, option
from samplers.cli.common.values import FINITE, PATH, POSITIVE


class GridOptions(Options, section="Time grid"):
    steps: int = option(type=POSITIVE, help="Steps.", default=20)
    sigma: float | None = option(
        "--sigma", type=FINITE, help="Level.", excludes=["--steps"], show_default="the lowest"
    )


class GoOptions(GridOptions, section="Output"):
    name: Path = argument("NAME", type=PATH, help="Of the place.")
    steps: int = changed(GridOptions, "steps", default=5)


@command("Examples:\\n  tool go x --steps 3")
def run(options: GoOptions, loud: bool = option(is_flag=True, section="Output")) -> int:
    """Go somewhere.

    More words.
    """
    match str(options.name):
        case "memory":
            raise RuntimeError("can't allocate memory")
        case "interrupt":
            raise KeyboardInterrupt
        case "fail":
            raise Failure("It failed.")
        case name:
            print(name, options.steps, options.sigma, loud)
    return 0
'''


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A program of two commands; one of them can't be imported."""
    package = tmp_path / "toy_commands"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "go_on.py").write_text(COMMAND)
    (package / "broken.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    yield Program("tool", "toy_commands", {"All": ("go-on", "broken")}, purpose="A tool.", tour="")
    for name in [name for name in sys.modules if name.startswith("toy_commands")]:
        del sys.modules[name]


def test_groups_of_options(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["go-on", "there", "--loud"]) == 0
    assert capsys.readouterr().out == "there 5 None True\n"
    assert program.run(["go-on", "--steps", "3", "there"]) == 0
    assert capsys.readouterr().out == "there 3 None False\n"


def test_the_help_has_sections_defaults_and_examples(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.run(["go-on", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: tool go-on [OPTIONS] NAME" in out
    assert out.index("Time grid:\n  --steps N") < out.index("Output:\n  --loud")
    assert "[default: 5]" in out
    assert "[default: the lowest]" in out
    assert "\nExamples:\n  tool go x --steps 3\n" in out


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ("", 2, "Missing command (see `tool --help`)"),
        ("go-no x", 2, "No such command 'go-no'; did you mean 'go-on'? (see `tool --help`)"),
        ("go-on x --stps 3", 2, "; did you mean '--steps'? (see `tool go-on --help`)"),
        ("go-on", 2, "Missing argument 'NAME' (see `tool go-on --help`)"),
        ("go-on x --steps 0", 2, "'--steps': 0 is not a whole number from 1 to 5,000 (see"),
        ("go-on x --steps", 2, "'--steps' requires an argument"),
        ("go-on x --steps 3 --sigma 1", 2, "--steps and --sigma exclude each other"),
        ("go-on memory", 1, "not enough memory"),
        ("go-on fail", 1, "It failed."),
        ("go-on interrupt", 130, "Interrupted."),
    ],
)
def test_an_error_is_one_sentence(
    program: Program, capsys: pytest.CaptureFixture[str], words: str, code: int, why: str
) -> None:
    assert program.run(words.split()) == code
    err = capsys.readouterr().err
    assert err.startswith("tool: error: ")
    assert err.count("\n") == 1
    assert why in err


def test_the_version(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tool ")


def test_completion(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TOOL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "tool go-on --st")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert program.run([]) == 0
    assert capsys.readouterr().out == "plain,--steps\n"


def test_seeds() -> None:
    assert SEEDS("3,0-2") == (3, 0, 1, 2)
    assert seeds_text(SEEDS("0-2,5,7-8")) == "0-2,5,7-8"
    for text in ("3-1", "1,1", "0-9999999999", "-1", "x"):
        with pytest.raises(click.BadParameter):
            SEEDS(text)


def test_numbers() -> None:
    assert POSITIVE_NUMBER("1e-3") == 1e-3
    for text in ("0", "nan", "inf", "-1", "x"):
        with pytest.raises(click.BadParameter, match="is not a finite number above 0"):
            POSITIVE_NUMBER(text)
    for text in ("2.5", "-1", "x", "nan"):
        with pytest.raises(click.BadParameter, match="is not a whole number from 0 up"):
            WHOLE(text)


def test_a_folder_is_checked_without_being_made(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="is a file"):
        check_folder(tmp_path / "file" / "folder")
    assert is_png(tmp_path / "x.png")
    with pytest.raises(ValueError, match="written as PNG"):
        is_png(tmp_path / "x.jpg")


def test_only_the_command_in_use_is_imported(program: Program) -> None:
    assert isinstance(program.get_command(None, "go-on"), click.Command)
    with pytest.raises(AssertionError, match="imported"):
        program.get_command(None, "broken")
