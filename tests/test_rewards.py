"""Rewards: each is a number an image with its gradient, and nothing that is none gets through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from adjoint.rewards import (
    Placement,
    Reward,
    RewardKind,
    build_reward,
    checked_reward,
    get_reward,
    list_rewards,
)
from adjoint.rewards.features import gram_matrix
from adjoint.rewards.networks import load_classifier, load_features, load_function
from adjoint.rewards.pretrained import Preparation, read_preparation
from adjoint.rewards.reward import of_images
from samplers.errors import NotFiniteError
from tests import tiny_checkpoints

ROOT = Path(__file__).parents[1]
DOUBLE = Placement(torch.float64)
CLASSES = 3
SIDE = 8
"""Of the images that the tiny networks of transformers want."""

PROCESSOR: dict[str, Any] = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.2, 0.25],
    "size": {"height": SIDE, "width": SIDE},
}
EACH = pytest.mark.parametrize("kind", [*map(get_reward, list_rewards())], ids=list_rewards())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).tanh()


def exact(name: str, options: dict[str, Any] | None = None) -> Reward:
    """The reward in float64."""
    return build_reward(name, options, DOUBLE)


# ------------------------------------------------------------------------- functions of a user


def mean_level(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3))


def smooth_features(x: Tensor) -> list[Tensor]:
    """A map that knows places not, and one at half the resolution that does not either."""
    weight = normal(4, x.shape[1], 1, 1, seed=5).to(x)
    return [F.conv2d(x, weight).tanh(), F.conv2d(F.avg_pool2d(x, 2), 2 * weight).sin()]


def smooth_logits(x: Tensor) -> Tensor:
    return 3 * x.flatten(1) @ normal(x[0].numel(), CLASSES, seed=6).to(x)


def probabilities(x: Tensor) -> Tensor:
    return smooth_logits(x).softmax(1)


def summed(x: Tensor) -> Tensor:
    return x.sum()


def with_a_column(x: Tensor) -> Tensor:
    return mean_level(x)[:, None]


def whole_numbers(x: Tensor) -> Tensor:
    return mean_level(x).long()


def python_numbers(x: Tensor) -> list[float]:
    return mean_level(x).tolist()


def without_gradient(x: Tensor) -> Tensor:
    return mean_level(x.detach())


def logarithm(x: Tensor) -> Tensor:
    return mean_level(x).log()


def one_map(x: Tensor) -> Tensor:
    return smooth_features(x)[0]


def flat_maps(x: Tensor) -> list[Tensor]:
    return [maps.flatten(2) for maps in smooth_features(x)]


A_NUMBER = 3


def own(function: Callable[..., object]) -> str:
    return f"{__name__}:{function.__name__}"


# -------------------------------------------------------------------------------- what is on disk


def save_picture(path: Path, *shape: int, seed: int = 0) -> str:
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return str(path)


def values_of(path: str) -> Tensor:
    """The values of a picture from -1 to 1, [1, C, H, W]."""
    levels = torch.from_numpy(np.atleast_3d(np.array(Image.open(path)))).double()
    return levels.permute(2, 0, 1)[None] / 127.5 - 1


def digits(folder: Path) -> Path:
    """A classifier of digits with few weights, which the example's own code writes."""
    example = run_path(str(ROOT / "examples" / "digits" / "classifier.py"), run_name="builtins")
    torch.manual_seed(0)
    config = example["ClassifierConfig"](channels=(2, 3, 4), width=5, classes=CLASSES)
    network = example["DigitClassifier"](config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            torch.nn.init.normal_(module.get_buffer("running_mean"))
            torch.nn.init.uniform_(module.weight, 1, 2)
    example["save_classifier"](network, config, folder)
    return folder


def save(model: Any, folder: Path, **processor: object) -> Path:
    """A model of transformers with the settings of an image processor beside it."""
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **processor}))
    return folder


_LAYERS = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_VISION = {**_LAYERS, "image_size": SIDE, "patch_size": 4}
RESNET = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}


