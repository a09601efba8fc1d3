"""Files that exist are kept by every command, unless ``--overwrite`` is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

import adjoint.cli.program
import samplers.cli.program
import text2pde.cli.program
from samplers.cli.common.errors import writing
from samplers.cli.common.program import Program
from samplers.cli.common.values import Output
from tests.commands import Say
from text2pde.cli.common import check_clip_output

PROGRAMS: tuple[Program, ...] = (
    samplers.cli.program.PROGRAM, adjoint.cli.program.PROGRAM, text2pde.cli.program.PROGRAM
)  # fmt: skip
CONTINUED = {
    ("samplers", "tune"), ("samplers", "fit-grid"), ("text2pde", "tune"),
    ("text2pde", "train-autoencoder"), ("text2pde", "train-diffusion"),
}  # fmt: skip
"""Commands whose output is the folder of a run, which they resume, or of several files."""
FEW = "--label 1 --steps 2 --num-images 2"


def commands() -> Iterator[tuple[Program, click.Command, str]]:
    for program in PROGRAMS:
        for name in program.names:
            command = program.get_command(None, name)
            assert command is not None
            yield program, command, name


WRITTEN = [
    (program, command, name, param)
    for program, command, name in commands()
    for param in command.params
    if isinstance(param.type, Output)
]


def required(command: click.Command, output: click.Parameter, path: Path) -> list[str]:
    """The words of a command that writes to a path, and reads what does not exist."""
    words = [] if output.required else [output.opts[0], str(path)]
    for param in command.params:
        if param.required:
            value = str(path) if param is output else f"no-{param.name}.png"
            words += [value] if isinstance(param, click.Argument) else [param.opts[0], value]
    return words


@pytest.mark.parametrize(
    ("program", "command", "name", "param"),
    WRITTEN,
    ids=[f"{program.name}-{name}-{param.name}" for program, _, name, param in WRITTEN],
)
def test_a_file_that_exists_is_kept(
    program: Program,
    command: click.Command,
    name: str,
    param: click.Parameter,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is said before anything is read, by every option of every command that names a file."""
    notes = tmp_path / "notes.png"
    notes.write_text("notes")
    words = required(command, param, notes)
    assert program.run([name, *words]) == 2
    err = capsys.readouterr().err
    assert f"{notes} exists already; choose another name, or pass --overwrite" in err
    assert err.count("\n") == 1
    assert program.run([name, *words, "--overwrite"]) in (1, 2)  # for what does not exist
    assert "exists already" not in capsys.readouterr().err
    assert notes.read_text() == "notes"


def test_every_output_is_checked() -> None:
    """What is called an output is a file that is kept, or the folder of a run that is resumed."""
    for program, command, name in commands():
        for param in command.params:
            outputs = param.name in ("output", "animation", "trajectory", "histogram")
            assert isinstance(param.type, Output) == (
                outputs and (program.name, name) not in CONTINUED
            )


def test_a_picture_with_other_settings_is_kept(say: Say, tmp_path: Path) -> None:
    command = f"sample {{digits}} {FEW} --output {{out}}"
    assert say(command).code == 0
    first = (tmp_path / "out.png").read_bytes()
    say(f"{command} --seed 7").check_sentence(2, "exists already")
    assert (tmp_path / "out.png").read_bytes() == first
    assert say(f"{command} --seed 7 --overwrite").code == 0
    assert (tmp_path / "out.png").read_bytes() != first


def test_of_two_runs_into_one_new_file_the_second_fails(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first makes it while the second computes."""
    path = tmp_path / "same.png"

    @contextmanager
    def after_the_first(own: Path) -> Iterator[None]:
        own.write_text("first")
        with writing(own):
            yield

    monkeypatch.setattr("samplers.cli.common.output.writing", after_the_first)
    run = f"sample {{digits}} {FEW} --output {path}"
    say(run).check_sentence(1, "same.png can't be written: File exists")
    assert path.read_text() == "first"
    assert say(f"{run} --overwrite").code == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("place", ["alone.png", "folder/seed-00000000.png"])
def test_a_link_to_nothing_is_not_replaced(say: Say, tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "nowhere.png")
    output = path if place == "alone.png" else path.parent
    say(f"sample {{digits}} {FEW} --output {output}").check_sentence(2, "exists already")
    assert path.is_symlink()


def test_the_sheet_of_a_folder_replaces_its_own_only(say: Say, tmp_path: Path) -> None:
    command = f"sample {{digits}} {FEW} --output {{tmp}}/job"
    (tmp_path / "job").mkdir()
    sheet = tmp_path / "job" / "grid.png"
    sheet.write_text("notes")
    say(command).check_sentence(2, "grid.png exists already")
    assert sheet.read_text() == "notes"
    assert say(f"{command} --overwrite").code == 0
    assert say(f"{command} --seed 1").code == 0  # an extended folder has a new sheet
    assert sheet.read_bytes()[1:4] == b"PNG"


def test_images_in_a_folder_are_kept(say: Say, tmp_path: Path) -> None:
    """Those of decode and of restore, which take their names from codes and images."""
    restore = "restore {restoration} {colours} --task rainy --steps 2 --output {tmp}/clean"
    assert say("encode {digits} {grey} --label 1 --output {tmp}/codes.safetensors").code == 0
    decode = "decode {digits} {tmp}/codes.safetensors --output {tmp}/images"
    for command, name in ((decode, "images/code-00000.png"), (restore, "clean/colours.png")):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("notes")
        say(command).check_sentence(2, "exists already")
        assert path.read_text() == "notes"
        assert say(f"{command} --overwrite").code == 0
        assert path.read_bytes()[1:4] == b"PNG"


def test_all_files_of_a_clip_are_kept(tmp_path: Path) -> None:
    """A VTK file for each frame, and their series, have names of their own."""
    for name in ("flow.pvd", "flow-000.vtu", "flow.gif"):
        path = tmp_path / name
        path.touch()
        asked = tmp_path / ("flow.gif" if name == "flow.gif" else "flow.vtu")
        with pytest.raises(ValueError, match=f"{name} exists already"):
            check_clip_output(asked, overwrite=False)
        check_clip_output(asked, overwrite=True)
        path.unlink()
    check_clip_output(tmp_path / "flow.vtu", overwrite=False)
