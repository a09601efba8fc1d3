"""``samplers tune``, and tuned samplers in ``samplers sample``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from samplers.checkpoint import LoadOptions, NetworkCheckpoint, Recipe, load_checkpoint
from samplers.checkpoint.folder import read_folder
from samplers.images.files import read_parameters
from samplers.tuning import TunedSampler, load_sampler
from tests.commands import Say

ROOT = Path(__file__).parent.parent

TUNE = (
    "tune {digits} --nfe 3 --samples 6 --held-out 4 --iterations 4 --batch-size 6 "
    "--teacher-steps 40 --learning-rate 0.02 --output {tmp}/tuned"
)
SAMPLE = "sample {digits} --sampler {tmp}/tuned/digits-3.json --num-images 2 --label 1"


def test_a_tuned_sampler_is_written_and_sampled_with(say: Say, tmp_path: Path) -> None:
    said = say(TUNE + " --label 1,2")
    assert said.code == 0, said.err
    tuned = load_sampler(tmp_path / "tuned" / "digits-3.json")
    assert tuned.nfe == 3
    assert tuned.about["conditions"] == "classes 1, 2"
    assert f"relative error {tuned.about['after']['geometric_mean']:.3g}" in said.out
    say("sample {digits} --seeds 0 --steps 3 --output {tmp}/other.png")
    found = say(SAMPLE + " --output {out}")
    assert found.code == 0, found.err
    assert "3 network evaluations" in found.out
    assert found.err == ""
    about = read_parameters(tmp_path / "out.png")
    assert about is not None
    assert about["sampler"].endswith("digits-3.json")
    # Again: what was written is refused, and gives the same file if it is wanted anew.
    content = (tmp_path / "tuned" / "digits-3.json").read_bytes()
    say(TUNE + " --label 1,2").check_sentence(2, "exists already")
    assert say(TUNE + " --label 1,2 --overwrite").code == 0
    assert (tmp_path / "tuned" / "digits-3.json").read_bytes() == content


def test_a_finished_run_is_in_nobodys_way(say: Say, tmp_path: Path) -> None:
    """A second checkpoint, or other settings, in the folder of the first."""
    assert say(TUNE).code == 0
    assert not list((tmp_path / "tuned" / "run").rglob("state-*"))
    assert say(TUNE + " --label 1 --overwrite").code == 0
    assert load_sampler(tmp_path / "tuned" / "digits-3.json").about["conditions"] == "classes 1"


def test_other_weights_and_another_guidance_are_noted(
    say: Say, tmp_path: Path, places: dict[str, Path]
) -> None:
    assert say(TUNE).code == 0
    path = tmp_path / "tuned" / "digits-3.json"
    assert "tuned for a guidance of 1, and this one is 2" in (
        say(SAMPLE + " --guidance 2 --output {out}").err
    )
    data = json.loads(path.read_text())
    data["about"]["weights"] = "others"
    path.write_text(json.dumps(data))
    assert "tuned for other weights" in say(SAMPLE + " --overwrite --output {out}").err
    checkpoint = load_checkpoint(places["digits"], LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    with pytest.warns(UserWarning, match="other weights"):
        recipe = checkpoint.settle(Recipe(load_sampler(path)))
    assert isinstance(recipe.sampler, TunedSampler)


def test_the_interval_of_guidance_is_part_of_the_purpose(say: Say, tmp_path: Path) -> None:
    guided = " --guidance 2 --guidance-interval 0.3,3"
    said = say(TUNE.replace("-steps 40", "-steps 100") + guided)  # the ODE jumps
    assert said.code == 0, said.err
    tuned = load_sampler(tmp_path / "tuned" / "digits-3.json")
    assert tuned.about["guidance_interval"] == (0.3, 3.0)
    assert "Guidance: 2 between 0.3 and 3." in tuned.description
    assert say(SAMPLE + guided + " --output {out}").err == ""
    said = say(SAMPLE + " --guidance 2 --overwrite --output {out}")
    assert "tuned for a guidance of 2 between 0.3 and 3, and this one is 2;" in said.err
    rescaled = guided + " --guidance-rescale 0.5 --overwrite"
    said = say(SAMPLE + rescaled + " --output {out}")
    assert "and this one is 2 between 0.3 and 3, rescaled by 0.5;" in said.err


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    say: Say, tmp_path: Path, places: dict[str, Path]
) -> None:
    """Up to rounding: they sum the gradient in another order."""
    assert say(TUNE).code == 0
    words = TUNE.format(digits=places["digits"], tmp=tmp_path / "two")
    # On a machine without GPUs, `--cpu` would start one process only.
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = [sys.executable, "-m", *launcher, "-m", "samplers", *words.split(), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 network evaluations") == 1
    one, two = (load_sampler(tmp_path / part / "tuned" / "digits-3.json") for part in ("", "two"))
    for ours, theirs in zip(one.table, two.table, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    assert two.about["after"] == pytest.approx(one.about["after"], rel=1e-2)


def test_a_teacher_that_has_not_converged_names_the_option(say: Say) -> None:
    said = say(TUNE.replace("-steps 40", "-steps 3"))
    said.check_sentence(2, "is allowed; take more --teacher-steps.")


@pytest.mark.parametrize(
    "option", ["--steps 3", "--grid karras", "--sigma-min 0.1", "--final zero"]
)
def test_a_tuned_sampler_has_its_own_grid(say: Say, tmp_path: Path, option: str) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "digits-3.json").write_text("{}")
    say(f"{SAMPLE} {option} --output {{out}}").check_sentence(2, "own steps and noise levels")


def test_what_is_no_tuned_sampler_is_refused(say: Say, tmp_path: Path) -> None:
    say(SAMPLE + " --output {out}").check_sentence(1, "no such file")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "digits-3.json").write_text("{}")
    say(SAMPLE + " --output {out}").check_sentence(1, "not the file of a tuned sampler")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--nfe 1", "can be tuned from 2 on"),
        ("--learn nodes", "give one or more of grid, times, weights"),
        ("--label 77", "There is no class 77"),
        ("--output {digits}/model_index.json/tuned", "is a file"),
    ],
)
def test_impossible_settings_are_refused(say: Say, options: str, why: str) -> None:
    said = say(f"{TUNE} {options}")
    assert said.code in (1, 2)
    assert why in said.err
    assert said.err.count("\n") == 1


# ------------------------------------------------------------------------- a network that restores

RESTORE = TUNE.replace("{digits}", "{restoration} {colours} {grey}").replace("0.02", "0.01")


def test_a_sampler_is_tuned_to_restore_images(
    say: Say, tmp_path: Path, places: dict[str, Path]
) -> None:
    said = say(RESTORE)
    assert said.code == 0, said.err
    tuned = load_sampler(tmp_path / "tuned" / "restoration-3.json")
    assert tuned.about["conditions"] == "images: noisy, rainy"
    assert (
        tuned.about["weights"] == read_folder(places["restoration"], False).identity().weights_hash
    )


def test_the_images_may_be_degraded_already(say: Say, tmp_path: Path) -> None:
    assert say(RESTORE + " --task noisy --size 8 --learning-rate 0.1").code == 0
    tuned = load_sampler(tmp_path / "tuned" / "restoration-3.json")
    assert tuned.about["conditions"] == "images: noisy"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (TUNE + " --size 8", "samples images from noise, so it has no --size"),
        (TUNE.replace("{digits}", "{digits} {grey}"), "so it has no IMAGES"),
        (TUNE.replace("{digits}", "{restoration}"), "name some, or a folder of them"),
        (RESTORE + " --guidance 2", "restores images, so it has no --guidance"),
        (RESTORE + " --degrade foggy", "no degradation named 'foggy'"),
        (RESTORE + " --degrade snowy", "There is no task 'snowy'; this network has noisy, rainy"),
        (RESTORE + " --task noisy --degrade rainy", "exclude each other"),
        (RESTORE + " --size 9", "8 x 8 pixels (width x height), and parts of 9 x 9 are needed"),
        (RESTORE.replace("{grey}", "{table}"), "can't be read as an image"),
        (RESTORE.replace("--nfe 3", "--nfe 1"), "can be tuned from 2 on"),
    ],
)
def test_what_another_kind_of_network_needs_is_refused(
    say: Say, tmp_path: Path, command: str, why: str
) -> None:
    said = say(command)
    assert said.code in (1, 2)
    assert why in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "tuned").exists()
