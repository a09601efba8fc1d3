"""The commands on the probability flow: likelihood, encode, decode and interpolate.

Where results are compared, the networks are of float64: the flow of a random one is so steep that
the rounding of float32 grows to some levels of 255.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from samplers.checkpoint import (
    Flow,
    LoadOptions,
    NetworkCheckpoint,
    Recipe,
    load_checkpoint,
    network,
)
from samplers.checkpoint.codes import read_codes
from samplers.cli.common.text import evaluations_each
from samplers.errors import NotFiniteError
from samplers.images.files import read_parameters
from samplers.images.pixels import values_of
from samplers.noise import initial_noise
from samplers.probability_flow import codes as latent_codes
from samplers.probability_flow.integration import Adaptive
from samplers.probability_flow.likelihood import (
    ExactTrace,
    Hutchinson,
    Trace,
    bits_per_dim,
    dequantised,
)
from tests.commands import Say
from tests.tiny_checkpoints import NULL, SIZE, change

LIKELIHOOD = "likelihood {digits} {grey} {mask}"
ENCODE = "encode {digits} {grey} {mask} --output {tmp}/codes.safetensors"
DECODE = "decode {digits} {tmp}/codes.safetensors"
INTERPOLATE = "interpolate {digits} {grey} {mask} --output {out}"

SCHEDULER = "scheduler/scheduler_config.json"

EXACTLY = "--dtype float64 --tolerance 1e-5"


def pixels(path: Path) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every network call an error."""
    fail_after(monkeypatch, 0, AssertionError("the network was called"))


def fail_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    """Let the network answer so many calls, and then raise."""
    original, made = network._call, 0

    def call(unet: Any, x: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        nonlocal made
        made += 1
        if made > calls:
            raise error
        return original(unet, x, t, labels)

    monkeypatch.setattr(network, "_call", call)


# ---------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize(
    ("words", "trace"),
    [("--probes 2 --law gaussian", Hutchinson(2, "gaussian")), ("--exact", ExactTrace())],
)
def test_the_table_holds_what_the_library_finds(say: Say, words: str, trace: Trace) -> None:
    """Classes, seeds and the ends of the flow included."""
    chosen = f"--tolerance 0.05 --sigma-min 0.1 --sigma-max 20 {words}"
    said = say(f"{LIKELIHOOD} {chosen} --label 2,0 --seeds 7,3 --csv {{tmp}}/bits.csv")
    assert (said.code, said.err) == (0, "")
    assert "bits/dim" in said.out
    settings = Adaptive("bogacki-shampine", 0.05, 0.05, 10_000)
    flow = flow_of(say, settings, Recipe(sigma_min=0.1, sigma_max=20.0))
    levels = torch.stack([pixels(say.places[name])[None] for name in ("grey", "mask")])
    data = dequantised(levels, (7, 3)).float()
    with torch.no_grad():
        found = flow.log_likelihood(data, (2, 0), trace, (7, 3))
    bits = bits_per_dim(found.log_prob, SIZE * SIZE)
    columns = zip(rows(say.places["tmp"] / "bits.csv"), bits, found.standard_error, strict=True)
    for row, number, error in columns:
        assert float(row["bits_per_dim"]) == pytest.approx(float(number), rel=1e-5)
        assert float(row["standard_error"]) == pytest.approx(float(error), rel=1e-3)


@pytest.mark.parametrize(("probes", "shown"), [(1, False), (2, True)])
def test_standard_errors_are_shown_where_they_are_known(say: Say, probes: int, shown: bool) -> None:
    said = say(f"likelihood {{digits}} {{grey}} --tolerance 0.5 --probes {probes}")
    assert ("±" in said.out.splitlines()[0]) == shown
    assert len(said.out.splitlines()[2].split()) == (5 if shown else 4)


def test_equal_numbers_of_evaluations_are_one_number() -> None:
    assert evaluations_each([73, 73]) == "73 network evaluations each"
    assert evaluations_each([73, 76]) == "74.5 network evaluations each (73 to 76)"


