"""Checkpoints: folders of diffusers as something that draws images from seeds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, UNet2DModel, VQModel
from torch import Tensor

from samplers.checkpoint import (
    Checkpoint,
    CheckpointError,
    Flow,
    LoadOptions,
    NetworkCheckpoint,
    PipelineCheckpoint,
    Recipe,
    load_checkpoint,
    read_settings,
)
from samplers.denoiser import Denoiser
from samplers.errors import NotFiniteError
from samplers.noise import initial_noise
from samplers.probability_flow.integration import Adaptive
from samplers.sampling import sample
from tests import tiny_checkpoints
from tests.tiny_checkpoints import CLASSES, NULL, SIZE, change
from tests.tiny_pipelines import stable_diffusion_3

RECIPE = Recipe(steps=3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    makers: dict[str, Callable[[Path], Path]] = {
        "unconditional": tiny_checkpoints.unconditional,
        "classes": tiny_checkpoints.of_classes,
        "transformer": tiny_checkpoints.transformer_of_classes,
        "prompts": tiny_checkpoints.of_prompts,
    }
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make(root / name) for name, make in makers.items()}


def network_of(folder: Path, options: LoadOptions | None = None) -> NetworkCheckpoint:
    checkpoint = load_checkpoint(folder, options or LoadOptions())
    assert isinstance(checkpoint, NetworkCheckpoint)
    return checkpoint


@pytest.fixture
def classes(folders: dict[str, Path]) -> NetworkCheckpoint:
    return network_of(folders["classes"])


def draw(
    checkpoint: Checkpoint,
    recipe: Recipe = RECIPE,
    seeds: tuple[int, ...] = (0, 1),
    labels: tuple[int, ...] | None = None,
) -> Tensor:
    return checkpoint.draw(checkpoint.settle(recipe), seeds, labels, lambda: None)


# ----------------------------------------------------------------------------- what is drawn


def test_unconditional_is_the_front_door(folders: dict[str, Path]) -> None:
    """The same image as from the library's own function on the same network."""
    folder = folders["unconditional"]
    unet = UNet2DModel.from_pretrained(folder / "unet").eval()
    settings = read_settings(folder)
    with torch.no_grad():
        expected = sample(
            Denoiser(
                lambda x, t: unet(x, t).sample, settings.schedule, correction=settings.correction
            ),
            initial_noise((0, 1), (3, SIZE, SIZE)).float(),
            sampler="ancestral",
            grid=settings.grid(3),
            seeds=(0, 1),
        )
    drawn = draw(load_checkpoint(folder, LoadOptions()), replace(RECIPE, sampler="ancestral"))
    assert torch.equal(drawn, expected)


def test_labels_and_guidance_matter(classes: Checkpoint) -> None:
    assert classes.classes == (0, 1, 2)
    assert classes.null_label == NULL
    plain = draw(classes, labels=(0, 1))
    guided = replace(RECIPE, guidance=2.0)
    assert not torch.equal(plain, draw(classes, labels=(1, 1)))
    assert not torch.equal(plain, draw(classes, guided, labels=(0, 1)))
    rescaled = draw(classes, replace(guided, guidance_rescale=0.7), labels=(0, 1))
    assert not torch.equal(draw(classes, guided, labels=(0, 1)), rescaled)


def test_guidance_of_zero_asks_for_no_class(classes: Checkpoint) -> None:
    null = draw(classes, replace(RECIPE, guidance=0.0), labels=(0, 1))
    torch.testing.assert_close(null, draw(classes, labels=(NULL, NULL)))


def test_an_image_depends_on_its_seed_alone(classes: Checkpoint) -> None:
    together = draw(classes, replace(RECIPE, sampler="ancestral"), (5, 6, 7), (0, 1, 2))
    alone = draw(classes, replace(RECIPE, sampler="ancestral"), (6,), (1,))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_brownian_noise_is_another(folders: dict[str, Path], classes: Checkpoint) -> None:
    ancestral = replace(RECIPE, sampler="ancestral")
    brownian = replace(ancestral, noise="brownian")
    assert not torch.equal(
        draw(classes, ancestral, labels=(0, 1)), draw(classes, brownian, labels=(0, 1))
    )
    with pytest.raises(ValueError, match="not a function of a Brownian path"):
        classes.tableau(replace(RECIPE, sampler="edm-churn", noise="brownian"))


