"""The pipeline that restores images, and its command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adjoint import CheckpointAdjoint, DirectAdjoint
from samplers import SamplerScheduler
from samplers.checkpoint import CheckpointError, LoadOptions, load_checkpoint, load_restoration
from samplers.diffusers.restoration import RestorationPipeline
from samplers.images.files import read_parameters
from samplers.restoration import degrade, restore
from tests import tiny_checkpoints
from tests.commands import Say
from tests.tiny_checkpoints import change


@pytest.fixture
def pipe(places: dict[str, Path]) -> RestorationPipeline:
    return load_restoration(places["restoration"], LoadOptions())


def images(count: int, channels: int = 3, height: int = 10, width: int = 14) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=generator) * 2 - 1


def picture(x: Tensor) -> Image.Image:
    levels = ((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def test_the_pipeline_is_the_library_in_its_own_coordinates(pipe: RestorationPipeline) -> None:
    mu, seeds = images(2, height=12, width=16), (3, 4)

    def network(x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        given = torch.cat([x, mu], dim=1)
        output: Tensor = pipe.unet(given, t, class_labels=torch.ones(2, dtype=torch.long)).sample
        return output

    with torch.no_grad():
        found = pipe.restore(mu, ["rainy", "rainy"], seeds, steps=4)
        expected = restore(network, mu, pipe.process, seeds=seeds, steps=4)
    torch.testing.assert_close(found, expected)
    shown = pipe(mu, "rainy", 4, seeds, output_type="pt").images
    torch.testing.assert_close(shown, (expected.clamp(-1, 1) + 1) / 2)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (8, 8), (17, 30)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size(
    pipe: RestorationPipeline, size: tuple[int, int], channels: int
) -> None:
    mu = images(2, channels, *size)
    with torch.no_grad():
        found = pipe.restore(mu, ["noisy"] * 2, (0, 1), steps=2)
    assert found.shape == mu.shape
    assert bool(found.isfinite().all())


def test_a_picture_is_restored_alone_as_among_others(pipe: RestorationPipeline) -> None:
    pictures = [picture(x) for x in (images(1)[0], images(1, 1, 7, 9)[0])]
    both = pipe(pictures, ["noisy", "rainy"], 3, seeds=(5, 6)).images
    assert [image.size for image in both] == [(14, 10), (9, 7)]
    assert [image.mode for image in both] == ["RGB", "L"]
    alone = pipe(pictures[1], "rainy", 3, seeds=(6,)).images[0]
    assert alone.tobytes() == both[1].tobytes()


def test_pictures_of_other_modes_are_what_they_show(pipe: RestorationPipeline) -> None:
    colours, grey = picture(images(1)[0]), picture(images(1, 1)[0])
    deep = Image.fromarray(np.asarray(grey, dtype=np.uint16) * 257)
    few = colours.quantize(8)
    for given, plain in ((deep, grey), (few, few.convert("RGB"))):
        one, other = (pipe(each, "noisy", 2).images[0] for each in (given, plain))
        assert one.mode == other.mode
        assert one.tobytes() == other.tobytes()


def test_noise_follows_a_path_if_the_scheduler_says_so(pipe: RestorationPipeline) -> None:
    found = []
    for kind in ("independent", "brownian"):
        pipe.scheduler = SamplerScheduler.from_config(
            pipe.scheduler.config, sampler="mr-sde-d-2", noise=kind
        )
        with torch.no_grad():
            found.append(pipe.restore(images(1), ["noisy"], (0,), steps=5))
    assert not torch.equal(*found)


@pytest.mark.parametrize("sampler", ["ddim", "unipc-2", "mr-sde-d-2", "heun"])
def test_any_sampler_restores(pipe: RestorationPipeline, sampler: str) -> None:
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler=sampler)
    with torch.no_grad():
        found = pipe.restore(images(1), ["noisy"], (0,), steps=5)
    assert bool(found.isfinite().all())


def test_gradients_reach_the_degraded_image_and_the_weights(pipe: RestorationPipeline) -> None:
    found: list[tuple[Tensor, ...]] = []
    pipe.unet.double().requires_grad_()
    for way in (DirectAdjoint(), CheckpointAdjoint()):
        mu = images(1, height=7).double().requires_grad_()
        x0 = pipe.restore(mu, ["rainy"], (2,), steps=4, adjoint=way)
        found.append(torch.autograd.grad(x0.square().sum(), [mu, pipe.unet.conv_in.weight]))
    for one, other in zip(*found, strict=True):
        assert float(one.norm()) > 0
        assert float((one - other).norm() / one.norm()) < 1e-12


def test_it_is_saved_and_loaded_in_a_fresh_process(
    pipe: RestorationPipeline, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path / "saved")
    code = (
        "import sys, torch; from samplers.diffusers.restoration import RestorationPipeline; "
        "pipe = RestorationPipeline.from_pretrained(sys.argv[1]); "
        "x = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8); "
        "torch.save(pipe(x, 'noisy', 3, output_type='pt').images, sys.argv[2])"
    )
    place = tmp_path / "images.pt"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved"), str(place)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
    )
    x = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
    assert torch.equal(torch.load(place), pipe(x, "noisy", 3, output_type="pt").images)


def test_a_network_without_tasks(tmp_path: Path) -> None:
    pipe = load_restoration(tiny_checkpoints.of_restoration(tmp_path, ()), LoadOptions())
    assert pipe(images(1), num_inference_steps=2, output_type="pt").images.shape == (1, 3, 10, 14)
    with pytest.raises(ValueError, match="not conditioned on the degradation"):
        pipe(images(1), "noisy")


# ------------------------------------------------------------------------------------ bad input


def test_what_the_network_can_not_take_is_refused(pipe: RestorationPipeline) -> None:
    cases: list[tuple[Tensor, Any, str]] = [
        (images(1, 2), "noisy", r"C = 3, or 1 for grey"),
        (images(1, 3, 1, 9), "noisy", "9 x 1 pixels; this network needs 2"),
        (images(1), "windy", "There is no task 'windy'; this network has noisy, rainy"),
        (images(1), None, "No task was named; this network has"),
        (images(2), ["noisy"], "1 tasks came for 2 images"),
        (images(1).to(torch.uint8), "noisy", "a tensor of torch.uint8; give values from -1 to 1"),
    ]
    for mu, task, said in cases:
        with pytest.raises(ValueError, match=said):
            pipe(mu, task)
    with pytest.raises(ValueError, match="must be 'pil' or 'pt'"):
        pipe(images(1), "noisy", output_type="np")
    with pytest.raises(ValueError, match="1 seeds came for 2 images"):
        pipe(images(2), "noisy", seeds=(1,))
    with pytest.raises(ValueError, match="1 tasks came for 2 images"):
        pipe.restore(images(2), ["noisy"], (0, 1), 2)
    sizes = [Image.new("RGB", size) for size in ((8, 8), (8, 12))]
    with pytest.raises(ValueError, match="one shape"):
        pipe(sizes, "noisy", output_type="pt")


def test_parts_that_do_not_fit_are_refused(pipe: RestorationPipeline) -> None:
    with pytest.raises(ValueError, match="1 tasks are named, but the network knows 2"):
        RestorationPipeline(pipe.unet, pipe.scheduler, tasks=["noisy"])
    with pytest.raises(ValueError, match="has a VPDiscrete schedule"):
        RestorationPipeline(pipe.unet, SamplerScheduler(), tasks=["noisy", "rainy"])
    clipping = SamplerScheduler.from_config(pipe.scheduler.config, clip_sample=True)
    with pytest.raises(ValueError, match="set clip_sample and thresholding to False"):
        RestorationPipeline(pipe.unet, clipping, tasks=["noisy", "rainy"])


def test_checkpoints_of_another_kind_are_refused(places: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="restores degraded images and samples none"):
        load_checkpoint(places["restoration"], LoadOptions())
    with pytest.raises(CheckpointError, match="samples images and does not restore any"):
        load_restoration(places["plain"], LoadOptions())


def test_a_schedule_of_another_kind_is_a_clear_error(tmp_path: Path) -> None:
    folder = tiny_checkpoints.of_restoration(tmp_path / "changed")
    change(folder / "scheduler" / "scheduler_config.json", schedule="vp")
    with pytest.raises(CheckpointError, match="a network that restores has a mean-reverting one"):
        load_restoration(folder, LoadOptions())


# ---------------------------------------------------------------------------------- the command


def test_one_picture_of_before_and_after(say: Say, tmp_path: Path) -> None:
    said = say("restore {restoration} {colours} --task rainy --steps 3 --output {out}")
    assert said.code == 0, said.err
    assert "1 image restored" in said.out
    parameters = read_parameters(tmp_path / "out.png")
    assert parameters is not None
    assert parameters["task"] == "rainy"
    assert parameters["sampler"]
    assert parameters["grid"]
    assert parameters["network_calls"] == 3
    assert parameters["weights_sha256"]


def test_a_folder_of_restored_pictures(
    say: Say, places: dict[str, Path], pipe: RestorationPipeline, tmp_path: Path
) -> None:
    command = "restore {restoration} {colours} {grey} {wide} --task noisy --steps 2 --seed 4"
    said = say(f"{command} --sampler mr-sde-d-2 --output {tmp_path / 'done'}")
    assert said.code == 0, said.err
    pipe.scheduler = SamplerScheduler.from_config(pipe.scheduler.config, sampler="mr-sde-d-2")
    names = ("colours", "grey", "wide")
    given = [Image.open(places[name]) for name in names]
    expected = pipe(given, "noisy", 2, seeds=(4, 5, 6)).images
    for name, image in zip(names, expected, strict=True):
        with Image.open(tmp_path / "done" / f"{name}.png") as found:
            assert found.size == image.size
            assert found.tobytes() == image.tobytes()
    stored = [read_parameters(tmp_path / "done" / f"{name}.png") for name in names]
    assert [one and one["seeds"] for one in stored] == [[4], [5], [6]]
    assert [one and one["images"] for one in stored] == [[str(places[name])] for name in names]


def test_other_settings_of_the_same_weights_are_not_mixed(say: Say, tmp_path: Path) -> None:
    folder = tiny_checkpoints.of_restoration(tmp_path / "model")
    command = "restore {tmp}/model {colours} --task rainy --steps 2 --output {tmp}/done"
    assert say(command).code == 0
    change(folder / "model_index.json", lambda_inf=0.5)
    say(command).check_sentence(2, "(configs_sha256: model_index.json:")
    change(folder / "scheduler" / "scheduler_config.json", eps=0.01)
    say(command).check_sentence(2, "with other settings")


def test_an_interrupted_folder_is_continued(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as an undisturbed one, and says the PSNR of all."""
    command = "restore {restoration} {colours} {grey} {wide} --degrade noisy --steps 2 --output "
    undisturbed = say(command + "{tmp}/whole")
    assert undisturbed.code == 0, undisturbed.err
    original, calls = RestorationPipeline.restore, 0

    def restore(self: RestorationPipeline, *given: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return original(self, *given, **options)

    monkeypatch.setattr(RestorationPipeline, "restore", restore)
    why = f"Interrupted. 1 of 3 images are restored in {tmp_path / 'done'}; run the same command"
    say(command + "{tmp}/done").check_sentence(130, why)
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["colours.png"]
    said = say(command + "{tmp}/done")
    assert calls == 4
    assert "2 images restored, 1 kept" in said.out
    assert said.out.partition("PSNR")[2] == undisturbed.out.partition("PSNR")[2]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "done" / path.name).read_bytes() == path.read_bytes()