def clip_like(folder: Path, words: Path, config: Any, model: Any) -> Path:
    """A model of images and texts, with a tokenizer of small letters."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(words)
    text = {
        **_LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 8,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    tokenizer.save_pretrained(folder)
    return save(model(config(text_config=text, vision_config=_VISION)), folder)


class OnDisk(NamedTuple):
    """Paths; the pictures are of 28 x 28 pixels and grey, if not said otherwise."""

    picture: str
    coloured: str
    large: str
    broken: str
    opaque: str
    digits: str
    clip: str
    siglip: str
    resnet: str
    vit: str
    headless: str
    empty: str

    def options(self, kind: RewardKind) -> dict[str, Any]:
        """Options for any row of the registry, by the names that options have."""
        known = {
            "target": self.picture,
            "style": self.picture,
            "network": self.digits,
            "folder": self.clip,
            "label": 1,
            "text": "a cat",
        }
        needed = {"label", *(n for n, o in kind.options.items() if o.is_required())}
        return {name: known[name] for name in kind.options if name in needed}

    def filled(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options with the paths in the place of their names in braces."""
        paths = self._asdict()
        return {
            name: value.format(**paths) if isinstance(value, str) else value
            for name, value in options.items()
        }


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    root = tmp_path_factory.mktemp("rewards")
    torch.manual_seed(2)
    words = tiny_checkpoints.of_prompts(root / "prompts") / "tokenizer"
    picture = save_picture(root / "picture.png", 28, 28)
    (root / "broken.png").write_bytes(Path(picture).read_bytes()[:60])
    (root / "empty").mkdir()
    classifier = ResNetForImageClassification(ResNetConfig(**RESNET, num_labels=CLASSES))
    vit = ViTForImageClassification(ViTConfig(**_VISION, num_labels=CLASSES))
    return OnDisk(
        picture,
        save_picture(root / "coloured.png", 8, 8, 3),
        save_picture(root / "large.png", 16, 16, 3),
        str(root / "broken.png"),
        save_picture(root / "opaque.png", 8, 8, 4),
        str(digits(root / "digits")),
        str(clip_like(root / "clip", words, CLIPConfig, CLIPModel)),
        str(clip_like(root / "siglip", words, SiglipConfig, SiglipModel)),
        str(save(classifier, root / "resnet")),
        str(save(vit, root / "vit")),
        str(save(ResNetModel(ResNetConfig(**RESNET)), root / "headless")),
        str(root / "empty"),
    )


# ------------------------------------------------------------------------------- every reward


def built(kind: RewardKind, on_disk: OnDisk) -> Reward:
    return exact(kind.name, on_disk.options(kind))


