"""Commands with one thing wrong, drawn from a seed, each run in a process of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import click

from samplers.cli.common.program import Program

SECONDS = 30
"""Of processor time; three times as many on the clock, for a machine that is busy."""
BYTES = 4 * 2**30
_OF_MEMORY = re.compile("(more|enough|of) memory")

HOSTILE_WORDS = (
    "", " ", "-1", "0", "1", "3", "nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "0.5", "2**9",
    "99999999999", "9" * 30, "9" * 5000, "0-99999999999", "0,0", "3-1", ",", "=", "eta=", "eta=nan",
    "eta=1e308", "order=99999999999", "true", "None", "[]", "{}", "null", "all", "a" * 5000, "ä",
    "--", "-", "/", "/dev/zero", "/dev/null", "/dev/null/x.png", "../..", "x.png", "x.jpg",
    "dopri5", "lms-4", "sde-dpmpp-2m", "rk4", "cuda:9", "float16",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 0.5, -0.5, 1e308, 10**12, 2**63, 10**40, "", "x", "9", [], [0], [1, 2],
    ["x", "y"], [[[]]], {}, {"x": 1}, float("nan"), float("inf"),
)  # fmt: skip


class Base(NamedTuple):
    """A command that works.

    Attributes:
        words: ``{name}`` in them stands for a place.
        harmed: the places that it reads, which may be damaged.
    """

    program: str
    words: list[str]
    harmed: list[str]

    @classmethod
    def read(cls, line: str) -> Base:
        """From a line in which ``{out}`` stands for what is written."""
        program, *words = line.split()
        names = re.findall(r"{(\w+)}", line)
        return cls(program, words, [name for name in names if name not in ("out", "sentence")])


class Case(NamedTuple):
    """A command to run, and what was done to it, in words."""

    program: str
    words: list[str]
    harm: str


class End(NamedTuple):
    """How a command ended; the code is negative if a signal ended it."""

    code: int
    err: str
    peak: int

    def faults(self) -> str:
        """What is wrong with this end, if anything is."""
        said = [line for line in self.err.splitlines() if ": error: " in line]
        if self.code in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
            return "it hangs"
        if self.code not in (0, 1, 2):
            return f"it ended with {self.code}"
        if "Traceback" in self.err:
            return "it has a traceback"
        if len(said) != (self.code > 0):
            return f"it says {len(said)} errors"
        if self.peak > BYTES or any(_OF_MEMORY.search(line) for line in said):
            return "it takes too much memory"
        return ""


# --------------------------------------------------------------------------------------- harm


def draw(random: Random, bases: Sequence[Base], places: dict[str, Path], folder: Path) -> Case:
    """A command with one thing wrong, or with two."""
    base = random.choice(bases)
    own = {**places, "out": folder / "out"}
    harm = []
    if base.harmed and random.random() < 0.6:
        name = random.choice(base.harmed)
        own[name] = _copied(places[name], folder / "given")
        harm.append(_harm(random, own[name]))
    words = [word.format(**own) for word in base.words]
    if not harm or random.random() < 0.2:
        words, what = _other_words(random, base.program, words)
        harm.append(what)
    return Case(base.program, words, "; ".join(harm))


def _copied(place: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    return Path((shutil.copytree if place.is_dir() else shutil.copy)(place, to / place.name))


def _other_words(random: Random, program: str, words: list[str]) -> tuple[list[str], str]:
    """The words with another option, or one word less, or a hostile one in its place."""
    command = _program(program).get_command(None, words[0])
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    kind, place = random.random(), random.randrange(1, max(2, len(words)))
    if options and kind < 0.7:
        param = random.choice(options)
        flag = param.opts[0]
        added = [flag] if param.is_flag else [flag, random.choice(HOSTILE_WORDS)]
        return [*words, *added], f"with {' '.join(added)[:80]}"
    other = [] if kind < 0.8 else [random.choice(HOSTILE_WORDS)]
    return [
        *words[:place],
        *other,
        *words[place + 1 :],
    ], f"{str(other)[:80]} for {words[place:][:1]}"


def _harm(random: Random, place: Path) -> str:
    """Damage one file, of a folder too."""
    files = (
        sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    )
    path = random.choice(files)
    kinds: list[Callable[[Random, Path], str]] = [_bytes, _bytes, _replaced]
    if path.suffix in (".json", ".toml", ".safetensors"):
        kinds += [_value] * 9
    kind = random.choice(kinds)
    return f"{path.name}: {kind(random, path)}"


def _replaced(random: Random, path: Path) -> str:
    """Something else at the place of a file."""
    path.unlink()
    kind = random.choice(("nothing", "pipe", "folder", "device", "loop"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path)
    return kind


def _bytes(random: Random, path: Path) -> str:
    """Some bytes less, or others."""
    data, kind = path.read_bytes(), random.choice(("short", "empty", "other", "noise", "deep"))
    at = random.randrange(max(1, len(data)))
    other = {
        "short": data[:at],
        "empty": b"",
        "other": data[:at] + random.randbytes(8) + data[at + 8 :],
        "noise": random.randbytes(200),
        "deep": b"[" * 100_000,
    }[kind]
    path.write_bytes(other)
    return f"{kind} bytes"


def _value(random: Random, path: Path) -> str:
    """A value of a wrong type, or none, in the JSON of a file or of its header."""
    if path.suffix == ".toml":
        return _setting(random, path)
    data = path.read_bytes()
    if path.suffix == ".json":
        found, what = _changed(random, json.loads(data))
        path.write_text(json.dumps(found))
        return what
    size = int.from_bytes(data[:8], "little")
    found, what = _changed(random, _unpacked(json.loads(data[8 : 8 + size])))
    header = json.dumps(_packed(found)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    return what


def _unpacked(header: dict[str, Any]) -> dict[str, Any]:
    """A header whose metadata, which are texts, are read where they are JSON."""
    about = dict(header.get("__metadata__", {}))
    for name, text in about.items():
        with contextlib.suppress(ValueError):
            about[name] = json.loads(text)
    return {**header, "__metadata__": about} if about else header


def _packed(header: Any) -> Any:
    about = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(about, dict):
        return header
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in about.items()}
    return {**header, "__metadata__": texts}


def _setting(random: Random, path: Path) -> str:
    """A line of TOML with another value."""
    lines = path.read_text().splitlines()
    at = random.choice([place for place, line in enumerate(lines) if " = " in line])
    name = lines[at].split(" = ")[0]
    value = random.choice(("-1", "0", "nan", "inf", "1e308", "99999999999", "''", "[]", "[1]",
                           "{}", "{x = 1}", "true", "1979-05-27", "[[['x']]]", "="))  # fmt: skip
    path.write_text("\n".join([*lines[:at], f"{name} = {value}", *lines[at + 1 :]]) + "\n")
    return f"{name} = {value}"


def _changed(random: Random, data: Any) -> tuple[Any, str]:
    """JSON with one value changed or removed, and which in words."""
    if not isinstance(data, dict | list) or not data or random.random() < 0.05:
        value = random.choice(HOSTILE_VALUES)
        return value, f"= {value!r}"
    keys: list[Any] = list(data) if isinstance(data, dict) else list(range(len(data)))
    key = random.choice(keys)
    changed = dict(data) if isinstance(data, dict) else list(data)
    if random.random() < 0.15:
        del changed[key]
        return changed, f"without {key}"
    inner, what = _changed(random, data[key])
    changed[key] = inner
    return changed, f"{key} {what}"


# -------------------------------------------------------------------------------------- running


def _program(name: str) -> Program:
    found: Program = import_module(f"{name}.cli.program").PROGRAM
    return found


def run(case: Case, folder: Path) -> End:
    """Run a command in a copy of this process, with limits of time and memory."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(case, folder)
    _, status, used = os.wait4(child, 0)
    err = (folder / "stderr").read_text(errors="replace")
    return End(os.waitstatus_to_exitcode(status), err, used.ru_maxrss * 1024)


def _become(case: Case, folder: Path) -> None:
    """Run a command in place of this process; does not return."""
    code = 70
    try:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(folder)
        _limit()
        code = _program(case.program).run(case.words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit() -> None:
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGXCPU, chain=True)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(3 * SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