def test_codes_that_miss_the_tolerance_are_not_interpolated(say: Say) -> None:
    said = say(f"{INTERPOLATE} --max-nfe 8")
    assert said.code == 1
    assert "The codes of 2 of 2 images are not within the tolerance" in said.err
    assert "--max-nfe 8 ran out; raise it, or --tolerance." in said.err


def test_noise_of_the_cleanest_level_is_added_to_codes(say: Say) -> None:
    chosen = "--tolerance 0.05 --sigma-min 0.5 --noise-seeds 4,9"
    said = say(f"{ENCODE} {chosen}")
    assert (said.code, said.err) == (0, "")
    found = read_codes(say.places["tmp"] / "codes.safetensors")
    levels = torch.stack([pixels(say.places[name])[None] for name in ("grey", "mask")])
    settings = Adaptive("bogacki-shampine", 0.05, 0.05, 2000)
    flow = flow_of(say, settings, Recipe(sigma_min=0.5))
    with torch.no_grad():
        expected, bare = (
            flow.encode(values_of(levels).float(), (NULL, NULL), seeds).x
            for seeds in ((4, 9), None)
        )
    torch.testing.assert_close(found.codes, expected, rtol=0, atol=1e-4)
    assert float((expected - bare).abs().mean()) > 0.1
    assert say(f"{ENCODE} --noise-seeds 4").code == 2


def flow_of(
    say: Say, settings: Adaptive, recipe: Recipe, dtype: torch.dtype = torch.float32
) -> Flow:
    """The flow of the tiny network of classes."""
    checkpoint = load_checkpoint(say.places["digits"], LoadOptions(dtype=dtype))
    assert isinstance(checkpoint, NetworkCheckpoint)
    return Flow(checkpoint, checkpoint.settle(recipe), settings, lambda: None)