def gradient(reward: Reward, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad(reward(x).sum(), x)
    return found


@EACH
def test_the_gradient_is_that_of_the_value(kind: RewardKind, on_disk: OnDisk) -> None:
    reward, x = built(kind, on_disk), images(2, 1, 28, 28).requires_grad_()
    assert torch.autograd.gradcheck(reward, (x,), fast_mode=True)
    assert bool((gradient(reward, x).flatten(1).norm(dim=1) > 0).all())


@EACH
def test_images_of_a_batch_are_strangers(kind: RewardKind, on_disk: OnDisk) -> None:
    reward, x = built(kind, on_disk), images(3, 1, 28, 28)
    alone = [reward(x[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(reward(x), torch.cat(alone), rtol=1e-10, atol=1e-10)
    slopes = [gradient(reward, x[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(gradient(reward, x), torch.cat(slopes), rtol=1e-10, atol=1e-10)


@EACH
def test_products_by_torch_func_are_those_of_autograd(kind: RewardKind, on_disk: OnDisk) -> None:
    x, weights, reward = images(2, 1, 28, 28), normal(2), built(kind, on_disk)
    value, pull = torch.func.vjp(reward, x)[:2]
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(reward(at) @ weights, at)
    torch.testing.assert_close(pull(weights)[0], expected)
    torch.testing.assert_close(value, reward(x))


@EACH
def test_images_of_any_precision_are_brought_to_its_place(
    kind: RewardKind, on_disk: OnDisk
) -> None:
    x, single = images(2, 1, 28, 28).bfloat16(), build_reward(kind.name, on_disk.options(kind))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        found = single(x.to(dtype))
        assert found.dtype == torch.float32
        assert gradient(single, x.to(dtype)).dtype == dtype
        expected = built(kind, on_disk)(x)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@EACH
def test_rows_are_complete(kind: RewardKind) -> None:
    assert get_reward(kind.name.upper().replace("-", "_")) == kind
    assert kind.description.strip()
    assert "\n" not in kind.description
    assert kind.reference.strip()
    assert all(option.annotation is not Any for option in kind.options.values())


@EACH
def test_options_are_checked(kind: RewardKind, on_disk: OnDisk) -> None:
    good = on_disk.options(kind)
    for name in (name for name in good if kind.options[name].is_required()):
        without = {key: value for key, value in good.items() if key != name}
        with pytest.raises(ValueError, match=f"{kind.name!r} lacks the option {name!r}; set it"):
            build_reward(kind.name, without)
    for name in kind.options:
        for wrong in ({"a": 1}, True, None, [[1]]):
            if wrong is not None or kind.options[name].is_required():
                with pytest.raises(
                    ValueError, match=rf"{kind.name!r} has {name}.* = .*; it must be a "
                ):
                    build_reward(kind.name, {**good, name: wrong})
    with pytest.raises(ValueError, match=rf"{kind.name!r} has no option 'sign'; it has "):
        build_reward(kind.name, {**good, "sign": -1})


def test_names_are_unique() -> None:
    assert len(set(list_rewards())) == len(list_rewards())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("pixels", "did you mean 'pixel'"),
        ("class-probability", "did you mean 'class-log-probability'"),
        ("§§§§", "take one of pixel, feature"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_reward(wrong, {})


# ------------------------------------------------------------------------------- one by one


def test_pixels(on_disk: OnDisk) -> None:
    reward, target = (
        exact("pixel", {"target": on_disk.coloured}),
        values_of(on_disk.coloured),
    )
    x = images(2, 3, 8, 8)
    assert reward(target).tolist() == [0]
    torch.testing.assert_close(gradient(reward, x), -2 * (x - target) / (3 * 8 * 8))


def test_a_palette_and_a_jpeg_are_pictures(on_disk: OnDisk, tmp_path: Path) -> None:
    palette = Image.open(on_disk.coloured).quantize(16)
    palette.save(tmp_path / "palette.png")
    palette.convert("RGB").save(tmp_path / "plain.png")
    palette.convert("RGB").save(tmp_path / "picture.jpg", quality=100, subsampling=0)
    reward = exact("pixel", {"target": str(tmp_path / "palette.png")})
    assert reward(values_of(str(tmp_path / "plain.png"))).tolist() == [0]
    reward = exact("pixel", {"target": str(tmp_path / "picture.jpg")})
    assert -1e-3 < float(reward(values_of(str(tmp_path / "plain.png")))) <= 0


def test_features(on_disk: OnDisk) -> None:
    target, x = values_of(on_disk.coloured), images(2, 3, 8, 8)
    options: dict[str, Any] = {"target": on_disk.coloured, "network": own(smooth_features)}
    first, second = (
        -(f - g).square().mean((1, 2, 3))
        for f, g in zip(smooth_features(x), smooth_features(target), strict=True)
    )
    torch.testing.assert_close(exact("feature", options)(x), first + second)
    assert exact("feature", options)(target).tolist() == [0]
    for layers, expected in (([0], first), ([-1], second), ([1, 0], first + second)):
        torch.testing.assert_close(exact("feature", {**options, "layers": layers})(x), expected)
    weighted = exact("feature", {**options, "layers": [1, 0], "weights": [2, 0.5]})
    torch.testing.assert_close(weighted(x), 2 * second + 0.5 * first)


@pytest.mark.parametrize("name", ["feature", "gram"])
def test_smooth_features_in_full(name: str, on_disk: OnDisk) -> None:
    target = {"feature": "target", "gram": "style"}[name]
    reward = exact(name, {target: on_disk.coloured, "network": own(smooth_features)})
    assert torch.autograd.gradcheck(reward, (images(1, 3, 8, 8).requires_grad_(),))


def test_style_is_that_of_the_paper(on_disk: OnDisk) -> None:
    x, style = images(2, 3, 8, 8), values_of(on_disk.coloured)
    expected = torch.zeros(2, dtype=torch.float64)
    for f, a in zip(smooth_features(x), smooth_features(style), strict=True):
        f, a = f.flatten(2), a.flatten(2)
        n, m = f.shape[1:]
        gatys = (f @ f.mT - a @ a.mT).square().sum((1, 2)) / (4 * n**2 * m**2)
        expected -= gatys * 4 / n**2
    reward = exact("gram", {"style": on_disk.coloured, "network": own(smooth_features)})
    torch.testing.assert_close(reward(x), expected)


def test_style_knows_neither_places_nor_size(on_disk: OnDisk, tmp_path: Path) -> None:
    options = {"style": on_disk.large, "network": own(smooth_features), "layers": [0]}
    reward, x = exact("gram", options), images(2, 3, 8, 8)
    assert float(reward(x).max()) < -1e-5  # so that what follows says something
    torch.testing.assert_close(reward(x.roll((3, -1), (2, 3))), reward(x))
    shuffled = x.flatten(2)[..., torch.randperm(64)].reshape(x.shape)
    torch.testing.assert_close(reward(shuffled), reward(x))
    torch.testing.assert_close(reward(x.tile(1, 1, 2, 3)), reward(x))
    tile = values_of(on_disk.large).tile(1, 1, 1, 2)
    torch.testing.assert_close(reward(tile), reward(tile) * 0)


def test_a_style_may_be_of_another_size(on_disk: OnDisk) -> None:
    for network, channels in ((on_disk.digits, 1), (on_disk.resnet, 3)):
        style = on_disk.picture if channels == 1 else on_disk.large
        reward = exact("gram", {"style": style, "network": network})
        assert bool((gradient(reward, images(2, channels, 14, 10)) != 0).any())


def test_a_gram_matrix_is_a_mean_of_products() -> None:
    maps = normal(2, 3, 4, 5)
    expected = torch.einsum("bihw,bjhw->bij", maps, maps) / (3 * 4 * 5)
    torch.testing.assert_close(gram_matrix(maps), expected)


def test_the_probability_of_a_class() -> None:
    x = images(5, 1, 4, 4)
    asked = torch.tensor([0, 2, 1, 1, 0])
    cases: list[tuple[dict[str, Any], Tensor]] = [
        ({"label": 2}, torch.full((5,), 2)),
        ({}, asked),
    ]
    for option, wanted in cases:
        expected = -F.cross_entropy(smooth_logits(x), wanted, reduction="none")
        options = {"network": own(smooth_logits), **option}
        torch.testing.assert_close(exact("class-log-probability", options)(x, asked), expected)
        torch.testing.assert_close(exact("class-surprisal", options)(x, asked), -expected)


def test_the_class_that_was_asked_for_has_to_be_known() -> None:
    reward = exact("class-surprisal", {"network": own(smooth_logits)})
    with pytest.raises(ValueError, match="conditioned on no class, so the reward needs the option"):
        reward(images(2, 1, 4, 4))


def what_was_asked(x: Tensor, asked: Tensor) -> Tensor:
    return mean_level(x) * asked


def test_a_function_of_ones_own_may_know_what_was_asked() -> None:
    x, asked = images(3, 1, 4, 4), torch.arange(3)
    assert torch.equal(exact(own(what_was_asked))(x, asked), mean_level(x) * asked)
    assert torch.equal(exact(own(mean_level))(x, asked), mean_level(x))


def test_probabilities_of_all_classes_add_up_to_one(on_disk: OnDisk) -> None:
    x = images(4, 1, 28, 28)
    rewards = [
        exact("class-log-probability", {"network": on_disk.digits, "label": label})
        for label in range(CLASSES)
    ]
    total = torch.stack([reward(x).exp() for reward in rewards]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("place", ["on_disk", "assets"])
def test_the_classifier_of_digits_is_that_of_the_example(place: str, on_disk: OnDisk) -> None:
    folder = Path(on_disk.digits) if place == "on_disk" else ROOT / "assets" / "digits-classifier"
    example = run_path(str(ROOT / "examples" / "digits" / "classifier.py"), run_name="builtins")
    theirs, x = example["load_classifier"](folder).double(), images(2, 1, 28, 28)
    torch.testing.assert_close(load_classifier(str(folder), DOUBLE)(x), theirs(x))
    last = load_features(str(folder), DOUBLE)(x)[-1]
    torch.testing.assert_close(last, theirs.convolutions(x))
    assert [f.shape[2] for f in load_features(str(folder), DOUBLE)(x)] == [14, 7, 3]


def test_a_classifier_of_transformers(on_disk: OnDisk) -> None:
    model = ResNetForImageClassification.from_pretrained(on_disk.resnet).double().eval()
    prepare, x = read_preparation(Path(on_disk.resnet)), images(2, 3, 12, 12)
    reward = exact("class-log-probability", {"network": on_disk.resnet, "label": 1})
    logits = model(pixel_values=prepare(x)).logits
    expected = -F.cross_entropy(logits, torch.tensor([1, 1]), reduction="none")
    torch.testing.assert_close(reward(x), expected)


@pytest.mark.parametrize(
    ("folder", "shapes"),
    [("resnet", [(4, 2, 2), (4, 2, 2), (6, 1, 1)]), ("vit", [(8, 5, 1), (8, 5, 1)])],
)
def test_features_of_transformers_are_maps(
    folder: str, shapes: list[tuple[int, ...]], on_disk: OnDisk
) -> None:
    maps = load_features(getattr(on_disk, folder), DOUBLE)(images(2, 3, 12, 12))
    assert [tuple(f.shape[1:]) for f in maps] == shapes
    assert all(bool(f.std(0).max() > 0) for f in maps)


@pytest.mark.parametrize(("folder", "model"), [("clip", CLIPModel), ("siglip", SiglipModel)])
def test_clip_is_the_models_own_cosine(folder: str, model: Any, on_disk: OnDisk) -> None:
    path = getattr(on_disk, folder)
    theirs, x = model.from_pretrained(path).double().eval(), images(2, 3, 12, 12)
    tokens = AutoTokenizer.from_pretrained(path)(["a cat"], padding="max_length", max_length=8)
    found = theirs(**tokens.convert_to_tensors("pt"), pixel_values=read_preparation(Path(path))(x))
    pictures, texts = (F.normalize(e, dim=1) for e in (found.image_embeds, found.text_embeds))
    reward = exact("clip", {"folder": path, "text": "a cat"})
    torch.testing.assert_close(reward(x), (pictures @ texts.mT).squeeze(1))
    other = exact("clip", {"folder": path, "text": "dogs"})
    assert bool((other(x) - reward(x)).abs().min() > 1e-6)
    both = exact("clip", {"folder": path, "text": ["a cat", "dogs"]})
    torch.testing.assert_close(
        both(x, torch.tensor([1, 0])), torch.stack([other(x)[0], reward(x)[1]])
    )
    with pytest.raises(ValueError, match="There are 2 texts, and the images were not conditioned"):
        both(x)


# ------------------------------------------------------------------------- preparation of images


def write_processor(folder: Path, **settings: object) -> Path:
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **settings}))
    return folder


def test_images_are_normalised_as_the_processor_says(tmp_path: Path) -> None:
    x = images(2, 3, SIDE, SIDE)
    mean, std = (torch.tensor(PROCESSOR[key])[:, None, None] for key in ("image_mean", "image_std"))
    prepared = read_preparation(write_processor(tmp_path))(x)
    torch.testing.assert_close(
        prepared, ((x + 1) / 2 - mean.double()) / std.double(), atol=1e-6, rtol=0
    )
    plain = read_preparation(write_processor(tmp_path, do_normalize=False))(x)
    torch.testing.assert_close(plain, (x + 1) / 2)
    grey = read_preparation(tmp_path)(x[:, :1])
    torch.testing.assert_close(grey, (x[:, :1].expand(-1, 3, -1, -1) + 1) / 2)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": 4}, (4, 4)),
        ({"size": {"shortest_edge": 5}}, (5, 5)),
        ({"size": {"height": 4, "width": 6}}, (4, 6)),
        ({"size": 9, "crop_size": 7}, (9, 9)),
        ({"size": 9, "crop_size": 7, "do_center_crop": True}, (7, 7)),
        ({"do_resize": False}, None),
    ],
)
def test_sizes_of_processors(
    settings: dict[str, object], size: tuple[int, int] | None, tmp_path: Path
) -> None:
    prepare = read_preparation(write_processor(tmp_path, **settings))
    assert prepare.size == size
    assert tuple(prepare(images(1, 3, 12, 12)).shape[2:]) == (size or (12, 12))


def test_resizing_keeps_what_is_constant_and_takes_means() -> None:
    prepare = Preparation((3, 3), (0.5,), (0.5,))
    torch.testing.assert_close(
        prepare(torch.full((1, 1, 9, 9), 0.3)), torch.full((1, 1, 3, 3), 0.3)
    )
    board = torch.ones(64).cumprod(0).reshape(1, 1, 8, 8)
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1
    # Without antialiasing a board of single pixels would become stripes or one colour.
    assert float(Preparation((2, 2), (0.5,), (0.5,))(board).abs().max()) < 0.05


def test_a_smooth_image_is_prepared_as_transformers_does_it(tmp_path: Path) -> None:
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    processor.save_pretrained(tmp_path)
    slope = torch.linspace(60, 200, 20)
    levels = torch.stack(
        [slope[:, None].expand(20, 20), slope.expand(20, 20), slope.outer(slope) / 200]
    )
    picture = Image.fromarray(levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    ours = read_preparation(tmp_path)(levels.to(torch.uint8)[None] / 127.5 - 1)
    # They round to 256 levels on the way.
    torch.testing.assert_close(ours, theirs, atol=1.5 / 255 / 0.26, rtol=0)


def test_a_processor_of_images_and_texts_is_read(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR}))
    assert read_preparation(tmp_path).size == (SIDE, SIDE)


# ---------------------------------------------------------------------------------- a user's own


def test_a_function_of_the_user_is_a_reward() -> None:
    reward, x = exact(own(mean_level)), images(3, 2, 4, 4)
    torch.testing.assert_close(reward(x), mean_level(x))
    assert torch.autograd.gradcheck(reward, (x.requires_grad_(),))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_package.rewards:value", "no module 'no_such_package'"),
        (f"{__name__}:mean_levle", "did you mean 'mean_level'"),
        (f"{__name__}:§", "names no function"),
        (f"{__name__}:qqqqqq", "define it there"),
        (f"{__name__}:A_NUMBER", "of type int; it must be a function"),
        (f".{__name__}:mean_level", "names no function"),
        (f"{__name__}:", "names no function"),
    ],
)
def test_places_without_a_function_are_refused(place: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        exact(place)


def test_a_function_of_the_user_has_no_options() -> None:
    with pytest.raises(ValueError, match="no option 'scale'; it has none"):
        exact(own(mean_level), {"scale": 2.0})


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (summed, r"a tensor of shape \[\] and type float64 for 2 images.*shape \[2\]"),
        (with_a_column, r"a tensor of shape \[2, 1\].*shape \[2\]"),
        (whole_numbers, r"type int64.*floating-point"),
        (python_numbers, "of type list"),
        (without_gradient, "without a gradient.*torch alone"),
    ],
)
def test_what_is_no_reward_is_refused(function: Callable[..., Any], said: str) -> None:
    x = images(2, 1, 4, 4).requires_grad_()
    for reward in (exact(own(function)), checked_reward(of_images(function))):
        with pytest.raises(ValueError, match=said):
            reward(x)


