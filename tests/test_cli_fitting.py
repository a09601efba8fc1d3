"""``samplers fit-grid``, and fitted grids in the commands that take a grid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from samplers import FittedGrid, load_grid
from samplers.images.files import read_parameters
from tests.commands import Say

FIT = "fit-grid {digits} --steps 3 --samples 3 --output {tmp}/fitted"
GRID = "--grid {tmp}/fitted/digits-3.json"
SAMPLE = f"sample {{digits}} {GRID} --num-images 2 --label 1"


@pytest.fixture
def fitted(say: Say, tmp_path: Path) -> FittedGrid:
    said = say(FIT + " --label 1,2")
    assert said.code == 0, said.err
    found = load_grid(tmp_path / "fitted" / "digits-3.json")
    assert f"{found.about['evaluations']:,} network evaluations" in said.out
    return found


def test_a_fitted_grid_is_written_and_sampled_with(
    say: Say, tmp_path: Path, fitted: FittedGrid
) -> None:
    assert fitted.steps == 3
    assert fitted.about["conditions"] == "classes 1, 2"
    assert fitted.about["weights"] is not None
    found = say(SAMPLE + " --output {out}")
    assert (found.code, found.err) == (0, "")
    assert "3 steps" in found.out
    about = read_parameters(tmp_path / "out.png")
    assert about is not None
    assert about["grid"].endswith("digits-3.json")
    assert about["steps"] == 3
    say(FIT).check_sentence(2, "exists already")


def test_other_commands_take_it(say: Say, fitted: FittedGrid) -> None:
    compare = "compare {digits} --samplers ddim --nfe 2,3 --label 1 --reference-steps 4"
    said = say(f"{compare} {GRID} --output {{out}}")
    assert said.code == 0, said.err
    assert "needs more" in said.out
    assert "fitted for the sampler" in said.err
    colorize = "colorize {plain} {grey} --sampler ddim --num-images 1 --overwrite"
    said = say(f"{colorize} {GRID} --output {{out}}")
    assert said.code == 0, said.err
    assert "fitted for other weights" in said.err
    assert say(f"show ddim --checkpoint {{digits}} {GRID}").out.count("evaluate at") == 3


def test_other_weights_samplers_and_guidance_are_noted(
    say: Say, tmp_path: Path, fitted: FittedGrid
) -> None:
    assert "fitted for a guidance of 1, and this one is 2" in (
        say(SAMPLE + " --guidance 2 --output {out}").err
    )
    assert (
        "fitted for the sampler" in say(SAMPLE + " --sampler ddim --overwrite --output {out}").err
    )
    path = tmp_path / "fitted" / "digits-3.json"
    data = json.loads(path.read_text())
    data["about"]["weights"] = "others"
    path.write_text(json.dumps(data))
    assert "fitted for other weights" in say(SAMPLE + " --overwrite --output {out}").err


def test_what_does_not_fit_is_refused(say: Say, tmp_path: Path, fitted: FittedGrid) -> None:
    say(SAMPLE + " --steps 4 --output {out}").check_sentence(2, "fitted for 3 steps")
    say(SAMPLE + " --sigma-min 0.1 --output {out}").check_sentence(2, "--sigma-min is not for")
    say(f"show ddim --schedule flow {GRID}").check_sentence(2, "fitted for a network trained from")
    (tmp_path / "fitted" / "digits-3.json").write_text("{")
    say(SAMPLE + " --output {out}").check_sentence(1, "not the file of a fitted grid")
    say("sample {digits} --grid none.json --output {out}").check_sentence(1, "no such file")
    say("sample {digits} --grid none --output {out}").check_sentence(
        2, "The grid is 'none'; it must be"
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--steps 1", "can be fitted from 2 on"),
        ("--sampler ancestral", "stochastic"),
        ("--sampler dopri5", "adaptive step sizes"),
        ("--criterion speed", "speed"),
        ("--budget 20", "20 are allowed; take fewer steps, or a larger budget"),
        ("--label 77", "There is no class 77"),
        ("--output {digits}/model_index.json/fitted", "is a file"),
    ],
)
def test_impossible_settings_are_refused(say: Say, options: str, why: str) -> None:
    said = say(f"{FIT} {options}")
    assert said.code in (1, 2)
    assert why in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("wrong", ["--steps 1", "--steps 3000", "--steps 3 --sampler ancestral"])
def test_bad_input_leaves_no_folder(say: Say, tmp_path: Path, wrong: str) -> None:
    said = say(f"fit-grid {{digits}} {wrong} --output {{tmp}}/none")
    assert said.code != 0
    assert not (tmp_path / "none").exists()