@pytest.mark.slow
def test_the_batch_size_does_not_change_the_table(say: Say) -> None:
    for size in (1, 2):
        said = say(
            f"{LIKELIHOOD} --probes 2 --dtype float64 --batch-size {size} --csv {{tmp}}/{size}.csv"
        )
        assert said.code == 0
    one, two = (rows(say.places["tmp"] / f"{size}.csv") for size in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert float(a["log_prob"]) == pytest.approx(float(b["log_prob"]), rel=1e-4)
        assert {**a, "log_prob": "", "bits_per_dim": "", "standard_error": ""} == {
            **b, "log_prob": "", "bits_per_dim": "", "standard_error": ""
        }  # fmt: skip


def test_what_is_in_the_table_is_not_measured_again(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = say.places["tmp"] / "bits.csv"
    first = "likelihood {digits} {grey} --csv {tmp}/bits.csv"
    assert say(first).code == 0
    kept = rows(table)
    assert say(f"{LIKELIHOOD} --csv {{tmp}}/bits.csv").code == 0
    assert rows(table)[:1] == kept
    both = table.read_bytes()
    with monkeypatch.context() as patch:
        no_calls(patch)
        said = say(f"{LIKELIHOOD} --csv {{tmp}}/bits.csv")
        assert (said.code, "2 images in" in said.out) == (0, True)
        assert say(first).code == 0
        assert say("likelihood {digits} {mask} {grey} --csv {tmp}/bits.csv").code == 0
    assert table.read_bytes() == both
    # Another class, another measurement; the first stays.
    assert say(f"{first} --label 1").code == 0
    assert [row["label"] for row in rows(table)] == [str(NULL), str(NULL), "1"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("--tolerance 0.4", "tolerance 0.5, not tolerance 0.4"),
        ("--probes 2", "trace Hutchinson(probes=1, law='rademacher'), not"),
        ("--guidance 2 --label 0", "guidance 1.0, not guidance 2.0"),
    ],
)
def test_a_table_has_one_kind_of_settings(say: Say, settings: str, why: str) -> None:
    table = say.places["tmp"] / "bits.csv"
    command = "likelihood {digits} {grey} --tolerance 0.5 --csv {tmp}/bits.csv"
    assert say(command).code == 0
    before = table.read_bytes()
    said = say(f"{command} {settings}")
    said.check_sentence(2, "was measured with other settings")
    assert why in said.err
    assert table.read_bytes() == before
    assert say(f"{command} {settings} --overwrite").code == 0
    assert len(rows(table)) == 1


@pytest.mark.parametrize(
    ("path", "values", "why"),
    [
        (SCHEDULER, {"prediction_type": "epsilon"}, "prediction type v_prediction, not"),
        ("model_index.json", {"_null_label": 2}, f"null label {NULL}, not null label 2"),
    ],
)
def test_a_table_belongs_to_one_model(
    say: Say, path: str, values: dict[str, Any], why: str
) -> None:
    """The same weights are another model with another config."""
    folder = Path(shutil.copytree(say.places["digits"], say.places["tmp"] / "model"))
    command = "likelihood {tmp}/model {grey} --label 0 --tolerance 0.1 --csv {tmp}/bits.csv"
    assert say(command).code == 0
    change(folder / path, **values)
    say(command).check_sentence(2, f"other settings ({why}")


def test_pictures_of_one_content_are_one_measurement_of_two_names(say: Say) -> None:
    shutil.copy(say.places["grey"], say.places["tmp"] / "twin.png")
    said = say("likelihood {digits} {grey} {tmp}/twin.png --csv {tmp}/bits.csv")
    assert said.code == 0
    names = [line.split()[0] for line in said.out.splitlines()[2:4]]
    assert names == [str(say.places["grey"]), str(say.places["tmp"] / "twin.png")]
    assert len(rows(say.places["tmp"] / "bits.csv")) == 1


def test_an_interrupted_table_goes_on(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{LIKELIHOOD} --batch-size 1 --csv {{tmp}}/"
    assert say(f"{command}whole.csv").code == 0
    whole = rows(say.places["tmp"] / "whole.csv")
    with monkeypatch.context() as patch:
        fail_after(patch, int(whole[0]["nfe"]) + 1, KeyboardInterrupt())
        said = say(f"{command}parts.csv")
    assert said.code == 130
    assert "1 of 2 images are in" in said.err
    assert rows(say.places["tmp"] / "parts.csv") == whole[:1]
    assert say(f"{command}parts.csv").code == 0
    assert rows(say.places["tmp"] / "parts.csv") == whole


def test_folders_are_the_colours_of_the_histogram(say: Say) -> None:
    for name in ("a", "b"):
        folder = say.places["tmp"] / name
        folder.mkdir()
        for number in range(2):
            levels = np.full((SIZE, SIZE), 100 * number, np.uint8)
            Image.fromarray(levels).save(folder / f"{number}.png")
        Image.new("L", (3, 3)).save(folder / "grid.png")  # the sheet of all, not one of them
    said = say("likelihood {digits} {tmp}/a {tmp}/b --histogram {out}")
    assert (said.code, said.err) == (0, "")
    assert said.out.count("the mean of 2 images") == 2
    found = read_parameters(say.places["out"])
    assert found is not None
    assert found["labels"] == [NULL] * 4
    one, other = found["seeds"][:2]  # of the content, which both folders have
    assert (found["seeds"], one != other) == ([one, other] * 2, True)
    colours = {tuple(pixel) for pixel in pixels(say.places["out"]).reshape(-1, 3).tolist()}
    assert len(colours) > 2


def test_the_density_of_latents_is_in_nats(say: Say) -> None:
    picture = say.places["tmp"] / "large.png"
    Image.new("RGB", (2 * SIZE, 2 * SIZE), "green").save(picture)
    said = say("likelihood {latents} {tmp}/large.png --csv {tmp}/nats.csv")
    assert (said.code, said.err) == (0, "")
    assert "nats" in said.out
    (row,) = rows(say.places["tmp"] / "nats.csv")
    assert math.isfinite(float(row["log_prob"]))
    assert math.isnan(float(row["bits_per_dim"]))


def test_a_spent_budget_is_told(say: Say) -> None:
    said = say(f"{LIKELIHOOD} --max-nfe 4 --tolerance 1e-6")
    assert said.code == 0
    assert "2 images without a result: --max-nfe ran out" in said.out


# --------------------------------------------------------------------------------------- codes


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["--label 1,2", "--label 1 --guidance 1.3 --guidance-interval 0.5,4 --sigma-min 0.05"]
)
def test_codes_give_the_pictures_back(say: Say, words: str) -> None:
    """Without a word on how they were found, which the file says."""
    assert say(f"{ENCODE} {words} --sigma-max 20 {EXACTLY}").code == 0
    assert say(f"{DECODE} {EXACTLY} --output {{tmp}}/folder").code == 0
    for number, name in enumerate(("grey", "mask")):
        given, back = (
            pixels(path).int()
            for path in (say.places[name], say.places["tmp"] / f"folder/code-{number:05d}.png")
        )
        assert int((given - back).abs().max()) <= 2


def test_the_file_says_what_its_codes_belong_to(say: Say) -> None:
    assert say(f"{ENCODE} --label 1,2").code == 0
    with safe_open(say.places["tmp"] / "codes.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["parameters"])
        codes = file.get_tensor("codes")
    assert codes.shape == (2, 1, SIZE, SIZE)
    assert about["labels"] == [1, 2]
    assert about["images"] == [str(say.places[name]) for name in ("grey", "mask")]


def test_a_temperature_of_zero_is_one_picture(say: Say) -> None:
    assert say(ENCODE).code == 0
    assert say(f"{DECODE} --temperature 0 --output {{tmp}}/folder").code == 0
    one, other = (pixels(say.places["tmp"] / f"folder/code-{n:05d}.png") for n in range(2))
    assert torch.equal(one, other)
    assert say(f"{DECODE} --temperature 0.5 --output {{out}}").code == 0
    found = read_parameters(say.places["out"])
    assert found is not None
    assert found["temperature"] == 0.5


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The batches that are decoded."""
    seen: list[Tensor] = []
    original = Flow.decode

    def decode(self: Flow, codes: Tensor, labels: object) -> object:
        found = original(self, codes, labels)  # type: ignore[arg-type]
        seen.append(found.x)
        return found

    monkeypatch.setattr(Flow, "decode", decode)
    return seen


@pytest.mark.slow
def test_a_way_begins_and_ends_with_the_pictures(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = decoded(monkeypatch)
    assert say(f"{INTERPOLATE} --label 1 --frames 4 --sigma-max 20 {EXACTLY}").code == 0
    (images,) = seen
    assert len(images) == 4
    for image, name in ((images[0], "grey"), (images[-1], "mask")):
        given = pixels(say.places[name]).double() / 127.5 - 1
        torch.testing.assert_close(image[0], given, rtol=0, atol=0.01)


def test_a_way_between_seeds(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """From three seeds come two ways, and the second begins where the first ends."""
    seen = decoded(monkeypatch)
    said = say(
        "interpolate {digits} --seeds 5,1,8 --label 2 --frames 3 --dtype float64 --output {out}"
    )
    assert (said.code, "6 images" in said.out) == (0, True)
    (images,) = seen
    torch.testing.assert_close(images[2], images[3], rtol=0, atol=1e-5)
    flow = flow_of(say, latent_codes.DEFAULT, Recipe(), torch.float64)
    with torch.no_grad():
        expected = flow.decode(initial_noise((8,), flow.checkpoint.shape), (2,)).x
    torch.testing.assert_close(images[-1:], expected, rtol=0, atol=1e-5)
    found = read_parameters(say.places["out"])
    assert found is not None
    assert (found["seeds"], found["labels"]) == ([5, 1, 8], [2])


# ----------------------------------------------------------------------------------- bad input

BAD_INPUT = [
    (2, "likelihood {digits}", "Missing argument 'IMAGES...'"),
    (1, "likelihood {digits} {tmp}/no.png", "no such file"),
    (1, "likelihood {digits} {tmp}", "holds no image"),
    (1, "likelihood {digits} {broken}", "can't be read as an image"),
    (2, "likelihood {digits} {wide}", "but 8 x 8 are needed"),
    (2, "likelihood {digits} {colours}", "is in colour, but it must be grey"),
    (2, "likelihood {latents} {colours}", "but 16 x 16 are needed"),
    (2, "likelihood {prompts} {colours}", "a pipeline with a prompt"),
    (1, "likelihood {tmp}/no {grey}", "no such folder"),
    (2, "interpolate {prompts} --prompt cat --output {out}", "needs a network without a prompt"),
    (2, f"{LIKELIHOOD} --csv {{tmp}}/bits.txt", "bits.txt; name it NAME.csv."),
    (2, f"{LIKELIHOOD} --tolerance 0", "a finite number above 0"),
    (2, f"{LIKELIHOOD} --max-nfe 2", "at least 4"),
    (2, f"{LIKELIHOOD} --probes 0", "from 1 to"),
    (2, f"{LIKELIHOOD} --exact --probes 2", "--probes and --exact exclude each other"),
    (2, f"{LIKELIHOOD} --law cauchy", "'cauchy' is not one of"),
    (2, f"{LIKELIHOOD} --label 9", "no class 9"),
    (2, f"{LIKELIHOOD} --seeds 1", "--seeds lists 1 for 2 images"),
    (2, f"{LIKELIHOOD} --sigma-min 5 --sigma-max 2", "sigma_min"),
    (2, f"{LIKELIHOOD} --histogram {{tmp}}/x.jpg", "written as PNG"),
    (2, f"{LIKELIHOOD} --histogram {{tmp}}/x", "NAME.png"),
    (1, f"{LIKELIHOOD} --csv {{table}}", "no table that this command wrote"),
    (1, f"{LIKELIHOOD} --csv {{grey}}/bits.csv", "is a file"),
    (2, f"{LIKELIHOOD} --csv {{grey}}", "name it NAME.csv"),
    (2, INTERPOLATE.replace("{out}", "{grey} --overwrite"), "one of the given files"),
    (2, "encode {digits} {grey} --output {tmp}/codes.pt", "name it NAME.safetensors"),
    (2, "encode {digits} {grey}", "Missing option '--output'"),
    (2, "encode {digits} {wide} --output {tmp}/c.safetensors", "but 8 x 8 are needed"),
    (2, f"{ENCODE} --tolerance -1", "a finite number above 0"),
    (2, f"{ENCODE} --seed 3", "No such option '--seed'"),
    (2, f"{ENCODE} --label 0,1,2,0,1", "--label names 5 classes for"),
    (1, "decode {digits} {tmp}/no.safetensors --output {out}", "no such file"),
    (1, "decode {digits} {text} --output {out}", "`samplers encode` wrote"),
    (1, "decode {digits} {weights} --output {out}", "`samplers encode` wrote"),
    (2, "interpolate {digits} --output {out}", "either images or --seeds"),
    (2, "interpolate {digits} {grey} --output {out}", "1 image came"),
    (2, "interpolate {digits} {grey} {mask} --seeds 0,1 --output {out}", "and not both"),
    (2, "interpolate {digits} --seeds 4 --output {out}", "one seed"),
    (2, "interpolate {digits} --seeds 4,4 --output {out}", "names a seed twice"),
    (2, f"{INTERPOLATE} --frames 1", "at least its 2 ends"),
    (2, f"{INTERPOLATE} --label 1,2", "a single class"),
    (2, f"{INTERPOLATE} --temperature -1", "a finite number from 0 up"),
    (2, "interpolate {digits} {grey} {mask} --output {tmp}/x", "NAME.png"),
]


@pytest.mark.parametrize(("code", "command", "why"), BAD_INPUT)
def test_bad_input_is_one_sentence(say: Say, code: int, command: str, why: str) -> None:
    weights = say.places["digits"] / "unet" / "diffusion_pytorch_model.safetensors"
    said = Say({**say.places, "weights": weights}, say.capsys)(command)
    said.check_sentence(code, why)
    assert not list(say.places["tmp"].iterdir())


@pytest.mark.parametrize("command", [ENCODE, INTERPOLATE])
def test_a_class_is_asked_for_where_none_stands_for_no_class(say: Say, command: str) -> None:
    bare = say.places["tmp"] / "bare"
    shutil.copytree(say.places["digits"], bare)
    change(bare / "model_index.json", _null_label=None)
    said = say(command.replace("{digits}", "{tmp}/bare"))
    said.check_sentence(2, "name the classes with --label")


def test_no_class_of_a_code_is_left_over(say: Say) -> None:
    assert say(ENCODE).code == 0
    said = say(f"{DECODE} --label 0,1,2,0,1 --output {{out}}")
    said.check_sentence(2, "--label names 5 classes for")


def test_pictures_do_not_take_the_place_of_their_codes(say: Say) -> None:
    assert say(ENCODE).code == 0
    codes = (say.places["tmp"] / "codes.safetensors").rename(say.places["out"])
    before = codes.read_bytes()
    said = say("decode {digits} {out} --output {out} --overwrite")
    said.check_sentence(2, "one of the given files")
    assert codes.read_bytes() == before


@pytest.mark.slow
def test_codes_come_back_away_from_the_class_they_were_found_with(say: Say) -> None:
    words = f"--guidance 1.5 --label 1 --null-label 2 {EXACTLY}"
    assert say(f"{ENCODE} {words}").code == 0
    found = []
    for more in ("", "--null-label 2"):
        assert say(f"{DECODE} {EXACTLY} {more} --output {{out}} --overwrite").code == 0
        found.append(pixels(say.places["out"]))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"codes": slice(0)}, "holds no codes"),
        ({"codes": slice(1)}, "holds 1 codes, and classes of 2"),
        ({"labels": [99, 99]}, "of the class 99, which there is not"),
        ({"guidance": None}, "`samplers encode` wrote"),
        ({"guidance_interval": [1.0]}, "must be two numbers"),
    ],
)
def test_codes_that_were_changed_are_checked(say: Say, change: dict[str, Any], why: str) -> None:
    assert say(f"{ENCODE} --label 1").code == 0
    path = say.places["tmp"] / "codes.safetensors"
    with safe_open(path, "pt") as file:
        codes, about = file.get_tensor("codes"), json.loads(file.metadata()["parameters"])
    about |= {name: change.get(name, about[name]) for name in ("labels", "guidance_interval")}
    if "guidance" in change:
        del about["guidance"]
    kept = codes[change.get("codes", slice(None))].contiguous()
    save_file({"codes": kept}, path, {"parameters": json.dumps(about)})
    said = say(f"{DECODE} --output {{out}}")
    said.check_sentence(1 if "guidance" in change else 2, why)


def test_codes_of_another_network_are_refused(say: Say) -> None:
    assert say(ENCODE).code == 0
    said = say("decode {plain} {tmp}/codes.safetensors --output {out}")
    assert said.code == 2
    assert "other weights than this checkpoint's" in said.err


@pytest.mark.parametrize(
    ("path", "changed", "why"),
    [
        (SCHEDULER, {"prediction_type": "epsilon"}, "prediction type than this"),
        (SCHEDULER, {"beta_schedule": "squaredcos_cap_v2"}, "noise schedule than this"),
        (SCHEDULER, {"clip_sample": True}, "correction than this"),
        ("unet/config.json", {"freq_shift": 1}, "settings in unet/config.json than this"),
    ],
)
def test_codes_of_another_use_of_the_same_weights_are_refused(
    say: Say, path: str, changed: dict[str, Any], why: str
) -> None:
    assert say(ENCODE).code == 0
    other = Path(shutil.copytree(say.places["digits"], say.places["tmp"] / "other"))
    change(other / path, **changed)
    said = say("decode {tmp}/other {tmp}/codes.safetensors --output {out}")
    said.check_sentence(2, f"with other {why}")


def test_codes_belong_to_any_scheduler_class_with_the_same_meaning(say: Say) -> None:
    assert say(ENCODE).code == 0
    other = Path(shutil.copytree(say.places["digits"], say.places["tmp"] / "other"))
    change(other / SCHEDULER, _class_name="DDIMScheduler", timestep_spacing="trailing")
    assert say("decode {tmp}/other {tmp}/codes.safetensors --output {out}").code == 0


@pytest.mark.parametrize("command", [LIKELIHOOD, ENCODE, INTERPOLATE])
@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (NotFiniteError("The network returned NaN.", torch.zeros(1)), 1, "NaN"),
        (torch.OutOfMemoryError("out of memory"), 1, "--batch-size below 16"),
    ],
)
def test_a_failure_leaves_nothing(
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    error: BaseException,
    code: int,
    why: str,
) -> None:
    fail_after(monkeypatch, 3, error)
    said = say(command)
    assert said.code == code
    assert why in said.err
    assert not list(say.places["tmp"].iterdir())