def test_a_picture_restored_with_other_settings_is_kept(
    say: Say, places: dict[str, Path], tmp_path: Path
) -> None:
    given, made = tmp_path / "given.png", tmp_path / "done" / "given.png"
    given.write_bytes(places["colours"].read_bytes())
    command = "restore {restoration} {tmp}/given.png --task noisy --output {tmp}/done --steps "
    assert say(command + "2").code == 0
    first = made.read_bytes()
    say(command + "3").check_sentence(2, f"{made} exists already, with other settings (steps: 2")
    say(command + "2 --seed 1").check_sentence(2, "(seeds: [0], not [1])")
    given.write_bytes(places["wide"].read_bytes())
    say(command + "2").check_sentence(2, "(images_sha256: ")
    assert made.read_bytes() == first
    assert say(command + "2 --overwrite").code == 0
    assert made.read_bytes() != first
    assert "0 images restored, 1 kept" in say(command + "2").out


def test_a_picture_is_restored_upright(say: Say, places: dict[str, Path], tmp_path: Path) -> None:
    """As a camera noted that it was held: a quarter turn."""
    with Image.open(places["wide"]) as image:
        lying = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=exif)
    said = say("restore {restoration} {tmp}/phone.jpg --task noisy --steps 1 --output {tmp}/up")
    assert said.code == 0, said.err
    with Image.open(tmp_path / "up" / "phone.png") as found:
        assert found.size == lying.size[::-1]


