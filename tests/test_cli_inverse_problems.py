"""The commands that draw images with a given measurement: inpaint, colorize and sharpen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samplers.checkpoint import NetworkCheckpoint, network
from samplers.errors import NotFiniteError
from samplers.images.files import read_parameters
from tests.commands import Say
from tests.tiny_checkpoints import SIZE

INPAINT = "inpaint {digits} {grey} --mask {mask} --steps 4 --output {out} --overwrite"
COLORIZE = "colorize {plain} {grey} --steps 4 --output {out}"
SHARPEN = "sharpen {digits} {small} --downsampled 2 --steps 4 --output {out} --overwrite"


@pytest.mark.parametrize("command", [INPAINT, COLORIZE, SHARPEN])
def test_answers_to_a_measurement(say: Say, command: str) -> None:
    code, out, err = say(f"{command} --num-images 3 --method replacement")
    assert (code, err) == (0, "")
    assert "3 images: replacement, ancestral, 4 network evaluations each" in out
    assert "error of measurement" in out
    assert "deviation of the rest" in out
    found = read_parameters(say.places["out"])
    assert found is not None
    assert found["error_of_measurement"] < 1e-5
    assert found["deviation_of_the_rest"] > 0.01
    assert found["seeds"] == [0, 1, 2]
    assert list(say.places["tmp"].iterdir()) == [say.places["out"]]


def test_guidance_comes_near_to_the_measurement(say: Say) -> None:
    """Ever nearer with more steps, though the network is random."""
    errors = []
    for steps in (4, 16, 64):
        command = INPAINT.replace("--steps 4", f"--steps {steps}")
        assert say(f"{command} --sampler ddim --num-images 2").code == 0
        found = read_parameters(say.places["out"])
        assert found is not None
        assert found["grid"] == "log-snr"
        errors.append(found["error_of_measurement"])
    assert errors[2] < errors[0]
    assert errors[2] < 0.05


def test_a_blurred_picture_gets_sharp_ones(say: Say) -> None:
    """They are the given one if they are blurred again, to some of its noise."""
    command = "sharpen {digits} {grey} --blurred 0.6 --noise-std 0.05 --steps 32 --sampler ddim"
    said = say(f"{command} --num-images 2 --output {{out}}")
    assert (said.code, said.err) == (0, "")
    found = read_parameters(say.places["out"])
    assert found is not None
    assert (found["blurred"], found["noise_std"]) == (0.6, 0.05)
    assert found["error_of_measurement"] < 0.2


def test_white_is_unknown(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper half, black in the mask, stays what it was; the lower one is drawn."""
    images = watched(monkeypatch)
    assert say(f"{INPAINT} --num-images 2 --method replacement").code == 0
    with Image.open(say.places["grey"]) as image:
        given = torch.from_numpy(np.asarray(image) / 127.5 - 1).float()
    half = SIZE // 2
    for image in images[0]:
        torch.testing.assert_close(image[0, :half], given[:half], rtol=0, atol=1e-6)
        assert not torch.allclose(image[0, half:], given[half:], rtol=0, atol=0.1)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The batches that were drawn."""
    seen: list[Tensor] = []
    original = NetworkCheckpoint.restore

    def restore(self: NetworkCheckpoint, *given: object) -> Tensor:
        seen.append(original(self, *given))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(NetworkCheckpoint, "restore", restore)
    return seen


def test_the_batch_size_changes_nothing(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    images = watched(monkeypatch)
    for size in (2, 5):
        command = f"{INPAINT} --seeds 0-4 --label 0,1 --batch-size {size}"
        assert say(command).code == 0
    torch.testing.assert_close(torch.cat(images[:3]), images[3], rtol=0, atol=1e-5)


def test_visits_cost_as_many_times_the_calls(say: Say) -> None:
    said = say(f"{INPAINT} --method replacement --visits 3 --num-images 1")
    assert (said.code, "12 network evaluations each" in said.out) == (0, True)
    assert "deviation" not in said.out


def test_greys_of_a_palette_are_grey(say: Say) -> None:
    greys = Image.open(say.places["grey"])
    greys.convert("P").save(say.places["tmp"] / "palette.png")
    assert say(INPAINT.replace("{grey}", "{tmp}/palette.png")).code == 0
    own = Image.open(say.places["out"]).tobytes()
    assert say(INPAINT).code == 0
    assert Image.open(say.places["out"]).tobytes() == own


def test_what_is_transparent_is_refused_and_what_is_opaque_is_none(say: Say) -> None:
    colours, place = Image.open(say.places["colours"]), say.places["tmp"] / "given.png"
    command = "inpaint {plain} {tmp}/given.png --mask {mask} --output {out} --steps 2 --overwrite"
    colours.quantize(16).save(place, transparency=0)
    say(command).check_sentence(2, "in colour with opacity")
    found = []
    for given in (
        colours,
        Image.merge("RGBA", (*colours.split(), Image.new("L", colours.size, 255))),
    ):
        given.save(place)
        assert say(command).code == 0
        found.append(Image.open(say.places["out"]).tobytes())
    assert found[0] == found[1]


def test_a_mask_has_no_transparent_level(say: Say) -> None:
    Image.open(say.places["mask"]).save(say.places["tmp"] / "hole.png", transparency=0)
    said = say(INPAINT.replace("{mask}", "{tmp}/hole.png"))
    said.check_sentence(2, "has an opacity")


def test_levels_may_have_sixteen_bits(say: Say) -> None:
    """Of the picture and of its mask; the command is told no difference."""
    assert say(INPAINT).code == 0
    own = Image.open(say.places["out"]).tobytes()
    for name in ("grey", "mask"):
        levels = np.asarray(Image.open(say.places[name])).astype(np.uint16) * 257
        Image.fromarray(levels).save(say.places["tmp"] / f"{name}.png")
    deep = INPAINT.replace("{grey}", "{tmp}/grey.png").replace("{mask}", "{tmp}/mask.png")
    assert say(deep).code == 0
    assert Image.open(say.places["out"]).tobytes() == own


def test_the_class_is_none_unless_it_is_said(say: Say) -> None:
    for words, labels in (("", [3, 3, 3]), ("--label 0,1", [0, 1, 0]), ("--label all", [0, 1, 2])):
        assert say(f"{SHARPEN} {words} --num-images 3 --guidance 1.0").code == 0
        found = read_parameters(say.places["out"])
        assert found is not None
        assert found["labels"] == labels


BAD_INPUT = [
    (2, "inpaint {digits} {grey} --output {out}", "Missing option '--mask'"),
    (2, "inpaint {digits} --mask {mask} --output {out}", "Missing argument 'IMAGE'"),
    (1, "inpaint {digits} {tmp}/no.png --mask {mask} --output {out}", "no such file"),
    (1, "inpaint {digits} {grey} --mask {tmp}/no.png --output {out}", "no such file"),
    (1, "inpaint {digits} {tmp} --mask {mask} --output {out}", "can't be read as an image"),
    (1, "inpaint {digits} {broken} --mask {mask} --output {out}", "can't be read as an image"),
    (1, "inpaint {digits} {text} --mask {mask} --output {out}", "can't be read as an image"),
    (1, "inpaint {digits} {grey} --mask {text} --output {out}", "can't be read as an image"),
    (2, "inpaint {digits} {wide} --mask {mask} --output {out}", "16 x 8 pixels"),
    (2, "inpaint {digits} {grey} --mask {wide} --output {out}", "but 8 x 8 are needed"),
    (
        2,
        "inpaint {digits} {colours} --mask {mask} --output {out}",
        "is in colour, but it must be grey",
    ),
    (2, "inpaint {plain} {grey} --mask {mask} --output {out}", "convert('RGB')"),
    (2, "inpaint {plain} {opacity} --mask {mask} --output {out}", "in colour with opacity"),
    (2, "inpaint {digits} {grey} --mask {black} --output {out}", "no white pixel"),
    (2, "inpaint {digits} {grey} --mask {white} --output {out}", "all white"),
    (2, "inpaint {digits} {grey} --mask {opacity} --output {out}", "has an opacity"),
    (2, "inpaint {latents} {colours} --mask {mask} --output {out}", "works on latents"),
    (2, "inpaint {prompts} {colours} --mask {mask} --output {out}", "a pipeline with a prompt"),
    (1, "inpaint {tmp}/no {grey} --mask {mask} --output {out}", "no such folder"),
    (2, INPAINT.replace("{out}", "{tmp}/folder"), "NAME.png"),
    (2, INPAINT.replace("{out}", "{tmp}/x.jpg"), "written as PNG"),
    (2, INPAINT.replace("{out}", "{grey}"), "one of the given files"),
    (2, INPAINT.replace("{out}", "{mask}"), "one of the given files"),
    (2, f"{INPAINT} --visits 2", "for --method replacement"),
    (2, f"{INPAINT} --method replacement --visits 0", "from 1 to"),
    (2, f"{INPAINT} --method replacement --visits 2 --sampler dpmpp-2m", "remembers nothing"),
    (2, f"{INPAINT} --method magic", "'magic' is not one of"),
    (2, f"{INPAINT} --sampler rk45", "takes samplers of fixed steps only"),
    (2, f"{INPAINT} --sampler ancestral+langevin", "depend on the whole batch"),
    (2, f"{INPAINT} --label 9", "no class 9"),
    (2, f"{INPAINT} --prompt cat", "No such option '--prompt'"),
    (2, "colorize {digits} {grey} --output {out}", "has no colours"),
    (2, "colorize {plain} {colours} --output {out}", "convert('L')"),
    (2, "colorize {plain} {wide} --output {out}", "but 8 x 8 are needed"),
    (2, f"{COLORIZE} --grey pink", "'pink' is not one of"),
    (2, "sharpen {digits} {small} --output {out}", "give --downsampled or --blurred"),
    (2, "sharpen {digits} {grey} --downsampled 2 --output {out}", "but 4 x 4 are needed"),
    (2, "sharpen {digits} {small} --downsampled 3 --output {out}", "whose sides it divides"),
    (2, "sharpen {digits} {small} --downsampled 0 --output {out}", "from 1 to"),
    (2, "sharpen {digits} {grey} --blurred 0 --output {out}", "a finite number above 0"),
    (2, "sharpen {digits} {small} --blurred 1 --output {out}", "but 8 x 8 are needed"),
    (2, "sharpen {digits} {grey} --blurred 1e9 --output {out}", "leaves nothing"),
    (
        2,
        "sharpen {digits} {grey} --blurred 1 --noise-std 0.1 --method replacement --output {out}",
        "take guidance (--method guidance)",
    ),
    (2, f"{SHARPEN} --blurred 1", "--downsampled and --blurred exclude each other"),
    (2, f"{SHARPEN} --noise-std -1", "a finite number from 0 up"),
    (2, f"{SHARPEN} --noise-std much", "much is not a finite number"),
    (2, f"{SHARPEN} --noise-std 1e200", "too large"),
]


@pytest.mark.parametrize(("code", "command", "why"), BAD_INPUT)
def test_bad_input_is_one_sentence(say: Say, code: int, command: str, why: str) -> None:
    said = say(command)
    said.check_sentence(code, why)
    assert not say.places["out"].exists()


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (NotFiniteError("The network returned NaN.", torch.zeros(1)), 1, "NaN"),
        (torch.OutOfMemoryError("out of memory"), 1, "--batch-size below 16"),
    ],
)
def test_a_failure_leaves_nothing(
    say: Say, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, why: str
) -> None:
    def call(*given: object, **named: object) -> Tensor:
        raise error

    monkeypatch.setattr(network, "_call", call)
    said = say(INPAINT)
    assert said.code == code
    assert why in said.err
    assert not list(say.places["tmp"].iterdir())
