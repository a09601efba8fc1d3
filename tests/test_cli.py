"""The command line, run in this process and, where it matters, in processes of its own."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samplers import get_sampler, list_samplers
from samplers.checkpoint import (
    LoadOptions,
    NetworkCheckpoint,
    Recipe,
    load_checkpoint,
    network,
)
from samplers.choices import DEFAULT_SAMPLER, DEFAULT_SPACING
from samplers.cli import main
from samplers.cli.common.jobs import plan
from samplers.cli.common.text import evaluations_each, plain
from samplers.cli.sample import SampleOptions
from samplers.diffusers.settings import call_unet
from samplers.errors import NotFiniteError
from samplers.files import replacing
from samplers.images.files import read_parameters
from samplers.tableau import Tableau
from tests import tiny_checkpoints
from tests.commands import parsed
from tests.tiny_checkpoints import change

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def digits(root: Path) -> Path:
    """A checkpoint of three classes."""
    return tiny_checkpoints.of_classes(root / "classes")


@pytest.fixture(scope="module")
def prompts(root: Path) -> Path:
    return tiny_checkpoints.of_prompts(root / "prompts")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were drawn, in order."""
    seen: list[int] = []
    original = NetworkCheckpoint.draw

    def draw(
        self: NetworkCheckpoint, recipe: Recipe, seeds: Sequence[int], labels: Any, tick: Any
    ) -> Tensor:
        images = original(self, recipe, seeds, labels, tick)
        seen.extend(seeds)
        return images

    monkeypatch.setattr(NetworkCheckpoint, "draw", draw)
    return seen


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; returns the exit code, and what it wrote to stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


Say = Callable[..., tuple[int, str, str]]


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names(*seeds: int) -> set[str]:
    return {f"seed-{seed:08d}.png" for seed in seeds}


# ------------------------------------------------------------------------------- list and show


@pytest.mark.parametrize("name", list_samplers())
def test_descriptions_are_printed_without_markup(name: str) -> None:
    printed = plain(get_sampler(name).description)
    assert not re.search(r"`|:\w+:|\.\. \w+::", printed), printed
    assert "adams_bashforth_moulton of order 3" in plain(get_sampler(DEFAULT_SAMPLER).description)


def test_list_shows_every_sampler(say: Say) -> None:
    code, out, _ = say("list")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert set(list_samplers("fixed-grid")) <= set(rows)
    assert max(len(line) for line in out.splitlines()) <= 100
    assert re.search(r" 2 +- +1 .*2211\.01095", rows["dpmpp-2m"])


def test_list_as_json_and_by_alias(say: Say) -> None:
    rows = json.loads(say("list", "--json")[1])
    fixed = [row for row in rows if not row["adaptive"]]
    assert [row["name"] for row in fixed] == list_samplers("fixed-grid")
    assert [row["name"] for row in rows] == [
        *list_samplers("fixed-grid"),
        *list_samplers("adaptive"),
    ]
    assert all(row["stochastic"] == (row["weak_order"] is not None) for row in fixed)
    aliases = say("list", "--aliases")[1]
    assert "dpm-solver-multistep" in aliases
    assert "dopri5" in aliases


def test_list_shows_the_adaptive_methods(say: Say) -> None:
    out = say("list")[1]
    assert re.search(r"^dormand-prince +5 \(4\) +6 +Dormand", out, flags=re.MULTILINE)
    assert re.search(r"^dpm-solver-23 +3 \(2\) +3 +Lu", out, flags=re.MULTILINE)


def test_show_prints_the_tableau(say: Say, digits: Path) -> None:
    code, out, _ = say("show", "DPMSolverMultistepScheduler", "--steps", 3)
    assert code == 0
    assert "dpmpp-2m: order 2" in out
    assert "2211.01095, algorithm 2" in out
    assert r"\Big[" in out
    assert "D[1]" in out
    noisy = say("show", "ancestral", "--steps", 3, "--option", "eta=0.5", "--grid", "karras")
    assert " z " in noisy[1]
    assert "t = 999 " in say("show", "heun", "--checkpoint", digits)[1]


def test_show_has_the_grid_of_the_checkpoint(say: Say, digits: Path) -> None:
    """By default that of ``sample``; the config's, as everywhere, if it is named."""
    spacing = json.loads((digits / "scheduler/scheduler_config.json").read_text())[
        "timestep_spacing"
    ]

    def shown(*options: str) -> str:
        return say("show", "ddim", "--checkpoint", digits, "--json", *options)[1]

    assert shown() == shown("--grid", DEFAULT_SPACING) != shown("--grid", "config")
    assert shown("--grid", "config") == shown("--grid", spacing)


def test_show_ends_where_the_checkpoint_says(say: Say, digits: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text()) | {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "final_sigmas_type": "sigma_min",
    }
    path.write_text(json.dumps(config))
    words = ("show", "ddim", "--steps", "2", "--json", "--checkpoint")
    tables = [Tableau.from_json(say(*words, folder)[1]) for folder in (digits, copy)]
    trained, noisy = (float(table.rows[-1].reached.sigma[-1]) for table in tables)
    assert trained == 0
    assert noisy > 0


