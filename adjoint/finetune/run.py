"""A fine-tuning run: from its settings to what it learned, with images and files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from adjoint.finetune.config import FinetuneConfig, RewardSettings, plain
from adjoint.finetune.models import ImageModel, load_model, saved_names
from adjoint.finetune.results import (
    COMPARISON,
    CURVE,
    PREVIEWS,
    Preview,
    write_comparison,
    write_curve,
    write_sheet,
)
from adjoint.finetune.trainable import OptimiseNoise, Trainable
from adjoint.learning import SampleImages, SamplingModule, reward_loss
from adjoint.rewards import Placement, Reward, build_reward, get_reward
from samplers.training import LOG, Every, Objective, claim_folder, train

_PENALTY_SEED = 2**40
"""The first seed of the images at which a penalty is evaluated; no preview has it."""
_BATCH = 16
"""Of those images."""

# Settings that may change when a run is resumed.
_FREE = ("output", "previews.")


class RewardChange(NamedTuple):
    """A term of the reward, as its mean over the preview images before and after."""

    name: str
    before: float
    after: float


class FinetuneResult(NamedTuple):
    """The result of a run.

    Attributes:
        changes: of each term of the reward.
        written: the files and folders with what was learned, and with images.
    """

    changes: list[RewardChange]
    written: list[Path]


def run_finetuning(config: FinetuneConfig, *, overwrite: bool = False) -> FinetuneResult:
    """Optimise what the settings name, or resume a run in the same folder.

    The folder receives the log and checkpoints of :func:`samplers.training.train`, images, and at
    the end what was learned: a checkpoint, an adapter, an embedding or noise.

    Args:
        overwrite: whether to begin anew where the folder holds such files of another run.

    Raises CheckpointError for a checkpoint that cannot be read; ValueError for settings that are
    impossible, and for a folder with files of another run; NotFiniteError and FloatingPointError
    for numbers that are not finite. What was saved before is kept.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    run = _Run(config, state.device)
    with claim_folder(
        config.output,
        plain(config),
        config.training,
        written=_written(config),
        free=_FREE,
        overwrite=overwrite,
    ):
        return run.train(state.is_main_process)


def _written(config: FinetuneConfig) -> list[str]:
    """What the run writes into its folder, besides the files of its training."""
    previews = [PREVIEWS] if config.previews.every else []
    return [*saved_names(config.optimised), COMPARISON, CURVE, *previews]


def _check_labels(config: FinetuneConfig, model: ImageModel) -> None:
    """Raise ValueError for a reward of the class of an image, where images have none."""
    for term in config.rewards:
        of_class = "label" in get_reward(term.name).options and "label" not in term.options
        if of_class and not model.of_classes:
            raise ValueError(
                f"This checkpoint is not conditioned on classes, so the reward {term.name!r} needs "
                "the option 'label': a class from 0 up."
            )


class _Run:
    """The models of a run, and how they sample."""

    def __init__(self, config: FinetuneConfig, device: torch.device) -> None:
        self.config = config
        self.model = load_model(config, device)
        self.device = device
        _check_labels(config, self.model)
        placement = Placement(device=device)
        self.terms = [_Term(term, placement) for term in config.rewards]
        trained = self.model.trainable(config.optimised, config.training.seed)
        self.module = SamplingModule(trained, self._sample_images()).to(device)

    def train(self, main: bool) -> FinetuneResult:
        config = self.config
        before, penalty = self._preview(self.module), self._penalty()
        every = config.previews.every

        def show(step: int, average: nn.Module) -> None:
            first, path = (config.output / PREVIEWS / f"step-{n:06d}.png" for n in (0, step))
            if step == every:
                write_sheet(before, first)
            write_sheet(self._preview(average), path)

        average = train(
            self.module,
            _samples(config, self.model),
            reward_loss(self._reward),
            config.training,
            config.output,
            penalty=penalty,
            callback=Every(every, show) if every else None,
        )
        return self._finish(average, before, main)

    @torch.no_grad()
    def _finish(self, average: nn.Module, before: Preview, main: bool) -> FinetuneResult:
        folder, after = self.config.output, self._preview(average)
        changes = [
            RewardChange(term.name, float(term(*before).mean()), float(term(*after).mean()))
            for term in self.terms
        ]
        if not main:
            return FinetuneResult(changes, [])
        trained = copy.deepcopy(average.trained)
        assert isinstance(trained, Trainable)  # as it was passed
        written = self.model.save(trained, self.config.optimised, folder)
        written.append(write_comparison(before, after, folder / COMPARISON))
        written.append(write_curve(folder / LOG, folder / CURVE))
        return FinetuneResult(changes, written)

    def _reward(self, images: Tensor, condition: Tensor | None = None, /) -> Tensor:
        """The weighted sum of the terms."""
        given = condition if self.model.conditions else None
        return torch.stack([t.weight * t(images, given) for t in self.terms]).sum(dim=0)

    @torch.no_grad()
    def _penalty(self) -> Objective | None:
        """At images of the network as it is before training."""
        settings = self.config.penalty
        if settings is None:
            return None
        index = torch.arange(settings.num_images)
        condition = _conditions(self.model, settings.num_images)
        batches = zip(index.split(_BATCH), condition.split(_BATCH), strict=True)
        images = torch.cat(
            [self.module(_PENALTY_SEED + i, c, i.to(self.device)) for i, c in batches]
        )
        given = condition.to(self.device) if self.model.conditions else None
        return self.model.penalty(settings, images, given)

    def _sample_images(self) -> SampleImages:
        """How the trained module samples; a plain function, which copies of the module share."""
        model, optimised = self.model, self.config.optimised
        fixed = optimised if isinstance(optimised, OptimiseNoise) else None

        def sample_images(
            trained: Trainable, seeds: Tensor, condition: Tensor, index: Tensor
        ) -> Tensor:
            noise = None if trained.noise is None else trained.noise(index)
            # Where the initial noise is optimised, all other noise is fixed, too.
            numbers = seeds if fixed is None else fixed.seed + index
            given = condition.to(self.device) if model.conditions else None
            return model.sample(trained, numbers.tolist(), given, noise)

        return sample_images

    @torch.no_grad()
    def _preview(self, module: nn.Module) -> Preview:
        """Images of fixed seeds, by the module as it is now."""
        previews, optimised = self.config.previews, self.config.optimised
        count = previews.num_images
        if isinstance(optimised, OptimiseNoise):
            count = min(count, optimised.num_images)
        index = torch.arange(count)
        condition = _conditions(self.model, count)
        images = module(previews.seed + index, condition, index.to(self.device))
        return Preview(images, condition if self.model.conditions else None)


class _Term:
    """One term of the reward."""

    def __init__(self, settings: RewardSettings, placement: Placement) -> None:
        self.name, self.weight = settings.name, settings.weight
        self.reward: Reward = build_reward(settings.name, settings.options, placement)

    def __call__(self, images: Tensor, condition: Tensor | None) -> Tensor:
        return self.reward(images, condition)


def _conditions(model: ImageModel, count: int) -> Tensor:
    """The conditions in turn; zeros, which nothing reads, if the model is unconditional."""
    turn: Sequence[int] = model.conditions or (0,)
    return torch.tensor([turn[number % len(turn)] for number in range(count)])


def _samples(config: FinetuneConfig, model: ImageModel) -> TensorDataset:
    """The elements of batches: a condition, and the index of its initial noise."""
    count = max(1, len(model.conditions))
    if isinstance(config.optimised, OptimiseNoise):
        count = config.optimised.num_images
    return TensorDataset(_conditions(model, count), torch.arange(count))
