"""Files of tuned samplers in every command that takes the name of a sampler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samplers import SamplerScheduler, TunedSampler, load_sampler, sample
from samplers.checkpoint import (
    LoadOptions,
    NetworkCheckpoint,
    PipelineCheckpoint,
    load_checkpoint,
    load_restoration,
)
from samplers.checkpoint.folder import read_folder
from samplers.images.files import read_parameters
from samplers.images.inputs import read_any
from samplers.images.pixels import to_images
from tests.commands import Say
from tests.tiny_tuned import as_if_tuned

ASSETS = Path(__file__).parents[1] / "assets"
BUNDLED = ASSETS / "tuned"
CARD = (BUNDLED / "README.md").read_text()


@pytest.fixture
def digits(places: dict[str, Path]) -> NetworkCheckpoint:
    found = load_checkpoint(places["digits"], LoadOptions())
    assert isinstance(found, NetworkCheckpoint)
    return found


@pytest.fixture
def tuned(digits: NetworkCheckpoint, tmp_path: Path) -> TunedSampler:
    found = as_if_tuned(digits.settings.schedule, weights=digits.identity.weights_hash)
    found.save(tmp_path / "own.json")
    return found


@pytest.fixture
def restoring(places: dict[str, Path], tmp_path: Path) -> TunedSampler:
    pipe = load_restoration(places["restoration"], LoadOptions())
    found = as_if_tuned(pipe.process.schedule)
    found.save(tmp_path / "restoring.json")
    return found


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_sample(say: Say, tmp_path: Path, digits: NetworkCheckpoint, tuned: TunedSampler) -> None:
    said = say("sample {digits} --sampler {tmp}/own.json --seeds 5 --label 1 --output {tmp}/all")
    assert (said.code, said.err) == (0, "")
    x_T = digits.start(digits.settings.schedule.noisiest, [5])
    with torch.no_grad():
        x_0 = sample(digits.denoiser(), x_T, sampler=tuned, conditions=digits.conditions([1]))
    path = tmp_path / "all" / "seed-00000005.png"
    assert (pixels(path) == np.asarray(to_images(x_0)[0])).all()
    about = read_parameters(path)
    assert about is not None
    assert about["tuned_sha256"] == tuned.digest


def test_restore(
    say: Say, tmp_path: Path, places: dict[str, Path], restoring: TunedSampler
) -> None:
    command = "restore {restoration} {colours} --task noisy --sampler {tmp}/restoring.json"
    said = say(command + " --output {tmp}/folder")
    assert (said.code, said.err) == (0, "")
    pipe = load_restoration(places["restoration"], LoadOptions())
    mu = read_any(places["colours"])
    with torch.no_grad():
        y = sample(
            pipe.denoiser(),
            pipe.initial(mu.shape, [0]),
            sampler=restoring,
            conditions=pipe.conditions(mu, ["noisy"]),
        )
    expected = to_images(pipe.process.to_x(y, mu))[0]
    assert (pixels(tmp_path / "folder" / "colours.png") == np.asarray(expected)).all()
    about = read_parameters(tmp_path / "folder" / "colours.png")
    assert about is not None
    assert (about["steps"], about["tuned_sha256"]) == (4, restoring.digest)
    say(command + " --steps 5 --output {out}").check_sentence(2, "own steps and noise levels")
    as_if_tuned(pipe.process.schedule, weights="others").save(tmp_path / "restoring.json")
    assert "tuned for other weights" in say(command + " --output {out}").err


def test_a_tuned_sampler_inside_of_a_checkpoint(
    say: Say, tmp_path: Path, places: dict[str, Path], restoring: TunedSampler
) -> None:
    pipe = load_restoration(places["restoration"], LoadOptions())
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler, sampler=restoring)
    pipe.save_pretrained(tmp_path / "saved")
    assert say("restore {tmp}/saved {colours} --task noisy --output {tmp}/own").code == 0
    named = "restore {restoration} {colours} --task noisy --sampler {tmp}/restoring.json"
    assert say(named + " --output {tmp}/named").code == 0
    own, other = (pixels(tmp_path / name / "colours.png") for name in ("own", "named"))
    assert (own == other).all()
    said = say("restore {tmp}/saved {colours} --task noisy --steps 7 --output {out}")
    said.check_sentence(2, "own steps and noise levels")


def test_a_pipeline_with_a_prompt(say: Say, tmp_path: Path, places: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(places["prompts"], LoadOptions())
    assert isinstance(checkpoint, PipelineCheckpoint)
    found = as_if_tuned(checkpoint.settings.schedule, guidance=2.0)
    found.save(tmp_path / "own.json")
    command = "sample {prompts} --prompt abc --sampler {tmp}/own.json --seeds 1 --guidance"
    said = say(command + " 2 --output {tmp}/all")
    assert (said.code, said.err) == (0, "")
    pipe = checkpoint.pipeline
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler, sampler=found)
    noise = torch.Generator().manual_seed(1)
    (image,) = pipe(["abc"], num_inference_steps=4, guidance_scale=2.0, generator=noise).images
    assert (pixels(tmp_path / "all" / "seed-00000001.png") == np.asarray(image)).all()
    assert "tuned for a guidance of 2" in say(command + " 3 --output {tmp}/3.png").err


def test_inverse_problems(
    say: Say, tmp_path: Path, digits: NetworkCheckpoint, tuned: TunedSampler
) -> None:
    command = "inpaint {digits} {grey} --mask {mask} --label 1 --seeds 2 --method replacement"
    said = say(command + " --sampler {tmp}/own.json --output {out}")
    assert (said.code, said.err) == (0, "")
    about = read_parameters(tmp_path / "out.png")
    assert about is not None
    assert (about["network_calls"], about["tuned_sha256"]) == (4, tuned.digest)
    said = say(command + " --sampler {tmp}/own.json --grid karras --output {tmp}/2.png")
    said.check_sentence(2, "own steps and noise levels")


def test_compare(say: Say, tmp_path: Path, tuned: TunedSampler, digits: NetworkCheckpoint) -> None:
    (tmp_path / "family").mkdir()
    for nfe in (2, 5):
        as_if_tuned(digits.settings.schedule, nfe).save(tmp_path / "family" / f"{nfe}.json")
    said = say(
        "compare {digits} --samplers ddim,{tmp}/own.json,{tmp}/family --nfe 3,5 --label 1 "
        "--reference-steps 20 --output {out}"
    )
    assert (said.code, said.err) == (0, "")
    about = read_parameters(tmp_path / "out.png")
    assert about is not None
    found = [(Path(one["sampler"]).name, one["network_calls"]) for one in about["results"]]
    assert found == [("ddim", 3), ("ddim", 5), ("own.json", 4), ("family", 2), ("family", 5)]
    assert "needs more" in said.out


def test_show(say: Say, tuned: TunedSampler, places: dict[str, Path]) -> None:
    said = say("show {tmp}/own.json")
    assert said.out.startswith("A tuned sampler of 4 network evaluations.")
    assert "unipc-2, quadratic to the trained level: 0.3, 0.4, 0.3" in said.out
    on = say("show {tmp}/own.json --checkpoint {digits}").out
    assert on.startswith(said.out.rstrip("\n"))
    assert "4 network evaluations from t = 999" in on
    printed = json.loads(say("show {tmp}/own.json --checkpoint {digits} --json").out)
    schedule = load_checkpoint(places["digits"], LoadOptions()).settings.schedule
    assert printed == json.loads(tuned.tableau(schedule).to_json())
    say("show {tmp}/own.json --json").check_sentence(2, "pass --checkpoint or --schedule")
    say("show {tmp}/own.json --steps 3").check_sentence(2, "own steps and noise levels")
    say("show {tmp}/own.json --schedule ve").check_sentence(2, "was tuned for a network trained")


def test_list(say: Say, tmp_path: Path, tuned: TunedSampler) -> None:
    (tmp_path / "other.json").write_text("{}")
    said = say("list {tmp}")
    assert [line.split()[0] for line in said.out.splitlines()[:3:2]] == [
        "file",
        str(tmp_path / "own.json"),
    ]
    (facts,) = json.loads(say("list {tmp} --json").out)
    assert (facts["nfe"], facts["after"]["rms"]) == (4, 0.1)
    (tmp_path / "own.json").unlink()
    say("list {tmp}").check_sentence(1, "There is no tuned sampler and no fitted grid in")
    say("list {tmp}/none").check_sentence(1, "There is no folder")
    say("list {tmp} --aliases").check_sentence(2, "have no aliases")


def test_a_notebook_shows_the_numbers(tuned: TunedSampler) -> None:
    html = tuned._repr_html_()
    assert html.count("<tr>") == 1 + 5
    assert "NFE 4" in html


@pytest.mark.parametrize("path", sorted(BUNDLED.glob("*/*.json")), ids=lambda path: path.stem)
def test_a_bundled_one_belongs_to_its_checkpoint(path: Path) -> None:
    """To these weights, and with the errors that its card states."""
    tuned = load_sampler(path)
    weights = read_folder(ASSETS / path.stem.rsplit("-", 1)[0], False).identity().weights_hash
    assert tuned.about["weights"] == weights
    before, after = tuned.about["before"], tuned.about["after"]
    assert after["geometric_mean"] < before["geometric_mean"]
    assert after["rms"] < before["rms"]
    assert (
        f"| `{path.parent.name}/{path.name}` | "
        f"{before['geometric_mean']:.3f} ({before['rms']:.3f}), {tuned.about['base']} | "
        f"{after['geometric_mean']:.3f} ({after['rms']:.3f}) |"
    ) in CARD.splitlines()