def test_show_as_json_can_be_read_again(say: Say) -> None:
    out = say("show", "unipc-2", "--steps", 4, "--schedule", "edm", "--json")[1]
    assert Tableau.from_json(out).calls == 4


def test_the_listing_needs_no_diffusers() -> None:
    code = "import sys; from samplers.cli import main; main(['list']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "diffusers" not in done.stdout.splitlines()[-1].split()


# -------------------------------------------------------------------------------------- sample


def test_a_picture(say: Say, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "picture.png"
    code, out, err = say(
        "sample", digits, "--label", 2, "--steps", 3, "--num-images", 4, "--output", path
    )
    assert (code, err) == (0, "")
    assert f"4 images: {DEFAULT_SAMPLER}, 3 steps, 3 network evaluations each" in out
    assert pixels(path).shape == (2 * 96 + 9, 2 * 96 + 9)
    found = read_parameters(path)
    assert found is not None
    assert (found["sampler"], found["grid"]) == (DEFAULT_SAMPLER, DEFAULT_SPACING)
    assert found["labels"] == [2, 2, 2, 2]
    assert found["seeds"] == [0, 1, 2, 3]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "options",
    [
        "--sampler euler_a --option eta=0.5 --steps 3 --seeds 4,7-9",
        "--grid karras --sigma-min 0.05 --sigma-max 20 --final sigma_min --steps 4 --seed 3",
        "--guidance 1.5 --guidance-rescale 0.3 --label 0,2 --num-images 5 --dtype float64",
        "--guidance 4 --guidance-interval 0.5,6 --label 1 --steps 4 --num-images 2",
        "--sampler sde-dpmpp-2m --noise brownian --steps 3 --seeds 2,5",
        "--sampler rk23 --tolerance 0.05 --max-nfe 40 --sigma-min 0.05 --seeds 0-3",
    ],
)
def test_the_stored_command_draws_it_again(
    say: Say, digits: Path, tmp_path: Path, options: str
) -> None:
    """From a single image, from the sheet of a folder and from a picture."""
    folder, picture, again = tmp_path / "folder", tmp_path / "picture.png", tmp_path / "again.png"
    for output in (folder, picture):
        assert say("sample", digits, *options.split(), "--output", output)[0] == 0
    singles = sorted(folder.glob("seed-*.png"))
    for path in (picture, folder / "grid.png", singles[-1]):
        found = read_parameters(path)
        assert found is not None
        words = shlex.split(found["command"])
        assert words[0] == "samplers"
        assert say(*words[1:-1], again, "--overwrite")[0] == 0
        if path in singles:
            single = pixels(path)
            assert (single == pixels(again)[3::12, 3::12][:8, :8]).all()
        else:
            assert (pixels(path) == pixels(again)).all()


def test_the_command_of_some_images_names_their_classes(digits: Path, tmp_path: Path) -> None:
    """Of several processes one may be ahead, so that those at hand are no turn of the classes."""
    command = f"samplers sample {digits} --label 0,1,2 --num-images 6 --output {tmp_path}"
    job = plan(SampleOptions(**parsed(command)))
    for places, labels in (((0, 1, 2, 3, 4), "0,1,2"), ((0, 1, 2, 4), "0,1,2,1"), ((4, 5), "1,2")):
        command = job.parameters([job.items[place] for place in places], "x.png")["command"]
        assert f"--label {labels} " in command


def test_the_classes_are_taken_in_turn(say: Say, digits: Path, tmp_path: Path) -> None:
    code, _, err = say("sample", digits, "--steps", 2, "--num-images", 6, "--output", tmp_path)
    assert code == 0
    assert "taking the 3 classes in turn" in err
    found = read_parameters(tmp_path / "grid.png")
    assert found is not None
    assert found["labels"] == [0, 1, 2, 0, 1, 2]
    assert pixels(tmp_path / "grid.png").shape == (2 * 99 + 3, 3 * 99 + 3)


def test_the_same_image_at_any_batch_size(say: Say, digits: Path, tmp_path: Path) -> None:
    options = ["--sampler", "sde-dpmpp-2m", "--label", 1, "--steps", 3]
    for size in (1, 3, 5):
        code = say(
            "sample", digits, *options, "--seeds", "0-4", "--batch-size", size, "--output",
            tmp_path / str(size),
        )[0]  # fmt: skip
        assert code == 0
    say("sample", digits, *options, "--seed", 3, "--num-images", 1, "--output", tmp_path / "alone")
    for name in names(0, 1, 2, 3, 4):
        for other in ("3", "5"):
            difference = pixels(tmp_path / "1" / name) - pixels(tmp_path / other / name)
            assert abs(difference).max() <= 1
    three = next(iter(names(3)))
    assert (pixels(tmp_path / "alone" / three) == pixels(tmp_path / "1" / three)).all()


