"""What would take memory or time without end is refused: absurd numbers, pipes and devices."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from adjoint.finetune import read_finetune_config
from adjoint.rewards.networks import load_digits
from adjoint.rewards.pretrained import load_tokenizer
from adjoint.rewards.reward import Placement
from samplers.checkpoint import read_settings
from samplers.checkpoint.codes import read_codes
from samplers.checkpoint.index import read_index
from samplers.cli.common.program import Program
from samplers.cli.common.records import read_records
from samplers.cli.common.values import COUNTS, SEEDS, Number
from samplers.files import replacing
from samplers.images.files import read_parameters
from samplers.training import TrainingConfig, claim_folder
from samplers.training.learner import _read
from tests.commands import Say
from tests.test_cli_outputs import commands
from text2pde.autoencoder.latents import load_latents
from text2pde.autoencoder.model import load_autoencoder
from text2pde.data.clip import load_clip
from text2pde.data.mesh_files import read_mesh
from text2pde.diffusion.text_encoder import TextEncoder

NUMBERS = [
    (program, command, name, param)
    for program, command, name in commands()
    for param in command.params
    if param.type in (COUNTS, SEEDS) or (isinstance(param.type, Number) and param.type.name == "N")
]


@pytest.mark.parametrize(
    ("program", "command", "name", "param"),
    NUMBERS,
    ids=[f"{program.name}-{name}-{param.name}" for program, _, name, param in NUMBERS],
)
def test_absurd_numbers(
    program: Program,
    command: click.Command,
    name: str,
    param: click.Parameter,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every option that is a whole number is bounded, before anything is computed."""
    several = param.type is SEEDS
    for text in ("0-99999999999",) if several else ("99999999999999999999", "9" * 400):
        words = [other.name or "" for other in command.params if isinstance(other, click.Argument)]
        required = [other for other in command.params if other.required and other.opts[0][0] == "-"]
        others = [word for other in required for word in (other.opts[0], "none.png")]
        assert program.run([name, *words, *others, param.opts[0], text]) == 2
        err = capsys.readouterr().err
        assert ("more than 1,000,000 seeds" if several else "is not a whole number from") in err
        assert err.count("\n") == 1


def test_many_ranges_of_seeds() -> None:
    """Each is short enough, and all of them are not."""
    text = ",".join(f"{first}-{first + 999_999}" for first in range(0, 10**10, 10**6))
    with pytest.raises(click.BadParameter, match="more than 1,000,000 seeds"):
        SEEDS(text)


@pytest.mark.parametrize(
    "setting",
    ["sampling.steps", "training.batch_size", "previews.num_images", "optimise.num_images"],
)
def test_absurd_numbers_of_a_config(setting: str) -> None:
    path = Path(__file__).parents[1] / "examples/effects/bold.toml"
    with pytest.raises(ValueError, match=f"{setting} is 10000000; it must be a whole number from"):
        read_finetune_config(path, {setting: 10_000_000})


# ----------------------------------------------------------------------------- pipes and devices


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture(autouse=True)
def _not_forever() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise AssertionError("it waits for the pipe")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)


def _write(path: Path) -> None:
    with replacing(path):
        pass


FILES: dict[str, Callable[[Path], Any]] = {
    "codes": read_codes,
    "records": lambda path: read_records(path, "", False),
    "config": read_finetune_config,
    "checkpoint": _read,
    "clip": load_clip,
    "latents": load_latents,
    "mesh": lambda path: read_mesh(path, None),  # type: ignore[arg-type]
    "output": _write,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_pipe_in_place_of_a_file(kind: str, pipe: Path) -> None:
    with pytest.raises((OSError, ValueError), match="pipe"):
        FILES[kind](pipe)
    assert pipe.is_fifo()


def begin_run(folder: Path) -> None:
    with claim_folder(folder, {}, TrainingConfig(1, 1, 1.0)):
        pass


FOLDERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "index": ("unet/config.json", read_index),
    "weights": ("unet/diffusion_pytorch_model.safetensors", read_index),
    "scheduler": ("scheduler/scheduler_config.json", read_settings),
    "autoencoder": ("config.json", load_autoencoder),
    "text encoder": ("config.json", lambda path: TextEncoder.from_pretrained(str(path))),
    "tokenizer": ("tokenizer.json", load_tokenizer),
    "classifier": ("model.safetensors", lambda path: load_digits(path, Placement())),
    "run": ("settings.json", begin_run),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_pipe_in_a_folder(kind: str, tmp_path: Path) -> None:
    name, read = FOLDERS[kind]
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises((OSError, ValueError)):
        read(tmp_path)


def test_a_pipe_is_no_finished_image(say: Say, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "seed-00000000.png")
    assert read_parameters(tmp_path / "seed-00000000.png") is None
    command = "sample {digits} --label 1 --steps 1 --num-images 1 --output {tmp}"
    say(command).check_sentence(2, "exists already, with other settings")
    say(f"{command} --overwrite").check_sentence(1, "is a pipe or a device")


def test_devices(say: Say, tmp_path: Path) -> None:
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    command = f"likelihood {{digits}} {{grey}} --label 1 --csv {tmp_path}/zero.csv"
    say(command).check_sentence(1, "a device")
    say("decode {digits} /dev/zero --output {out}").check_sentence(1, "no such file")
