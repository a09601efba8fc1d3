"""Learning from a metric: the objective, and the training loop on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from adjoint import (
    BacksolveAdjoint,
    CheckpointAdjoint,
    DirectAdjoint,
    ReversibleAdjoint,
    TruncatedAdjoint,
)
from adjoint.learning import ImageSampler, SamplingModule, reward_loss
from adjoint.rewards.reward import of_images
from samplers.denoiser import Denoiser
from samplers.schedule import VPLinear
from samplers.training import TrainingConfig, seeded, train

SHAPE = (3,)
CLASSES = 2
TARGETS = torch.tensor([[1.0, -0.5, 0.2], [-0.7, 0.4, 0.9]])


class Network(nn.Module):
    """A perceptron of a sample, a time and a class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4 + CLASSES, 24), nn.SiLU(), nn.Linear(24, 3))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(label, CLASSES).to(x)
        output: Tensor = self.layers(torch.cat([x, t[:, None], one_hot], dim=1))
        return output


def nearness(images: Tensor) -> Tensor:
    """The nearer to the first target, the higher."""
    return -(images - TARGETS[0]).square().mean(dim=1)


MODEL = Denoiser(Network(), VPLinear(), "v_prediction")
SAMPLER = ImageSampler(MODEL, SHAPE, ("label",), steps=5)
LOSS = reward_loss(of_images(nearness))


def sampled(sampler: ImageSampler = SAMPLER) -> SamplingModule:
    """The network, which draws."""

    def draw(part: nn.Module, seeds: Tensor, label: Tensor) -> Tensor:
        return sampler.sample(part, seeds.tolist(), (label,))

    return SamplingModule(Network(), draw)


DATA = TensorDataset(torch.arange(40) % CLASSES)
CONFIG = TrainingConfig(
    steps=60, batch_size=8, learning_rate=1e-2, log_every=10, checkpoint_every=20
)


def test_the_loss_is_minus_the_mean_reward_of_what_is_drawn() -> None:
    model, labels = sampled(), torch.tensor([0, 1, 1])
    loss = LOSS(model, [labels], seeded(3))
    seeds = torch.randint(2**62, (3,), generator=seeded(3))
    with torch.no_grad():
        images = model(seeds, labels)
    torch.testing.assert_close(loss, -nearness(images).mean())
    assert loss.requires_grad


def test_the_reward_is_told_what_was_asked() -> None:
    def per_class(images: Tensor, asked: Tensor | None = None, /) -> Tensor:
        assert asked is not None
        return -(images - TARGETS[asked]).square().mean(dim=1)

    model, labels = sampled(), torch.tensor([0, 1, 1])
    loss = reward_loss(per_class)(model, [labels], seeded(3))
    images = model(torch.randint(2**62, (3,), generator=seeded(3)), labels)
    torch.testing.assert_close(loss, (images - TARGETS[labels]).square().mean())


def test_a_network_is_asked_as_it_is_in_use() -> None:
    model = sampled().train()
    assert not model.training
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    "adjoint", [CheckpointAdjoint(), CheckpointAdjoint(keep=2), DirectAdjoint()], ids=str
)
def test_a_network_learns_what_is_rewarded(
    adjoint: DirectAdjoint | CheckpointAdjoint, tmp_path: Path
) -> None:
    sampler = ImageSampler(MODEL, SHAPE, ("label",), steps=5, adjoint=adjoint)
    model, labels = sampled(sampler), torch.arange(64) % CLASSES
    with torch.no_grad():
        before = float(LOSS(model, [labels], seeded(1)))
    trained = train(model, DATA, LOSS, CONFIG, tmp_path)
    with torch.no_grad():
        after = float(LOSS(trained, [labels], seeded(1)))
    assert after < 0.2 * before


def test_all_exact_ways_learn_the_same(tmp_path: Path) -> None:
    """In float64 arithmetic of rounding only; here in float32, from the same draws."""
    weights = []
    for number, adjoint in enumerate(
        (DirectAdjoint(), CheckpointAdjoint(), CheckpointAdjoint(split=2))
    ):
        sampler = ImageSampler(MODEL, SHAPE, ("label",), steps=5, adjoint=adjoint)
        model = sampled(sampler)
        short = TrainingConfig(steps=5, batch_size=8, learning_rate=1e-3, log_every=1,
                               checkpoint_every=5)  # fmt: skip
        train(model, DATA, LOSS, short, tmp_path / str(number))
        weights.append(torch.cat([w.detach().flatten() for w in model.parameters()]))
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=1e-5)


class Stop(Exception):
    """The training is interrupted."""


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Bit for bit, wherever it was stopped."""
    whole = sampled()
    train(whole, DATA, LOSS, CONFIG, tmp_path / "whole")
    for stop in (7, 20, 33):
        calls = 0

        def stopping(model: nn.Module, batch: object, generator: torch.Generator) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == stop:  # noqa: B023  it is called within this turn
                raise Stop
            return LOSS(model, batch, generator)

        folder = tmp_path / str(stop)
        with pytest.raises(Stop):
            train(sampled(), DATA, stopping, CONFIG, folder)
        resumed = sampled()
        train(resumed, DATA, LOSS, CONFIG, folder)
        for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b)


def test_stochastic_samplers_draw_from_the_seeds() -> None:
    sampler = ImageSampler(MODEL, SHAPE, ("label",), sampler="sde-dpmpp-2m", steps=5)
    model, labels = Network(), torch.tensor([0, 1])
    one, again, other = (
        sampler.sample(model, seeds, (labels,)) for seeds in ((1, 2), (1, 2), (2, 1))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_ways_back_that_can_not_serve_are_refused_at_once() -> None:
    for adjoint, name in (
        (ReversibleAdjoint(), "dpmpp-2m"),
        (BacksolveAdjoint(), "ancestral"),
        (TruncatedAdjoint(9), "dpmpp-2m"),
    ):
        with pytest.raises(ValueError, match=r"inverted|backwards|previous|steps"):
            ImageSampler(MODEL, SHAPE, ("label",), name, steps=5, adjoint=adjoint)