def test_prompts(say: Say, prompts: Path, tmp_path: Path) -> None:
    options = ["--prompt", "a cat", "--steps", 2, "--seeds", "1,2", "--guidance", 3]
    for size in (1, 2):
        output = tmp_path / str(size)
        code = say("sample", prompts, *options, "--batch-size", size, "--output", output)[0]
        assert code == 0
    for name in (*names(1, 2), "grid.png"):
        assert abs(pixels(tmp_path / "1" / name) - pixels(tmp_path / "2" / name)).max() <= 1
    found = read_parameters(tmp_path / "1" / "seed-00000002.png")
    assert found is not None
    assert (found["prompt"], found["guidance"], found["labels"]) == ("a cat", 3.0, None)


def test_brownian_noise(say: Say, digits: Path, prompts: Path, tmp_path: Path) -> None:
    """Another image, which says so, from a network and from a pipeline."""
    for number, words in enumerate(([digits, "--label", 1], [prompts, "--prompt", "a cat"])):
        common = ["--sampler", "ancestral", "--steps", 3, "--num-images", 1, "--output"]
        paths = {kind: tmp_path / f"{number}-{kind}.png" for kind in ("independent", "brownian")}
        for kind, path in paths.items():
            assert say("sample", *words, "--noise", kind, *common, path)[0] == 0
            found = read_parameters(path)
            assert found is not None
            assert found["noise"] == kind
            assert f"--noise {kind}" in found["command"]
        assert (pixels(paths["independent"]) != pixels(paths["brownian"])).any()


# ----------------------------------------------------------------------------- steps that adapt


def test_adaptive_steps(say: Say, digits: Path, tmp_path: Path) -> None:
    words = ["sample", digits, "--sampler", "dopri5", "--label", 1, "--seeds", "0-4"]
    code, out, _ = say(*words, "--output", tmp_path / "picture.png")
    assert code == 0
    found = read_parameters(tmp_path / "picture.png")
    assert found is not None
    calls = found["network_calls"]
    assert len(calls) == 5
    told = evaluations_each(calls)
    assert f"5 images: dormand-prince at tolerance 0.01, {told}" in out
    assert found["within_tolerance"] == [True] * 5
    assert "steps" not in found
    assert say(*words, "--batch-size", 2, "--output", tmp_path / "folder")[0] == 0
    single = read_parameters(tmp_path / "folder" / next(iter(names(3))))
    assert single is not None
    assert single["network_calls"] == calls[3:4]
    assert "0 images sampled, 5 kept" in say(*words, "--output", tmp_path / "folder")[1]
    code, _, err = say(*words, "--max-nfe", 30, "--output", tmp_path / "folder")
    assert (code, "max_nfe: 500, not 30" in err) == (2, True)


