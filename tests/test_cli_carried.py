"""The sampler and the grid of a checkpoint's own SamplerScheduler, in the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from adjoint.finetune.config import SamplingSettings
from samplers import FittedGrid, SamplerScheduler, TunedSampler, load_grid
from samplers.checkpoint import LoadOptions, load_checkpoint, read_recipe, read_settings
from samplers.checkpoint.pipeline import PipelineCheckpoint
from samplers.images.files import read_parameters
from tests.commands import Said, Say
from tests.tiny_checkpoints import change, unconditional
from tests.tiny_tuned import as_if_tuned

OWN = "sample {own} --seeds 3"
PLAIN = "sample {plain} --seeds 3"
Carry = Callable[..., Path]


@pytest.fixture
def carry(say: Say, tmp_path: Path) -> Carry:
    """Makes {own}: {plain} with a scheduler of these settings."""

    def make(**settings: Any) -> Path:
        scheduler = SamplerScheduler.from_config(DDIMScheduler(), **settings)
        say.places["own"] = unconditional(tmp_path / "own", scheduler)
        return tmp_path / "own"

    return make


@pytest.fixture
def fitted(say: Say, tmp_path: Path) -> FittedGrid:
    command = "fit-grid {plain} --steps 3 --samples 2 --sampler ddim --output {tmp}/fitted"
    assert say(command).code == 0
    return load_grid(tmp_path / "fitted" / "plain-3.json")


@pytest.fixture
def tuned(places: dict[str, Path], tmp_path: Path) -> TunedSampler:
    found = as_if_tuned(read_settings(places["plain"]).schedule)
    found.save(tmp_path / "tuned.json")
    return found


def same(say: Say, first: str, second: str) -> Said:
    """Both commands write the same pixels; returns what the first said."""
    said, pixels = [], []
    for number, command in enumerate((first, second)):
        said.append(say(f"{command} --output {{tmp}}/{number}.png --overwrite"))
        assert said[-1].code == 0, said[-1].err
        with Image.open(say.places["tmp"] / f"{number}.png") as image:
            pixels.append(np.asarray(image))
    assert (pixels[0] == pixels[1]).all()
    return said[0]


def test_a_sampler_by_name(say: Say, carry: Carry, tmp_path: Path) -> None:
    options = {"sampler": "ancestral", "sampler_options": {"eta": 0.5}}
    carry(**options, grid="karras", noise="brownian")
    named = "--sampler ancestral --option eta=0.5 --grid karras --noise brownian"
    said = same(say, OWN, f"{PLAIN} {named}")
    assert "ancestral (the checkpoint's) on the checkpoint's grid karras, 20 steps" in said.out
    about = read_parameters(tmp_path / "0.png")
    assert about is not None
    assert named in about["command"].replace("--steps 20 ", "")
    same(say, OWN + " --option eta=0.9", f"{PLAIN} {named} --option eta=0.9")
    other = " --sampler ddim --grid uniform --steps 4"
    assert "checkpoint" not in same(say, OWN + other, PLAIN + other).out


def test_a_tuned_sampler(say: Say, carry: Carry, tmp_path: Path, tuned: TunedSampler) -> None:
    carry(sampler=tuned)
    said = same(say, OWN, PLAIN + " --sampler {tmp}/tuned.json")
    assert "the tuned sampler of the checkpoint, 4 network evaluations each" in said.out
    assert said.err == ""
    about = read_parameters(tmp_path / "0.png")
    assert about is not None
    assert about["tuned_sha256"] == tuned.digest
    say(OWN + " --steps 5 --output {out}").check_sentence(2, "own steps and noise levels")
    same(say, OWN + " --sampler ddim", PLAIN + " --sampler ddim")
    say("fit-grid {own} --steps 3 --output {tmp}/f").check_sentence(2, "another as --sampler")


def test_a_fitted_grid(say: Say, carry: Carry, tmp_path: Path, fitted: FittedGrid) -> None:
    carry(sampler="ddim", grid=fitted)
    file = " --grid {tmp}/fitted/plain-3.json"
    said = same(say, OWN, f"{PLAIN} --sampler ddim{file}")
    assert "ddim (the checkpoint's) on the checkpoint's fitted grid, 3 steps" in said.out
    assert said.err == ""
    about = read_parameters(tmp_path / "0.png")
    assert about is not None
    assert (about["grid"], "--grid" in about["command"]) == ("fitted", False)
    other = read_parameters(tmp_path / "1.png")
    assert other is not None
    assert about["grid_sha256"] == other["grid_sha256"]
    say(OWN + " --steps 5 --output {out}").check_sentence(2, "fitted for 3 steps")
    same(say, OWN + " --grid uniform", f"{PLAIN} --sampler ddim --grid uniform")
    own, named = say("show ddim --checkpoint {own}"), say(f"show ddim --checkpoint {{plain}}{file}")
    assert own.out == named.out


def test_inverse_problems(say: Say, carry: Carry, tuned: TunedSampler) -> None:
    task = "colorize {{{}}} {{grey}} --seeds 2 --method replacement {}"
    carry()
    same(say, task.format("own", ""), task.format("plain", ""))
    carry(sampler="ddim", grid="uniform")
    named = "--sampler ddim --grid uniform"
    assert "replacement, ddim" in same(
        say, task.format("own", ""), task.format("plain", named)
    ).out  # fmt: skip
    carry(sampler=tuned)
    same(say, task.format("own", ""), task.format("plain", "--sampler {tmp}/tuned.json"))


def test_fine_tuning(carry: Carry, tuned: TunedSampler, fitted: FittedGrid) -> None:
    own = read_recipe(carry(sampler="ancestral", sampler_options={"eta": 0.5}, grid=fitted))
    recipe = SamplingSettings(options={"churn": 1}).recipe(own)
    assert (recipe.sampler, recipe.steps) == ("ancestral", 3)
    assert recipe.options == {"eta": 0.5, "churn": 1}
    named = SamplingSettings(sampler="ddim", grid="uniform").recipe(own)
    assert (named.sampler, named.grid, named.steps, named.options) == ("ddim", "uniform", 10, {})
    own = read_recipe(carry(sampler=tuned))
    assert isinstance(SamplingSettings().recipe(own).sampler, TunedSampler)
    with pytest.raises(ValueError, match="its own steps"):
        SamplingSettings(steps=5).recipe(own)


def test_a_pipeline_with_a_prompt(say: Say, tmp_path: Path) -> None:
    """As it samples itself, also on a fitted grid."""
    loaded = load_checkpoint(say.places["prompts"], LoadOptions())
    assert isinstance(loaded, PipelineCheckpoint)
    pipe, schedule = loaded.pipeline, loaded.settings.schedule
    levels = as_if_tuned(schedule, 3).table.levels
    about: Any = {**as_if_tuned(schedule).about, "sampler": "ddim", "criterion": "error"}
    grid = FittedGrid(levels, about | {"pilots": 1, "evaluations": 1})
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler, sampler="ddim", grid=grid)
    say.places["own"] = tmp_path / "own"
    pipe.save_pretrained(tmp_path / "own")
    command = "sample {own} --prompt abc --seeds 1 --guidance 1 --output {tmp}/all"
    said = say(command)
    assert (said.code, said.err) == (0, "")
    assert "on the checkpoint's fitted grid, 3 steps" in said.out
    noise = torch.Generator().manual_seed(1)
    (image,) = pipe(["abc"], num_inference_steps=3, guidance_scale=1.0, generator=noise).images
    with Image.open(tmp_path / "all" / "seed-00000001.png") as found:
        assert (np.asarray(found) == np.asarray(image)).all()


def test_a_damaged_one_is_refused(say: Say, carry: Carry) -> None:
    change(carry() / "scheduler" / "scheduler_config.json", sampler={"format": "other"})
    said = say(OWN + " --output {out}")
    said.check_sentence(1, "scheduler_config.json can't be used: The sampler of the scheduler is")