def test_where_no_gradient_is_asked_for_none_is_needed() -> None:
    x = images(2, 1, 4, 4)
    torch.testing.assert_close(checked_reward(of_images(without_gradient))(x), mean_level(x))
    with torch.no_grad():
        torch.testing.assert_close(
            checked_reward(of_images(mean_level))(x.requires_grad_()), mean_level(x)
        )


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    x = torch.tensor([1.0, wrong, 1.0])[:, None, None, None]
    with pytest.raises(NotFiniteError, match=r"logarithm' is NaN or infinite for 1 of 3") as caught:
        exact(own(logarithm))(x)
    assert isinstance(caught.value, ArithmeticError)
    assert caught.value.x is x


# ------------------------------------------------------------------------- what can't be built


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("pixel", {"target": "{empty}/a.png"}, "no image at .*a.png"),
        ("pixel", {"target": "{broken}"}, "can't be read as an image"),
        ("pixel", {"target": "{empty}"}, "can't be read as an image"),
        ("pixel", {"target": "{opaque}"}, "mode RGBA"),
        ("feature", {"target": "{broken}", "network": "{digits}"}, "can't be read as an image"),
        ("feature", {"target": "{picture}", "network": "{empty}/a"}, "no network at"),
        ("feature", {"target": "{picture}", "network": "{empty}"}, "config.json can't be read"),
        ("feature", {"target": "{picture}", "network": "{clip}"}, "CLIPModel, which takes more"),
        ("feature", {"target": "{picture}", "network": "a.b:c"}, "no module 'a'"),
        ("feature", {"target": "{picture}", "network": "{digits}", "layers": []}, "is empty"),
        ("gram", {"style": "{picture}", "network": "{digits}", "weights": [1]}, "0 layers were"),
        (
            "gram",
            {"style": "{picture}", "network": "{digits}", "layers": [0], "weights": [1, 2]},
            "2 weights, but 1 layers",
        ),
        (
            "gram",
            {"style": "{picture}", "network": "{digits}", "layers": [0], "weights": [-1.0]},
            "zero or positive",
        ),
        ("class-surprisal", {"network": "{digits}", "label": -1}, "label is -1"),
        ("class-surprisal", {"network": "{headless}", "label": 1}, "lacks 2 of the weights"),
        ("clip", {"folder": "{empty}/a", "text": "a"}, "no model at"),
        ("clip", {"folder": "{clip}", "text": []}, "list of texts is empty"),
        ("clip", {"folder": "{empty}", "text": "a"}, "can't be loaded by transformers"),
        ("clip", {"folder": "{resnet}", "text": "a"}, "can't be loaded by transformers"),
        ("clip", {"folder": "{clip}", "text": "a long long text"}, "tokens, but the model reads 8"),
    ],
)
def test_what_can_not_be_built_is_refused(
    name: str, options: dict[str, Any], said: str, on_disk: OnDisk
) -> None:
    with pytest.raises(ValueError, match=said):
        build_reward(name, on_disk.filled(options))


