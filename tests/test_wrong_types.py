"""Values of a wrong type in files of others: each is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typing_extensions import TypedDict

from samplers.checkpoint import CheckpointError
from samplers.checkpoint.codes import CodesError, read_codes
from samplers.checkpoint.index import INDEX
from samplers.cli.common.errors import exit_code
from samplers.files import checked
from samplers.training.learner import _read
from tests.commands import Say
from tests.tiny_checkpoints import change
from tests.tiny_flows import pipeline, write_text_encoder
from text2pde.autoencoder.model import load_autoencoder
from text2pde.diffusion.text_encoder import TextEncoder
from text2pde.pipeline import load_text2pde

CPU = torch.device("cpu")
RESTORE = "restore {tmp}/restoration {colours} --task rainy --steps 2 --output {out}"


class Numbers(TypedDict):
    steps: int
    names: list[str]


def test_a_checked_value() -> None:
    right = {"steps": 3, "names": ["a"], "more": 1}
    assert checked(Numbers, right) == {"steps": 3, "names": ["a"]}
    for wrong, why in (
        ({**right, "steps": "3"}, "steps is '3'"),
        ({**right, "steps": True}, "steps is True"),
        ({**right, "names": [0]}, r"names\.0 is 0"),
        ({"steps": 3}, "names is .*Field required"),
        ([], r"it is \[\]"),
    ):
        with pytest.raises(ValueError, match=why):
            checked(Numbers, wrong)


STATE: dict[str, Any] = {
    "step": 1, "config": {}, "model": {}, "average": {}, "optimizer": {}, "scaler": {}
}  # fmt: skip


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("value", [None, "x", [1]])
def test_the_state_of_a_training(name: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(STATE, path)
    assert _read(path)["step"] == 1
    torch.save({**STATE, name: value}, path)
    with pytest.raises(ValueError, match=f"no checkpoint of a training here .{name} is "):
        _read(path)


ABOUT: dict[str, Any] = {
    "weights_sha256": {}, "configs_sha256": {}, "scheduler": {}, "checkpoint": "x",
    "labels": [1], "null_label": None, "guidance": 2.0, "guidance_rescale": 0.0,
    "guidance_interval": [0.3, 2.0], "sigma_min": 0.1, "sigma_max": 9.0,
}  # fmt: skip


@pytest.mark.parametrize("name", ABOUT)
@pytest.mark.parametrize("value", ["1", [[1]], {"x": 1}])
def test_the_settings_of_codes(name: str, value: object, tmp_path: Path) -> None:
    path, codes = tmp_path / "codes.safetensors", {"codes": torch.zeros(1, 1)}
    save_file(codes, path, {"parameters": json.dumps(ABOUT)})
    assert read_codes(path).labels == (1,)
    if (name, value) in (("checkpoint", "1"), ("scheduler", {"x": 1})):
        return
    save_file(codes, path, {"parameters": json.dumps({**ABOUT, name: value})})
    with pytest.raises(CodesError, match="can't be read"):
        read_codes(path)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("unet/config.json", {"mid_block_scale_factor": None}, "The network can't be evaluated"),
        ("unet/config.json", {"block_out_channels": "x"}, "can't be loaded"),
        ("unet/config.json", {"block_out_channels": [{}]}, "can't be loaded"),
        (INDEX, {"tasks": 5}, "tasks is 5"),
        (INDEX, {"tasks": [1, 2]}, "tasks.0 is 1"),
        (INDEX, {"lambda_inf": "x"}, "lambda_inf is 'x'"),
    ],
)
def test_the_configs_of_a_network(
    say: Say, places: dict[str, Path], tmp_path: Path, name: str, values: Any, why: str
) -> None:
    shutil.copytree(places["restoration"], tmp_path / "restoration")
    assert say(RESTORE).code == 0
    change(tmp_path / "restoration" / name, **values)
    say(f"{RESTORE} --overwrite").check_sentence(1, why)


def test_an_error_of_our_own_keeps_its_traceback() -> None:
    def broken() -> int:
        raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        exit_code("samplers", broken)


def test_the_parts_of_a_flow_pipeline(tmp_path: Path) -> None:
    words = write_text_encoder(tmp_path / "words")
    pipe = pipeline(words)
    pipe.save_pretrained(tmp_path / "pipe")
    change(tmp_path / "words" / "tokenizer_config.json", tokenizer_class=-1)
    with pytest.raises(ValueError, match="There is no text encoder at"):
        TextEncoder.from_pretrained(words)
    config = tmp_path / "pipe" / "transformer" / "config.json"
    ranges = json.loads(config.read_text())["ranges"]
    for wrong in ("x", [0.1, "x"], [0.1], [2.0, 1.0]):
        change(config, ranges={**ranges, "radius": wrong})
        with pytest.raises(CheckpointError, match="radius"):
            load_text2pde(tmp_path / "pipe", CPU)
    change(config, ranges=ranges)
    change(tmp_path / "pipe" / "autoencoder" / "config.json", channels=[])
    with pytest.raises(ValueError, match="holds no mesh autoencoder"):
        load_autoencoder(tmp_path / "pipe" / "autoencoder")
    change(tmp_path / "pipe" / INDEX, text_encoder={"x": 1})
    with pytest.raises(CheckpointError, match=r"text_encoder.* is"):
        load_text2pde(tmp_path / "pipe", CPU)


def test_a_link_to_itself(say: Say, tmp_path: Path) -> None:
    (tmp_path / "grey.png").symlink_to(tmp_path / "grey.png")
    command = "colorize {plain} {tmp}/grey.png --steps 1 --num-images 1 --output {out}"
    say(command).check_sentence(1, "leads back to itself")
