"""Files are whole or unchanged, whatever stops their writing, and hold no surprise when read."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from samplers.cli.common.errors import Failure
from samplers.cli.common.output import held
from samplers.cli.common.records import Record, add_records, read_records
from samplers.files import locked, new_files, parse_json, replacing, with_sorted_metadata

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
    ids=["safetensors", "torch", "system"],
)
def test_a_full_disk_names_the_file_and_leaves_it_unchanged(
    error: Exception, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left") as raised, replacing(path) as part:
        part.write_text("half")
        raise error
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_not_replaced_by_whom_comes_second(tmp_path: Path) -> None:
    path, other = tmp_path / "own.png", tmp_path / "other.png"
    other.write_text("old")
    with new_files([path]):
        with pytest.raises(FileExistsError), replacing(path) as part:
            part.write_text("second")
            path.write_text("first")
        with replacing(other) as part:
            part.write_text("new")
        path.unlink()
        for text in ("once", "again"):
            with replacing(path) as part:
                part.write_text(text)
    assert (path.read_text(), other.read_text()) == ("again", "new")
    assert {place.name for place in tmp_path.iterdir()} == {"own.png", "other.png"}


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "notes [1].txt"
    code = (
        "import os, signal, sys; from pathlib import Path; from samplers.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    living = left.with_name(left.name.replace(left.name.split(".")[-2], str(os.getppid())))
    living.touch()
    with replacing(path) as part:
        part.write_text("new")
    assert {*tmp_path.iterdir()} == {path, living}


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        held(folder),
        pytest.raises(Failure, match="Another command is writing into"),
        held(folder),
    ):
        pass
    with held(folder):
        assert not list(folder.iterdir())


def test_two_commands_add_to_one_table(tmp_path: Path) -> None:
    """A second that began with an empty table keeps the rows of the first."""
    path = tmp_path / "bits.csv"
    one, two = (Record(f"{n}.png", n, 1.0, -1.0, 0.1, 20, n, f"{n}", "all") for n in range(2))
    assert read_records(path, "all", False) == {}
    add_records(path, [one], False)
    assert [*add_records(path, [two], False).values()] == [one, two]
    assert [*read_records(path, "all", False).values()] == [one, two]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from samplers.files import locked\n"
        "with locked(Path(sys.argv[1]), wait=True):\n"
        "    print('held', flush=True); time.sleep(0.5); Path(sys.argv[1], 'done').touch()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with locked(tmp_path, wait=True):
            assert (tmp_path / "done").exists()


def test_a_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    with replacing(path) as part:
        part.write_text("")
        part.chmod(0o600)  # as the writer of safetensors does
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("text", ["[" * 100_000, "{", b"\xff", '{"a": 1} x'])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@pytest.mark.parametrize("names", [(), ("b", "a"), ("é", "z", "a")])
def test_equal_content_of_safetensors_is_equal_bytes(names: tuple[str, ...]) -> None:
    tensors = {"x": torch.arange(3), "y": torch.ones(2, 2)}
    written = {
        with_sorted_metadata(save(tensors, {name: f"of {name}" for name in order}))
        for order in itertools.permutations(names)
        for _ in range(4)  # the order is another one in each call
    }
    (only,) = written
    assert all(torch.equal(value, tensors[name]) for name, value in load(only).items())
    header = json.loads(only[8 : 8 + int.from_bytes(only[:8], "little")])
    assert list(header["__metadata__"].items()) == [(name, f"of {name}") for name in sorted(names)]