def test_no_picture_takes_the_place_of_another(
    say: Say, places: dict[str, Path], tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.png").write_bytes(places["grey"].read_bytes())
    before = (tmp_path / "a" / "one.png").read_bytes()
    command = "restore {restoration} {tmp}/a {tmp}/b --task noisy --output {tmp}/c"
    say(command).check_sentence(2, "would both become")
    command = "restore {restoration} {tmp}/a --task noisy --output {tmp}/a --overwrite"
    say(command).check_sentence(2, "is one of the given files")
    command = (
        "restore {restoration} {tmp}/a/one.png --task noisy --output {tmp}/a/one.png --overwrite"
    )
    say(command).check_sentence(2, "is one of the given files")
    (tmp_path / "d" / "one.png").mkdir(parents=True)
    command = "restore {restoration} {tmp}/a --task noisy --output {tmp}/d"
    say(command).check_sentence(2, "one.png is a folder; name a file")
    assert (tmp_path / "a" / "one.png").read_bytes() == before


def test_pictures_may_be_degraded_first(say: Say, places: dict[str, Path]) -> None:
    said = say("restore {restoration} {colours} --degrade noisy --steps 2 --output {out}")
    assert said.code == 0, said.err
    x = torch.from_numpy(np.array(Image.open(places["colours"]))).permute(2, 0, 1)[None]
    clean = x / 127.5 - 1
    error = (degrade(clean, ["noisy"], (0,)) - clean).square().mean()
    assert f"{float(10 * torch.log10(4 / error)):.1f} dB before" in said.out


def test_all_pictures_are_checked_before_the_first_is_restored(say: Say, tmp_path: Path) -> None:
    for name, size in (("a", 8), ("b", 1)):
        (tmp_path / "some").mkdir(exist_ok=True)
        picture(images(1, 1, size, size)[0]).save(tmp_path / "some" / f"{name}.png")
    said = say("restore {restoration} {tmp}/some --task noisy --output {tmp}/done")
    said.check_sentence(2, "b.png: The images are of 1 x 1 pixels")
    assert not (tmp_path / "done").exists()
    many = " ".join(["{colours}"] * 21)
    said = say(f"restore {{restoration}} {many} --task noisy --output {{out}}")
    said.check_sentence(2, "one figure shows 20 at most")


def test_what_is_told_no_degradation_may_be_tried_with_any(say: Say, tmp_path: Path) -> None:
    tiny_checkpoints.of_restoration(tmp_path / "untold", ())
    said = say("restore {tmp}/untold {colours} --degrade snowy --steps 2 --output {out}")
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("code", "arguments", "why"),
    [
        (2, "{restoration} {colours} --output {out}", "No task was named"),
        (2, "{restoration} {colours} --task windy --output {out}", "There is no task 'windy'"),
        (2, "{restoration} {colours} --degrade windy --output {out}", "no degradation named"),
        (2, "{restoration} {colours} --degrade snowy --output {out}", "no task 'snowy'"),
        (2, "{restoration} {opacity} --task rainy --output {out}", "in colour with opacity"),
        (1, "{restoration} {broken} --task rainy --output {out}", "can't be read as an image"),
        (1, "{restoration} {tmp} --task rainy --output {out}", "holds no image"),
        (1, "{plain} {colours} --task rainy --output {out}", "does not restore any"),
        (1, "{tmp} {colours} --task rainy --output {out}", "is not a diffusers checkpoint"),
        (2, "{restoration} {colours} --task rainy --sampler a --output {out}", "no sampler named"),
        (2, "{restoration} {colours} --task rainy --sampler rk23 --output {out}", "of fixed steps"),
        (
            2,
            "{restoration} {colours} --degrade noisy --seed 9999999999999999999999 --output {out}",
            "a whole number from 0 up to 2^63 - 1",
        ),
        (2, "{restoration} {colours} --task rainy --steps 0 --output {out}", "from 1 to"),
        (2, "{restoration} {colours} --task rainy --output {tmp}/a.jpg", "name it .png"),
        (2, "{restoration} {colours} --task rainy --option a=1 --output {out}", "no option 'a'"),
    ],
)
def test_bad_input_ends_in_one_sentence(say: Say, code: int, arguments: str, why: str) -> None:
    say(f"restore {arguments}").check_sentence(code, why)


def test_sampling_from_such_a_checkpoint_says_what_to_use(say: Say) -> None:
    said = say("sample {restoration} --output {out}")
    said.check_sentence(1, "use `samplers restore`")