def test_adaptive_steps_that_run_out_of_calls(say: Say, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    words = ["--sampler", "rk23", "--tolerance", 1e-5, "--max-nfe", 10, "--num-images", 3]
    code, out, _ = say("sample", digits, *words, "--output", path)
    assert code == 0
    assert "3 of 3 images not within it" in out
    found = read_parameters(path)
    assert found is not None
    assert found["within_tolerance"] == [False] * 3


# -------------------------------------------------------------- images that depend on their batch


BATCHED = ["--sampler", "ancestral+langevin", "--steps", 3, "--label", "0,1"]


def test_the_batch_is_a_setting_where_it_decides(say: Say, digits: Path, tmp_path: Path) -> None:
    folder, picture = tmp_path / "folder", tmp_path / "picture.png"
    words = ["sample", digits, *BATCHED, "--seeds", "0-4", "--output", folder, "--batch-size"]
    assert say(*words, 2)[0] == 0
    found = read_parameters(folder / next(iter(names(3))))
    assert found is not None
    assert (found["batch_seeds"], found["batch_labels"]) == ([2, 3], [0, 1])
    code, _, err = say(*words, 3)
    assert code == 2
    assert "batch_seeds: [0, 1], not [0, 1, 2]" in err
    assert "0 images sampled, 5 kept" in say(*words, 2)[1]
    assert say("sample", digits, *BATCHED, "--batch-size", 3, "--output", picture)[0] == 0
    of_picture = read_parameters(picture)
    assert of_picture is not None
    assert "--batch-size 3" in of_picture["command"]


def test_a_batch_is_drawn_whole_again(
    say: Say, digits: Path, tmp_path: Path, drawn: list[int]
) -> None:
    """Where one of its images is missing; what is there comes out as it was."""
    words = ["sample", digits, *BATCHED, "--seeds", "0-4", "--batch-size", 2, "--output", tmp_path]
    assert say(*words)[0] == 0
    before = contents(tmp_path)
    drawn.clear()
    (tmp_path / next(iter(names(3)))).unlink()
    code, out, _ = say(*words)
    assert code == 0
    assert "2 images sampled, 3 kept" in out
    assert drawn == [2, 3]
    assert contents(tmp_path) == before


def test_the_stored_command_draws_the_batch(say: Say, digits: Path, tmp_path: Path) -> None:
    folder, again = tmp_path / "folder", tmp_path / "again"
    words = ["sample", digits, *BATCHED, "--seeds", "0-4", "--batch-size", 2, "--output", folder]
    assert say(*words)[0] == 0
    path = folder / next(iter(names(2)))
    found = read_parameters(path)
    assert found is not None
    assert say(*shlex.split(found["command"])[1:-1], again)[0] == 0
    assert (pixels(path) == pixels(again / path.name)).all()


# --------------------------------------------------------------------------------- trajectories


def test_a_trajectory(say: Say, digits: Path, tmp_path: Path) -> None:
    words = ["sample", digits, "--steps", 4, "--label", 1, "--num-images", 3, "--output"]
    gif, strip, last = tmp_path / "run.gif", tmp_path / "run.png", tmp_path / "last.png"
    film = tmp_path / "run.mp4"
    for path in (gif, film, strip):
        code, out, _ = say(*words, last, "--overwrite", "--trajectory", path)
        assert code == 0
        assert f"trajectory of 3 images -> {path}" in out
    with Image.open(gif) as animation:
        animation.seek(animation.n_frames - 1)  # type: ignore[attr-defined]
        final = np.asarray(animation.convert("L")).astype(int)
    assert (final == pixels(last)).all()
    with av.open(film) as played:
        *_, still = played.decode(video=0)
    lossy = still.to_ndarray(format="gray").astype(int)
    assert np.abs(lossy - pixels(last)[: len(lossy), : lossy.shape[1]]).mean() < 8
    assert pixels(strip).shape == (3 * 99 + 3, 5 * 99 + 3)
    assert set(contents(tmp_path)) == {"run.gif", "run.mp4", "run.png", "last.png"}


def test_a_long_trajectory_is_thinned_out(say: Say, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.png"
    words = ["--steps", 30, "--label", 1, "--num-images", 1, "--output", tmp_path / "x.png"]
    assert say("sample", digits, *words, "--trajectory", path)[0] == 0
    assert pixels(path).shape == (99 + 3, 12 * 99 + 3)


def test_an_interrupted_trajectory_leaves_nothing(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--steps", 3, "--label", 1, "--num-images", 1, "--output", tmp_path / "x.png"]
    interrupting(monkeypatch, KeyboardInterrupt(), after=4)
    code = say("sample", digits, *words, "--trajectory", tmp_path / "run.gif")[0]
    assert code == 130
    assert set(contents(tmp_path)) == {"x.png"}


# ------------------------------------------------------------------------------ going on, again


def test_nothing_is_drawn_twice(say: Say, digits: Path, tmp_path: Path, drawn: list[int]) -> None:
    def command(seeds: str) -> tuple[int, str, str]:
        return say(
            "sample", digits, "--label", 1, "--steps", 2, "--seeds", seeds, "--output", tmp_path
        )

    assert command("0-2")[0] == 0
    before = contents(tmp_path)
    assert command("0-4")[0] == 0
    assert drawn == [0, 1, 2, 3, 4]
    after = contents(tmp_path)
    assert all(after[name] == before[name] for name in names(0, 1, 2))
    assert set(after) == names(0, 1, 2, 3, 4) | {"grid.png"}
    assert "0 images sampled, 5 kept" in command("0-4")[1]
    assert drawn == [0, 1, 2, 3, 4]


def interrupting(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int) -> None:
    """Have the network raise an error at a call."""
    original, calls = network._call, 0

    def call(unet: Any, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        return original(unet, x, t, labels)

    monkeypatch.setattr(network, "_call", call)


def test_an_interrupted_job_goes_on(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[int]
) -> None:
    words = ["sample", digits, "--label", 1, "--steps", 2, "--seeds", "0-4", "--batch-size", 2]
    words += ["--output", tmp_path / "job"]
    with monkeypatch.context() as patch:
        interrupting(patch, KeyboardInterrupt(), after=5)
        code, _, err = say(*words)
    assert code == 130
    assert "4 of 5 images are finished" in err
    assert "run the same command again" in err
    assert set(contents(tmp_path / "job")) == names(0, 1, 2, 3)
    assert say(*words)[0] == 0
    assert drawn == [0, 1, 2, 3, 4]
    assert say(*words[:-1], tmp_path / "whole")[0] == 0
    assert contents(tmp_path / "whole") == contents(tmp_path / "job")


def test_other_settings_are_not_mixed(say: Say, digits: Path, tmp_path: Path) -> None:
    words = ["sample", digits, "--label", 1, "--num-images", 2, "--output", tmp_path, "--steps"]
    assert say(*words, 2)[0] == 0
    before = contents(tmp_path)
    code, _, err = say(*words, 3)
    assert code == 2
    assert "other settings (steps: 2, not 3)" in err
    assert "--overwrite" in err
    assert contents(tmp_path) == before
    assert say(*words, 3, "--overwrite")[0] == 0
    assert "0 images sampled, 2 kept" in say(*words, 3)[1]


def test_another_scheduler_of_the_same_weights_is_another_setting(
    say: Say, digits: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(digits, tmp_path / "model"))
    words = ["sample", folder, "--label", 1, "--num-images", 1, "--steps", 2]
    assert say(*words, "--output", tmp_path / "out")[0] == 0
    change(folder / "scheduler" / "scheduler_config.json", beta_schedule="squaredcos_cap_v2")
    code, _, err = say(*words, "--output", tmp_path / "out")
    assert code == 2
    assert "(scheduler: beta_schedule: linear, not squaredcos_cap_v2)" in err


def test_a_foreign_picture_is_not_overwritten(say: Say, digits: Path, tmp_path: Path) -> None:
    words = ["sample", digits, "--label", 1, "--steps", 2, "--num-images", 1, "--output", tmp_path]
    path = tmp_path / "seed-00000000.png"
    Image.new("L", (8, 8)).save(path)
    assert say(*words)[0] == 2
    path.write_bytes(b"\x89PNG half a picture")
    assert say(*words)[0] == 2
    assert say(*words, "--overwrite")[0] == 0
    assert read_parameters(path) is not None


def test_not_finite_keeps_what_was_finished(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sample", digits, "--label", 1, "--steps", 2, "--seeds", "0-3", "--batch-size", 2]
    original = network._call
    calls = 0

    def call(unet: Any, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        nonlocal calls
        calls += 1
        output = original(unet, x, t, labels)
        return output * torch.inf if calls % 4 == 0 else output

    monkeypatch.setattr(network, "_call", call)
    code, _, err = say(*words, "--output", tmp_path / "folder")
    assert code == 1
    assert "NaN or infinity at evaluation 2 of 2" in err
    assert set(contents(tmp_path / "folder")) == names(0, 1)
    code, _, err = say(*words, "--output", tmp_path / "picture.png")
    assert code == 1
    assert "2 finished images of 4 are in" in err
    assert not (tmp_path / "picture.png").exists()
    partial = read_parameters(tmp_path / "picture.partial.png")
    assert partial is not None
    assert partial["seeds"] == [0, 1]
    first = (tmp_path / "picture.partial.png").read_bytes()
    for number in (2, 3):  # what an earlier run finished is kept
        code, _, err = say(*words, "--seeds", "1-4", "--output", tmp_path / "picture.png")
        assert code == 1
        assert f"are in {tmp_path / f'picture.partial-{number}.png'}" in err
    assert (tmp_path / "picture.partial.png").read_bytes() == first
    say(*words, "--seeds", "1-4", "--output", tmp_path / "picture.png", "--overwrite")
    replaced = read_parameters(tmp_path / "picture.partial.png")
    assert replaced is not None
    assert replaced["seeds"] == [1, 2]


def test_a_full_disk(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is written when the disk is full: none of it may stay."""
    save, saved = Image.Image.save, 0

    def failing(image: Image.Image, path: Path, **options: Any) -> None:
        nonlocal saved
        saved += 1
        if saved > 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(image, path, **options)

    words = ["sample", digits, "--label", 1, "--steps", 2, "--seeds", "0-3", "--output", tmp_path]
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", failing)
        code, _, err = say(*words)
    assert code == 1
    assert "No space left on device" in err
    assert "2 of 4 images are finished" in err
    assert set(contents(tmp_path)) == names(0, 1)
    assert say(*words)[0] == 0


# ------------------------------------------------------------------------------------- compare


def test_compare(say: Say, digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "compare.png"
    code, out, _ = say(
        "compare", digits, "--samplers", "ddim,heun,rk4,ancestral,edm-churn", "--nfe", "3,8",
        "--reference-steps", 30, "--label", 1, "--output", path,
    )  # fmt: skip
    assert code == 0
    found = read_parameters(path)
    assert found is not None
    costs = [(r["sampler"], r["steps"], r["network_calls"]) for r in found["results"]]
    assert costs == [
        ("ddim", 3, 3),
        ("ddim", 8, 8),
        ("heun", 2, 3),
        ("heun", 4, 7),
        ("rk4", 2, 5),
        ("ancestral", 3, 3),
        ("ancestral", 8, 8),
        ("edm-churn", 2, 3),
        ("edm-churn", 4, 7),
    ]
    errors = {(r["sampler"], r["network_calls"]): r["error"] for r in found["results"]}
    assert errors["ddim", 8] < errors["ddim", 3]
    assert errors["edm-churn", 7] is None, "its noise is no Brownian path"
    assert "needs more" in out
    assert f"{errors['ddim', 8]:.3g} (NFE 8)" in out


def test_guided_evaluations_are_counted_as_two(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many rows reach the network as are reported of two images."""
    rows: list[int] = []

    def counted(unet: Any, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        rows.append(len(x))
        return call_unet(unet, x, t, **conditions)

    monkeypatch.setattr(network, "call_unet", counted)
    grid = load_checkpoint(digits, LoadOptions()).grid(Recipe(steps=4)).points.rho
    inside = int(((grid >= 0.5) & (grid <= 6)).sum())
    assert 0 < inside < 4
    for words, nfe in (
        ("", 4),
        ("--guidance 3", 8),
        ("--guidance 3 --guidance-interval 0.5,6", 4 + inside),
    ):
        rows.clear()
        path = tmp_path / f"{nfe}.png"
        common = ["--label", 1, "--steps", 4, "--num-images", 2, "--output", path]
        code, out, _ = say("sample", digits, *words.split(), *common)
        assert (code, sum(rows)) == (0, 2 * nfe)
        assert f"4 steps, {nfe} network evaluations each" in out
        found = read_parameters(path)
        assert found is not None
        assert found["network_calls"] == nfe


def test_compare_keeps_guided_evaluations_within_the_budget(
    say: Say, digits: Path, tmp_path: Path
) -> None:
    code = say(
        "compare", digits, "--samplers", "ddim,heun", "--nfe", "6,9", "--guidance", 2,
        "--reference-steps", 10, "--label", 1, "--output", tmp_path / "c.png",
    )[0]  # fmt: skip
    found = read_parameters(tmp_path / "c.png")
    assert found is not None
    costs = [(r["sampler"], r["steps"], r["network_calls"]) for r in found["results"]]
    assert (code, costs) == (0, [("ddim", 3, 6), ("ddim", 4, 8), ("heun", 2, 6), ("heun", 2, 6)])


def test_compare_follows_one_brownian_path(say: Say, digits: Path, tmp_path: Path) -> None:
    """A stochastic sampler errs from its own fine run along the same path, and less with steps."""
    say(
        "compare", digits, "--samplers", "ancestral,sde-dpmpp-2m", "--nfe", "5,20,40",
        "--reference-steps", 40, "--label", 1, "--output", tmp_path / "c.png",
    )  # fmt: skip
    found = read_parameters(tmp_path / "c.png")
    assert found is not None
    errors = [r["error"] for r in found["results"]]
    for few, more, same in (errors[:3], errors[3:]):
        assert few > more > same == 0


def test_compare_starts_from_the_same_noise(say: Say, digits: Path, tmp_path: Path) -> None:
    say(
        "compare", digits, "--samplers", "ddim,dpmpp-2m", "--nfe", "4", "--reference", "dpmpp-2m",
        "--reference-steps", 4, "--label", 0, "--num-images", 2, "--output", tmp_path / "c.png",
    )  # fmt: skip
    found = read_parameters(tmp_path / "c.png")
    assert found is not None
    assert [r["error"] == 0 for r in found["results"]] == [False, True]


# ------------------------------------------------------------------------------------ bad input

BAD_INPUT = [
    (2, "", "Missing command"),
    (2, "draw", "No such command 'draw'"),
    (2, "sample {digits}", "Missing option '--output'"),
    (1, "sample {tmp}/nothing --output {out}", "no such folder"),
    (1, "sample {tmp} --output {out}", "no model_index.json"),
    (2, "sample {digits} --sampler dpmp-2m --output {out}", "did you mean 'dpmpp-2m'?"),
    (2, "sample {digits} --steps 0 --output {out}", "from 1 to"),
    (2, "sample {digits} --steps -3 --output {out}", "from 1 to"),
    (2, "sample {digits} --steps 2.5 --output {out}", "whole number from 1 to"),
    (2, "sample {digits} --steps 1 --sampler rk4 --output {out}", "take at least 2 steps"),
    (2, "sample {digits} --label 4 --output {out}", "has the classes 0 to 2"),
    (2, "sample {digits} --output ''", "the name is empty"),
    (2, "sample {digits} --num-images 100000000000 --output {out}", "from 1 to 1,000,000"),
    (2, "sample {digits} --label 0,1,2 --num-images 2 --output {out}", "3 classes for 2 images"),
    (2, "compare {digits} --label 0,1,2 --num-images 2 --output {out}", "3 classes for 2 images"),
    (2, "sample {digits} --label cat --output {out}", "cat is not a whole number"),
    (
        2,
        "sample {digits} --grid diagonal --output {out}",
        "The grid is 'diagonal'; it must be one of",
    ),
    (2, "sample {digits} --grid beta:0 --output {out}", "The parameter a of the grid 'beta:0'"),
    (2, "sample {digits} --sampler 'Euler SGM Uniform' --output {out}", "the grid 'sgm-uniform'"),
    (2, "sample {digits} --sigma-min 1e9 --output {out}", "sigma_min is"),
    (2, "sample {digits} --sigma-min nan --output {out}", "finite number"),
    (2, "sample {digits} --guidance inf --output {out}", "finite number"),
    (2, "sample {digits} --guidance-rescale 2 --output {out}", "from 0 to 1"),
    (2, "sample {digits} --guidance-interval 1,2 --output {out}", "has no effect at guidance 1"),
    (2, "sample {digits} --guidance-rescale 0.5 --output {out}", "has no effect at guidance 1"),
    (2, "sample {digits} --guidance-interval 2,1 --output {out}", "two rising numbers"),
    (2, "sample {digits} --guidance-interval 0.5 --output {out}", "LOW,HIGH, two rising"),
    (2, "sample {digits} --guidance-interval 0,inf --output {out}", "a finite number from 0 up"),
    (2, "compare {digits} --guidance-interval -1,2 --output {out}", "a finite number from 0 up"),
    (2, "sample {digits} --seeds 3-1 --output {out}", "backwards"),
    (2, "sample {digits} --seeds 1,1 --output {out}", "a seed twice"),
    (2, "sample {digits} --seeds 0-3 --num-images 5 --output {out}", "give only one"),
    (2, "sample {digits} --seed 9223372036854775808 --output {out}", "from 0 up to 2^63 - 1"),
    (2, "sample {digits} --option eta=1 --sampler heun --output {out}", "no option 'eta'"),
    (2, "sample {digits} --option eta=x --sampler ancestral --output {out}", "must be a number"),
    (2, "sample {digits} --option eta=-1 --sampler ancestral --output {out}", "eta"),
    (
        2,
        "sample {digits} --sampler dpmpp-2m --option lower_order_final=1 --output {out}",
        "must be true or false",
    ),
    (2, "sample {digits} --option eta --output {out}", "NAME=VALUE"),
    (2, "sample {digits} --prompt cat --output {out}", "takes no prompt"),
    (2, "sample {digits} --null-label 7 --output {out}", "null label is 7"),
    (2, "sample {digits} --device tpu --output {out}", "must be auto, cpu"),
    (2, "sample {digits} --device cuda:99 --output {out}", "CUDA devices"),
    (2, "sample {digits} --output {tmp}/digits.jpg", "written as PNG"),
    (1, "sample {digits} --output {tmp}/file/out.png", "nothing can be written into it"),
    (1, "sample {digits} --output {tmp}/file/folder", "nothing can be written into it"),
    (1, "sample {digits} --output /proc/folder", "can't be written to"),
    (2, "sample {digits} --sampler dorman-prince --output {out}", "mean 'dormand-prince'?"),
    (2, "sample {digits} --sampler rk45 --steps 3 --output {out}", "set --tolerance instead"),
    (2, "sample {digits} --sampler rk45 --noise brownian --output {out}", "set --tolerance"),
    (2, "sample {digits} --sampler rk45 --option eta=1 --output {out}", "set --tolerance"),
    (2, "sample {digits} --sampler rk45 --tolerance 0 --output {out}", "a finite number above 0"),
    (2, "sample {digits} --sampler rk45 --tolerance nan --output {out}", "a finite number above 0"),
    (2, "sample {digits} --sampler rk45 --tolerance x --output {out}", "a finite number above 0"),
    (2, "sample {digits} --sampler rk45 --tolerance 1e-12 --output {out}", "can't resolve"),
    (2, "sample {digits} --sampler rk45 --max-nfe 3 --output {out}", "at least 7"),
    (2, "sample {digits} --tolerance 0.1 --output {out}", "set --steps instead"),
    (2, "sample {digits} --noise pink --output {out}", "'pink' is not one of"),
    (2, "sample {digits} --sampler ddim --noise brownian --output {out}", "'ddim' has no noise"),
    (
        2,
        "sample {digits} --sampler edm-churn --noise brownian --output {out}",
        "not a function of a Brownian path",
    ),
    (2, "sample {digits} --trajectory {tmp}/x.avi --output {out}", "name it .gif"),
    (2, "sample {digits} --trajectory {out} --output {out}", "Two outputs"),
    (2, "sample {digits} --trajectory {tmp}/x/grid.png --output {tmp}/x", "Two outputs"),
    (2, "sample {digits} --sampler rk45 --trajectory {tmp}/x.gif --output {out}", "fixed steps"),
    (2, "sample {prompts} --prompt cat --sampler rk45 --output {out}", "take a sampler of fixed"),
    (
        2,
        "sample {prompts} --prompt cat --trajectory {tmp}/x.gif --output {out}",
        "without a prompt",
    ),
    (2, "sample {prompts} --output {out}", "--prompt"),
    (2, "sample {digits} --sampler 'DPM++ 2M Karras' --output {out}", "'dpmpp-2m' on the grid 'ka"),
    (
        2,
        "sample {prompts} --prompt cat --negative-prompt dog --guidance 1 --output {out}",
        "--negative-prompt has no effect at guidance 1; pass --guidance above 1, or omit it.",
    ),
    (2, "sample {prompts} --prompt cat --label 1 --output {out}", "has no classes"),
    (
        2,
        "sample {prompts} --prompt cat --guidance-interval 1,2 --output {out}",
        "has no --guidance-interval",
    ),
    (2, "sample {prompts} --prompt cat --null-label 1 --output {out}", "not on classes"),
    (2, "show dpmp", "did you mean"),
    (2, "show dopri5 --json", "it has no tableau"),
    (2, "show dpmpp-2m --steps 0", "from 1 to"),
    (2, "show dpmpp-2m --grid config", "pass --checkpoint, or a spacing"),
    (2, "show ddim --steps 100000000000000", "a whole number from 1 to 5,000"),
    (1, "show dpmpp-2m --checkpoint {tmp}", "no model_index.json"),
    (2, "compare {digits} --samplers ddim,huen --output {out}", "did you mean 'heun'?"),
    (2, "compare {digits} --nfe 5,0 --output {out}", "from 1 to"),
    (2, "compare {digits} --output {tmp}", "NAME.png"),
    (2, "compare {digits} --samplers rk45 --output {out}", "takes samplers of fixed steps only"),
    (2, "compare {digits} --reference rk45 --output {out}", "takes samplers of fixed steps only"),
    (2, "compare {digits} --reference ancestral --output {out}", "'ancestral' is stochastic"),
    (2, "compare {digits} --samplers ddim,ddim --output {out}", "lists one twice"),
    (2, "compare {digits} --nfe 2,2 --output {out}", "lists one twice"),
    (2, "sample {digits} --seeds 0-9999999999 --output {out}", "more than 1,000,000 seeds"),
    (2, "show dpmpp-2m --option second_order=exactt", "it must be 'midpoint' or 'exact'"),
    (2, "show ancestral+annealed-langevin --option corrector_steps=inf", "a whole number"),
    (2, "show ancestral+annealed-langevin --option corrector_steps=nan", "a whole number"),
    (2, "compare {digits} --sigma-min 1e9 --output {out}", "sigma_min is"),
]


@pytest.mark.parametrize(("code", "command", "why"), BAD_INPUT)
def test_bad_input_is_one_sentence(
    say: Say, digits: Path, prompts: Path, tmp_path: Path, code: int, command: str, why: str
) -> None:
    (tmp_path / "file").write_text("")
    places = {"digits": digits, "prompts": prompts, "tmp": tmp_path, "out": tmp_path / "out.png"}
    found, _, err = say(*shlex.split(command.format(**places)))
    assert found == code
    lines = [line for line in err.splitlines() if not line.startswith("no --label given")]
    assert len(lines) == 1
    assert lines[0].startswith("samplers: error: ")
    assert why in lines[0]
    assert not (tmp_path / "out.png").exists()


def test_no_file_takes_the_place_of_a_folder(say: Say, digits: Path, tmp_path: Path) -> None:
    kept = tmp_path / "run.png" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("precious")
    code, _, err = say(
        "sample", str(digits), "--trajectory", str(kept.parent), "--output", str(tmp_path / "x.png")
    )
    assert code == 2
    assert "run.png is a folder; name a file" in err
    with pytest.raises(IsADirectoryError), replacing(kept.parent) as part:
        part.write_text("a file")
    assert kept.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [kept.parent]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB."),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_device_without_memory(
    error: Exception, say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, error, after=0)
    code, _, err = say("sample", digits, "--label", 1, "--output", tmp_path / "x.png")
    assert code == 1
    assert "--batch-size below 16" in err
    code, _, err = say("compare", digits, "--label", 1, "--output", tmp_path / "x.png")
    assert code == 1
    assert "compare fewer images" in err


def test_compare_reports_what_is_not_finite(
    say: Say, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = NotFiniteError("The network returned NaN.", torch.zeros(1))
    interrupting(monkeypatch, error, after=0)
    assert say("compare", digits, "--label", 1, "--output", tmp_path / "x.png")[0] == 1


# ------------------------------------------------------------------------ processes of their own


def run(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_as_a_module() -> None:
    done = run("samplers", "show", "dpmpp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("samplers: error: ")
    assert done.stderr.count("\n") == 1


def test_two_processes_draw_what_one_draws(say: Say, digits: Path, tmp_path: Path) -> None:
    words = ["sample", digits, "--steps", 2, "--seeds", "0-6", "--batch-size", 1, "--output"]
    assert say(*words, tmp_path / "one")[0] == 0
    # On a machine without GPUs, `--cpu` would start one process only.
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", 2]
    done = run(*launcher, "-m", "samplers", *words, tmp_path / "two", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 images") == done.stdout.count(", 2 processes,") == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    for path in one.iterdir():
        assert (pixels(path) == pixels(two / path.name)).all()
        assert read_parameters(path) == read_parameters(two / path.name)