@pytest.mark.parametrize(
    ("name", "options", "shape", "said"),
    [
        ("pixel", {"target": "{coloured}"}, (3, 8, 6), r"\[3, 8, 8\] .*images have \[3, 8, 6\]"),
        ("pixel", {"target": "{coloured}"}, (1, 8, 8), r"\[3, 8, 8\] .*images have \[1, 8, 8\]"),
        ("gram", {"style": "{coloured}", "network": "{digits}"}, (1, 8, 8), r"grey, \[1, H, W\]"),
        ("gram", {"style": "{picture}", "network": "{digits}"}, (1, 7, 9), "at least 8 x 8 pixels"),
        (
            "feature",
            {"target": "{large}", "network": own(smooth_features)},
            (3, 8, 8),
            r"features of shape \[4, 16, 16\].*resize or crop it to 8 x 8",
        ),
        (
            "feature",
            {"target": "{coloured}", "network": own(smooth_features), "layers": [2]},
            (3, 8, 8),
            "no layer 2 in .*it has 2, 0 to 1",
        ),
        (
            "feature",
            {"target": "{coloured}", "network": own(one_map)},
            (3, 8, 8),
            "list of tensors",
        ),
        ("gram", {"style": "{coloured}", "network": own(flat_maps)}, (3, 8, 8), "feature map 0"),
        ("feature", {"target": "{picture}", "network": "{digits}"}, (1, 8, 8), "resize or crop"),
        ("class-surprisal", {"network": "{digits}", "label": 3}, (1, 28, 28), "no class 3.*0 to 2"),
        ("class-surprisal", {"network": "{digits}", "label": 1}, (1, 8, 8), r"\[1, 28, 28\]"),
        ("class-surprisal", {"network": own(probabilities), "label": 1}, (1, 8, 8), "add up to 1"),
        ("class-surprisal", {"network": own(mean_level), "label": 1}, (1, 8, 8), "returns logits"),
        ("clip", {"folder": "{clip}", "text": "a"}, (4, 8, 8), "4 channels.*takes 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], shape: tuple[int, ...], said: str, on_disk: OnDisk
) -> None:
    with pytest.raises(ValueError, match=said):
        exact(name, on_disk.filled(options))(images(2, *shape))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": "{"}, "not valid JSON"),
        ({"config.json": "[1]"}, "holds a list"),
        ({"config.json": "{}"}, "no complete model.safetensors"),
        ({"config.json": "{}", "model.safetensors": "no weights"}, "no complete model.safetensors"),
        ({"config.json": '{"model_type": "resnet"}'}, "can't be loaded by transformers"),
        ({"config.json": '{"model_type": "unheard-of"}'}, "can't be loaded by transformers"),
        (
            {
                "config.json": '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}',
                "own.py": "raise SystemExit('code of the folder was run')",
            },
            "can't be loaded by transformers",
        ),
    ],
)
def test_broken_folders_of_networks_are_refused(
    files: dict[str, str], said: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        load_classifier(str(tmp_path), Placement())


def test_a_module_that_ends_the_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="leaving ends the process when it is imported"):
        load_function("leaving:reward")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a network that is not known here"):
        load_features(str(tmp_path), Placement())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_mean": None}, "does not say how its images are normalised"),
        ({"size": {"longest_edge": 8}}, "has the size .*shortest_edge"),
    ],
)
def test_processors_that_say_too_little_are_refused(
    settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read_preparation(write_processor(tmp_path, **settings))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="does not say how"):
        read_preparation(tmp_path)


def test_pickles_are_refused(on_disk: OnDisk, tmp_path: Path) -> None:
    model = ResNetForImageClassification.from_pretrained(on_disk.resnet)
    save(model, tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="can't be loaded"):
        load_classifier(str(tmp_path), Placement())


def test_without_transformers_the_error_says_what_to_install(
    on_disk: OnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"retrograde\[text\]"):
        build_reward("clip", {"folder": on_disk.clip, "text": "a"})


def test_import_is_light() -> None:
    code = (
        "import sys, adjoint.rewards; "
        "print('transformers' in sys.modules, 'diffusers' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert out.stdout.split() == ["False", "False"]
