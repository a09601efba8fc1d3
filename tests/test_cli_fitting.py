"""``samplers fit-grid``, and fitted grids in the commands that take a grid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from samplers import Denoiser, FittedGrid, VPLinear, load_grid, sample
from samplers.checkpoint import read_settings
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.images.files import read_parameters
from tests.commands import Say
from tests.tiny_tuned import as_if_tuned

FIT = "fit-grid {digits} --steps 3 --samples 3 --output {tmp}/fitted"
GRID = "--grid {tmp}/fitted/digits-3.json"
SAMPLE = f"sample {{digits}} {GRID} --num-images 2 --label 1"


@pytest.fixture
def fitted(say: Say, tmp_path: Path) -> FittedGrid:
    said = say(FIT + " --label 1,2")
    assert said.code == 0, said.err
    found = load_grid(tmp_path / "fitted" / "digits-3.json")
    assert f"{found.about['evaluations']:,} network evaluations" in said.out
    assert f"; default grid {DEFAULT_SPACING}, last noise level 0." in said.out
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


# ----------------------------------------------------------- files in the place of other files


def test_it_is_shown_and_listed(say: Say, fitted: FittedGrid) -> None:
    said = say("show {tmp}/fitted/digits-3.json")
    assert said.out.startswith(f"A fitted grid of 3 steps for the sampler {DEFAULT_SAMPLER}.")
    assert "default grid log-flow, last noise level" in said.out
    assert "Pass it as --grid" in said.out
    assert "Conditions: classes 1, 2." in said.out
    sentence = f"name it first, as in `samplers show {DEFAULT_SAMPLER} --grid"
    say("show {tmp}/fitted/digits-3.json --json").check_sentence(2, sentence)
    for folder in ("{tmp}/fitted", "{tmp}"):  # its own, and the one above
        said = say(f"list {folder}")
        assert re.search(rf"digits-3.json +{DEFAULT_SAMPLER} +3 +1 +[\d.]+ +[\d.]+ ", said.out)
    (facts,) = json.loads(say("list {tmp}/fitted --json").out)
    assert (facts["steps"], facts["sampler"]) == (3, DEFAULT_SAMPLER)


def test_a_file_of_another_kind_says_where_it_goes(
    say: Say, tmp_path: Path, fitted: FittedGrid, places: dict[str, Path]
) -> None:
    as_if_tuned(read_settings(places["digits"]).schedule).save(tmp_path / "tuned.json")
    for command in ("sample {digits}", "colorize {plain} {grey}", "restore {restoration} {grey}"):
        said = say(command + " --sampler {tmp}/fitted/digits-3.json --output {out}")
        said.check_sentence(2, f"is a fitted grid, for the sampler {DEFAULT_SAMPLER!r}; pass it as")
    for command in ("sample {digits}", "colorize {plain} {grey}"):
        said = say(command + " --grid {tmp}/tuned.json --output {out}")
        said.check_sentence(2, "is a tuned sampler, which has its own noise levels; pass it as")
    both = say("list {tmp}").out
    assert both.index("tuned.json") < both.index("digits-3.json")


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        ("sample {digits} --sampler {tmp} --output {out}", 2, "is a folder; name one of its files"),
        ("show {tmp}", 2, "is a folder; name one of its files"),
        ("compare {digits} --samplers {tmp} --output {out}", 2, "no tuned sampler and no fitted"),
        ("list {digits}/model_index.json", 2, "is a file; name its folder"),
        ("list {tmp}", 1, "no tuned sampler and no fitted grid in"),
    ],
)
def test_a_folder_in_the_place_of_a_file(say: Say, command: str, code: int, why: str) -> None:
    say(command).check_sentence(code, why)


def test_a_folder_with_the_name_of_a_sampler_hides_none(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ddim").mkdir()
    monkeypatch.chdir(tmp_path)
    compare = "compare {digits} --samplers ddim --nfe 2 --label 1 --reference-steps 4"
    assert "ddim     0" in say(compare + " --output {out}").out


def test_compare_puts_it_beside_the_default_grid(say: Say, fitted: FittedGrid) -> None:
    rows = f"--samplers {DEFAULT_SAMPLER},{{tmp}}/fitted/digits-3.json"
    options = "--nfe 2,3 --label 1 --reference-steps 4 --output {out} --overwrite"
    said = say(f"compare {{digits}} {rows} {options}")
    assert (said.code, said.err) == (0, "")
    assert "over 1 image (seed 0), from the same initial noise" in said.out
    default, own = said.out.splitlines()[-4:-2]
    assert "needs more" in own
    assert "needs more" not in default
    assert own.split()[-3] != default.split()[-3]
    alone = say(f"compare {{digits}} --samplers {DEFAULT_SAMPLER} {GRID} {options}").out
    assert alone.splitlines()[-3].split()[-3:] == own.split()[-3:]
    said = say(f"compare {{digits}} {rows} {options} --seeds 3-5,9")
    assert "over 4 images (seeds 3-5,9), from" in said.out


def test_in_python_a_file_is_no_name() -> None:
    model = Denoiser(lambda x, t: x, VPLinear(), prediction="epsilon")
    name: Any = "fitted/x.json"
    with pytest.raises(ValueError, match="a file of a fitted grid is no name: load_grid reads it"):
        sample(model, model.initial((3,), seeds=[0]), grid=name)


@pytest.mark.parametrize(
    "command", ["fit-grid {prompts} --steps 3", "tune {prompts} --nfe 3"], ids=["fit-grid", "tune"]
)
def test_a_pipeline_with_a_prompt_is_for_python(say: Say, command: str) -> None:
    function = command.split(maxsplit=1)[0].replace("-", "_")
    said = say(command + " --output {tmp}/none")
    said.check_sentence(2, f"With a prompt, call samplers.{function}(pipeline_denoiser(pipe)")