def test_what_is_watched_ends_at_what_is_drawn(folders: dict[str, Path]) -> None:
    checkpoint = network_of(folders["transformer"])
    recipe = checkpoint.settle(RECIPE)
    frames = list(checkpoint.watch(recipe, (4, 5), (0, 1)))
    assert len(frames) == checkpoint.tableau(recipe).calls + 1
    assert all(frame.shape == (2, 3, SIZE, SIZE) for frame in frames)
    assert torch.equal(frames[-1], draw(checkpoint, seeds=(4, 5), labels=(0, 1)))


@pytest.mark.parametrize(("kind", "atol"), [("classes", 2e-2), ("transformer", 1e-1)])
def test_adaptive_steps_come_to_the_same_images(
    folders: dict[str, Path], kind: str, atol: float
) -> None:
    """As many fixed steps do, and alone as in a batch. (The transformer's x_0 are clipped.)"""
    checkpoint = network_of(folders[kind], LoadOptions(dtype=torch.float64))
    recipe = checkpoint.settle(replace(RECIPE, steps=120, sampler="heun", grid="log-snr"))
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1

    flow = Flow(checkpoint, recipe, Adaptive("dormand-prince", 1e-4, 1e-4), tick)
    found = flow.draw((4, 5), (0, 1))
    assert bool(found.within_tolerance.all())
    assert int(found.nfe.max()) <= calls <= int(found.nfe.sum())
    expected = checkpoint.draw(recipe, (4, 5), (0, 1), lambda: None)
    torch.testing.assert_close(found.x, expected, rtol=0, atol=atol)
    alone = flow.draw((5,), (1,))
    torch.testing.assert_close(found.x[1:], alone.x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes(folders: dict[str, Path], classes: Checkpoint, dtype: torch.dtype) -> None:
    other = load_checkpoint(folders["classes"], LoadOptions(dtype=dtype))
    guided = replace(RECIPE, guidance=1.5)
    expected = draw(classes, guided, labels=(0, 1))
    error = (draw(other, guided, labels=(0, 1)).double() - expected).abs().max()
    assert error < (1e-3 if dtype == torch.float64 else 0.3)


def test_transformer(folders: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(folders["transformer"], LoadOptions())
    assert checkpoint.classes == (0, 1)
    assert checkpoint.null_label == 2
    images = draw(checkpoint, replace(RECIPE, guidance=2.0), labels=(0, 1))
    assert images.shape == (2, 3, SIZE, SIZE)
    assert set(checkpoint.identity.weights_sha256) == {
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_latents_are_decoded(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints.of_latents(tmp_path / "latents"), LoadOptions())
    assert len(checkpoint.identity.weights_sha256) == 2
    assert draw(checkpoint).shape == (2, 3, 2 * SIZE, 2 * SIZE)


def test_flow_matching(tmp_path: Path) -> None:
    """A flow network is told 1000 t, and its own final level is 0."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    folder = tiny_checkpoints.unconditional(tmp_path / "flow", scheduler)
    checkpoint = load_checkpoint(folder, LoadOptions())
    unet = UNet2DModel.from_pretrained(folder / "unet").eval()
    with torch.no_grad():
        expected = sample(
            Denoiser(lambda x, t: unet(x, 1000 * t).sample, checkpoint.settings.schedule, "flow"),
            initial_noise((0, 1), (3, SIZE, SIZE)).float(),
            grid=checkpoint.settings.grid(3),
        )
    assert torch.equal(draw(checkpoint), expected)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "ancestral"])
def test_prompts(folders: dict[str, Path], sampler: str) -> None:
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1

    checkpoint = load_checkpoint(folders["prompts"], LoadOptions())
    recipe = checkpoint.settle(Recipe(sampler, 3, prompt="a cat", guidance_rescale=0.5))
    assert recipe.guidance == 7.5
    images = checkpoint.draw(recipe, (4, 5), None, tick)
    assert images.shape == (2, 3, SIZE, SIZE)
    assert calls == checkpoint.tableau(recipe).calls
    alone = checkpoint.draw(recipe, (5,), None, tick)
    torch.testing.assert_close(alone, images[1:], rtol=0, atol=1e-4)
    negative = replace(recipe, negative_prompt="dog")
    assert not torch.equal(checkpoint.draw(negative, (5,), None, tick), alone)


def test_the_calls_are_ticked(classes: Checkpoint) -> None:
    ticks: list[int] = []
    recipe = classes.settle(replace(RECIPE, sampler="heun"))
    classes.draw(recipe, (0,), (0,), lambda: ticks.append(1))
    assert len(ticks) == classes.tableau(recipe).calls == 5


def test_weights_are_named_by_their_hash(folders: dict[str, Path], classes: Checkpoint) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256((folders["classes"] / name).read_bytes()).hexdigest()
    assert classes.identity.weights_sha256 == {name: digest}


# --------------------------------------------------------------------- the parts of a network


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_network_is_a_function(folders: dict[str, Path], classes: NetworkCheckpoint) -> None:
    unet = UNet2DModel.from_pretrained(folders["classes"] / "unet").eval()
    x, t = normal(2, *classes.shape), torch.tensor([900.0, 20.0])
    with torch.no_grad():
        known, unknown = (
            unet(x, t, class_labels=torch.tensor(labels)).sample for labels in ((0, 2), (3, 3))
        )
        given = classes.conditions((0, 2))
        assert torch.equal(classes.denoiser()(x, t, **given), known)
        guided = classes.denoiser(guidance=2.0)(x, t, **given)
    torch.testing.assert_close(guided, 2 * known - unknown)


def test_its_parts_make_what_the_checkpoint_draws(classes: NetworkCheckpoint) -> None:
    guided = replace(RECIPE, guidance=2.0, guidance_rescale=0.7)
    settings = classes.settings
    with torch.no_grad():
        expected = sample(
            classes.denoiser(2.0, 0.7),
            initial_noise((0, 1), classes.shape).to(classes.device, classes.dtype),
            grid=settings.grid(3),
            conditions=classes.conditions((0, 1)),
        )
    assert torch.equal(classes.decode(expected), draw(classes, guided, labels=(0, 1)))


def test_the_network_computes_in_its_own_dtype(folders: dict[str, Path]) -> None:
    half = network_of(folders["classes"], LoadOptions(dtype=torch.bfloat16))
    assert (half.dtype, half.device) == (torch.bfloat16, torch.device("cpu"))
    output = half.denoiser()(normal(1, *half.shape), torch.ones(1), **half.conditions((0,)))
    assert output.dtype == torch.float32


def test_guidance_needs_something_to_guide_from(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="has no classes"):
        network_of(folders["unconditional"]).denoiser(guidance=2.0)


def test_gradients_flow_through_the_parts(folders: dict[str, Path]) -> None:
    latents = network_of(folders["transformer"])
    images = normal(1, 3, SIZE, SIZE).requires_grad_()
    x = latents.encode(images)
    output = latents.denoiser()(x, torch.ones(1), **latents.conditions((0,)))
    latents.decode(output).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.any())


def test_pixels_are_their_own_latents(classes: NetworkCheckpoint) -> None:
    assert classes.shape == (1, SIZE, SIZE)
    images = normal(2, *classes.shape)
    assert classes.encode(images) is images
    assert classes.decode(images) is images


def test_the_latents_are_scaled_means(folders: dict[str, Path]) -> None:
    checkpoint = network_of(folders["transformer"])
    autoencoder = AutoencoderKL.from_pretrained(folders["transformer"] / "vae").eval()
    scale = autoencoder.config.scaling_factor
    images = normal(2, 3, SIZE, SIZE)
    with torch.no_grad():
        latents = checkpoint.encode(images)
        assert latents.shape == (2, *checkpoint.shape) == (2, 4, 4, 4)
        expected = scale * autoencoder.encode(images).latent_dist.mean
        torch.testing.assert_close(latents, expected)
        decoded = checkpoint.decode(latents)
        torch.testing.assert_close(decoded, autoencoder.decode(latents / scale).sample)
    assert decoded.shape == images.shape


def test_latents_of_a_codebook(tmp_path: Path) -> None:
    folder = tiny_checkpoints.of_latents(tmp_path / "latents")
    checkpoint = network_of(folder, LoadOptions(dtype=torch.float64))
    autoencoder = VQModel.from_pretrained(folder / "vqvae", torch_dtype=torch.float64).eval()
    images = normal(2, 3, 2 * SIZE, 2 * SIZE)
    with torch.no_grad():
        latents = checkpoint.encode(images)
        expected = autoencoder.encode(images.double()).latents * autoencoder.config.scaling_factor
    assert latents.shape == (2, *checkpoint.shape) == (2, 3, SIZE, SIZE)
    assert latents.dtype == images.dtype
    torch.testing.assert_close(latents, expected.float())
    assert checkpoint.decode(latents).shape == images.shape


# ---------------------------------------------------------------------------- what is refused


def copy_of(folder: Path, to: Path) -> Path:
    for file in folder.rglob("*.*"):
        (to / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (to / file.relative_to(folder)).write_bytes(file.read_bytes())
    return to


@pytest.fixture
def broken(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the class-conditional checkpoint, to be damaged."""
    return copy_of(folders["classes"], tmp_path / "broken")


def refusal(folder: Path, options: LoadOptions | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, options or LoadOptions())
    return str(caught.value)


def weights_of(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def test_missing(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nothing")
    assert "no model_index.json" in refusal(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"")
    assert "single file" in refusal(tmp_path / "model.ckpt")


def test_truncated(broken: Path) -> None:
    data = weights_of(broken).read_bytes()
    weights_of(broken).write_bytes(data[: len(data) // 2])
    assert "no whole safetensors file" in refusal(broken)


def test_not_safetensors(broken: Path) -> None:
    weights_of(broken).write_bytes(b"this is no tensor" * 10)
    assert "no whole safetensors file" in refusal(broken)
    weights_of(broken).unlink()
    assert "has no weights" in refusal(broken)


def test_weights_of_another_network(broken: Path) -> None:
    change(broken / "unet" / "config.json", layers_per_block=2)
    assert "weights" in refusal(broken)
    change(broken / "unet" / "config.json", layers_per_block=1, block_out_channels=[8, 8])
    assert str(broken) in refusal(broken)


def test_a_network_that_no_memory_holds(broken: Path) -> None:
    """PyTorch's own message is of its allocator."""
    change(broken / "unet" / "config.json", block_out_channels=[10_000_000, 10_000_000])
    assert refusal(broken).endswith("unet can't be loaded: it needs more memory than there is")


@pytest.mark.parametrize("steps", [10**9, 0, -1])
def test_a_training_of_absurd_length(broken: Path, steps: int) -> None:
    change(broken / "scheduler" / "scheduler_config.json", num_train_timesteps=steps)
    assert "num_train_timesteps is" in refusal(broken)


def test_broken_json(broken: Path) -> None:
    (broken / "unet" / "config.json").write_text("{")
    assert str(broken) in refusal(broken)
    (broken / "model_index.json").write_text("{")
    assert "not valid JSON" in refusal(broken)
    (broken / "model_index.json").write_text("[]")
    assert "not a JSON object" in refusal(broken)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("unet/config.json", '"someone/model"', "holds a str, not a JSON object"),
        ("unet/config.json", "[" * 100_000, "not valid JSON"),
        ("model_index.json", "[" * 100_000, "not valid JSON"),
        ("model_index.json", '{"_class_name": "DDPMPipeline", "unet": "someone/model"}',
         "no class for its unet"),
    ],
)  # fmt: skip
def test_no_file_sends_us_to_the_hub(
    broken: Path, file: str, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers takes a text for a name on the hub, even where it may read local files only."""

    def connect(*_: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("socket.getaddrinfo", connect)
    (broken / file).write_text(text)
    assert said in refusal(broken)


@pytest.mark.parametrize("component", ["tokenizer", "text_encoder", "unet", "vae"])
def test_a_missing_component_is_named(
    folders: dict[str, Path], tmp_path: Path, component: str
) -> None:
    folder = copy_of(folders["prompts"], tmp_path / "copy")
    shutil.rmtree(folder / component)
    assert f"lacks its {component}" in refusal(folder)


def test_scheduler_of_unknown_kind(broken: Path) -> None:
    path = broken / "scheduler" / "scheduler_config.json"
    change(path, _class_name="VQDiffusionScheduler")
    assert "VQDiffusionScheduler" in refusal(broken)
    path.unlink()
    assert "no noise schedule" in refusal(broken)


def test_pickles_need_to_be_allowed(broken: Path, classes: Checkpoint) -> None:
    unet = UNet2DModel.from_pretrained(broken / "unet")
    weights_of(broken).unlink()
    torch.save(unet.state_dict(), broken / "unet" / "diffusion_pytorch_model.bin")
    assert "--allow-pickle" in refusal(broken)
    allowed = load_checkpoint(broken, LoadOptions(allow_pickle=True))
    assert torch.equal(draw(allowed, labels=(0, 1)), draw(classes, labels=(0, 1)))


class Malicious:
    """A pickle that would leave a file behind if it were run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_an_allowed_pickle_runs_no_code(broken: Path, tmp_path: Path) -> None:
    weights_of(broken).unlink()
    bomb = {"weight": Malicious(tmp_path / "exploded")}
    torch.save(bomb, broken / "unet" / "diffusion_pytorch_model.bin")
    assert str(broken) in refusal(broken, LoadOptions(allow_pickle=True))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("StableDiffusionImg2ImgPipeline", "starts from an image"),
        ("TextToVideoSDPipeline", "makes videos"),
        ("AudioLDMPipeline", "makes sound"),
        ("MyOwnPipeline", "does not know"),
        ("UnCLIPImageVariationPipeline", "neither a class nor a prompt"),
    ],
)
def test_pipelines_that_cannot_be_sampled(
    folders: dict[str, Path], tmp_path: Path, name: str, why: str
) -> None:
    folder = copy_of(folders["prompts"], tmp_path / "other")
    change(folder / "model_index.json", _class_name=name)
    assert why in refusal(folder)


def test_a_pipeline_that_was_saved_without_a_component(tmp_path: Path) -> None:
    """Stable Diffusion 3 without its T5, whose place in the index is [null, null]."""
    stable_diffusion_3().pipe.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, LoadOptions())
    assert isinstance(loaded, PipelineCheckpoint)
    assert loaded.pipeline.components["text_encoder_3"] is None


def test_an_autoencoder_that_was_omitted_is_none(broken: Path) -> None:
    change(broken / "model_index.json", vae=[None, None])
    loaded = load_checkpoint(broken, LoadOptions())
    assert isinstance(loaded, NetworkCheckpoint)
    assert loaded.of_pixels


def test_null_labels(broken: Path) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    del index["_null_label"]
    (broken / "model_index.json").write_text(json.dumps(index))
    silent = network_of(broken)
    assert silent.classes == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="--null-label"):
        silent.settle(replace(RECIPE, guidance=2.0))
    with pytest.raises(ValueError, match="--null-label"):
        silent.denoiser(guidance=2.0)
    told = load_checkpoint(broken, LoadOptions(null_label=NULL))
    assert told.classes == tuple(range(CLASSES))
    with pytest.raises(ValueError, match="from 0 to 3"):
        load_checkpoint(broken, LoadOptions(null_label=4))


def test_impossible_recipes(folders: dict[str, Path], classes: Checkpoint) -> None:
    plain = load_checkpoint(folders["unconditional"], LoadOptions())
    prompts = load_checkpoint(folders["prompts"], LoadOptions())
    impossible: list[tuple[Checkpoint, Recipe, str]] = [
        (plain, replace(RECIPE, guidance=2.0), "has no classes"),
        (classes, replace(RECIPE, prompt="a cat"), "no prompt"),
        (classes, replace(RECIPE, guidance_rescale=2.0), "rescale"),
        (prompts, RECIPE, "--prompt"),
    ]
    for checkpoint, recipe, why in impossible:
        with pytest.raises(ValueError, match=why):
            checkpoint.settle(recipe)
    with pytest.raises(ValueError, match="sigma_min"):
        classes.tableau(replace(RECIPE, sigma_min=1e6))


@pytest.mark.parametrize("kind", ["classes", "prompts"])
def test_not_finite(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = copy_of(folders[kind], tmp_path / "nan")
    checkpoint = load_checkpoint(folder, LoadOptions())
    network = checkpoint._network if kind == "classes" else checkpoint.pipeline.unet  # type: ignore[attr-defined]
    with torch.no_grad():
        network.conv_out.bias.fill_(torch.nan)
    recipe, labels = (RECIPE, (0, 1)) if kind == "classes" else (replace(RECIPE, prompt="a"), None)
    with pytest.raises(NotFiniteError, match="evaluation 1 of 3"):
        draw(checkpoint, recipe, labels=labels)
