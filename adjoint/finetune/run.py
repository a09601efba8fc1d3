"""A run: from its settings to a trained part, its pictures and its files."""

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
from adjoint.finetune.models import Model, load_model
from adjoint.finetune.parts import Noise, Part
from adjoint.finetune.results import Drawn, write_comparison, write_curve, write_sheet
from adjoint.learning import Draw, Sampled, reward_loss
from adjoint.rewards import Place, Reward, build_reward, get_reward
from samplers.training import CHECKPOINT, LOG, Every, Objective, claim_folder, train

_OWN = 2**40
_AT_ONCE = 16
"""The first seed of the images at which a penalty is taken, which no picture shows, and how many
are drawn at once."""

# What may change when a run goes on.
_FREE = ("output", "pictures.", "training.log_every", "training.checkpoint_every",
         "training.workers", "training.tracker", "training.precision")  # fmt: skip


class Change(NamedTuple):
    """A term of the reward, as the mean over the shown images before and after."""

    name: str
    before: float
    after: float


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        written: the files and folders that hold what was learned, and the pictures.
    """

    changes: list[Change]
    written: list[Path]


def finetune(config: FinetuneConfig) -> Outcome:
    """Optimise what the settings name, or go on where a run in the same folder stopped.

    The folder receives the log and checkpoints of :func:`samplers.training.train`, pictures, and
    at the end what was learned: a checkpoint, an adapter, an embedding or noise.

    Raises CheckpointError for a checkpoint that can't be read; ValueError for settings that are
    impossible or differ from those of the run in the folder; NotFiniteError and FloatingPointError
    where numbers are not finite. What was saved before is kept.
    """
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    run = _Run(config, state.device)
    if state.is_main_process:
        claim_folder(config.output, plain(config), _FREE)
    state.wait_for_everyone()
    return run.train(state.is_main_process)


def _check_labels(config: FinetuneConfig, model: Model) -> None:
    """Raise ValueError for a reward of the class that was asked for, where none is."""
    for term in config.rewards:
        of_class = "label" in get_reward(term.name).options and "label" not in term.options
        if of_class and not model.of_classes:
            raise ValueError(
                f"This checkpoint is asked for no classes, so the reward {term.name!r} needs the "
                "option 'label': a class from 0 up."
            )


class _Run:
    """The models of a run, and what is drawn with them."""

    def __init__(self, config: FinetuneConfig, device: torch.device) -> None:
        self.config = config
        self.model = load_model(config, device)
        self.device = device
        _check_labels(config, self.model)
        place = Place(device=device)
        self.terms = [_Term(term, place) for term in config.rewards]
        part = self.model.part(config.optimised, config.training.seed)
        self.sampled = Sampled(part, self._draw()).to(device)
        self.penalty = self._penalty()

    def train(self, main: bool) -> Outcome:
        config = self.config
        before = self._show(self.sampled)
        every = config.pictures.every

        def picture(step: int, average: nn.Module) -> None:
            write_sheet(self._show(average), config.output / "pictures" / f"step-{step:06d}.png")

        if main and every and not (config.output / CHECKPOINT).exists():
            write_sheet(before, config.output / "pictures" / f"step-{0:06d}.png")
        average = train(
            self.sampled,
            _samples(config, self.model),
            reward_loss(self._reward),
            config.training,
            config.output,
            penalty=self.penalty,
            callback=Every(every, picture) if every else None,
        )
        return self._finish(average, before, main)

    @torch.no_grad()
    def _finish(self, average: nn.Module, before: Drawn, main: bool) -> Outcome:
        folder, after = self.config.output, self._show(average)
        changes = [
            Change(term.name, float(term(*before).mean()), float(term(*after).mean()))
            for term in self.terms
        ]
        if not main:
            return Outcome(changes, [])
        part = copy.deepcopy(average.part)
        assert isinstance(part, Part)  # as it was given
        written = self.model.save(part, self.config.optimised, folder)
        written.append(write_comparison(before, after, folder / "before-after.png"))
        written.append(write_curve(folder / LOG, folder / "curve.png"))
        return Outcome(changes, written)

    def _reward(self, images: Tensor, asked: Tensor | None = None, /) -> Tensor:
        """The weighted sum of the terms."""
        told = asked if self.model.asked else None
        return torch.stack([t.weight * t(images, told) for t in self.terms]).sum(dim=0)

    @torch.no_grad()
    def _penalty(self) -> Objective | None:
        """At images that the network draws as it is before it learns."""
        settings = self.config.penalty
        if settings is None:
            return None
        index = torch.arange(settings.images)
        asked = _asked(self.model, settings.images)
        parts = zip(index.split(_AT_ONCE), asked.split(_AT_ONCE), strict=True)
        images = torch.cat([self.sampled(_OWN + i, a, i.to(self.device)) for i, a in parts])
        told = asked.to(self.device) if self.model.asked else None
        return self.model.penalty(settings, images, told)

    def _draw(self) -> Draw:
        """How the part draws; a plain function, which copies of the module share."""
        model, optimised = self.model, self.config.optimised
        fixed = optimised if isinstance(optimised, Noise) else None

        def draw(part: Part, seeds: Tensor, asked: Tensor, index: Tensor) -> Tensor:
            noise = None if part.noise is None else part.noise(index)
            # Where the noise is learned, what a sampler draws beside it is fixed too.
            numbers = seeds if fixed is None else fixed.seed + index
            told = asked.to(self.device) if model.asked else None
            return model.draw(part, numbers.tolist(), told, noise)

        return draw

    @torch.no_grad()
    def _show(self, sampled: nn.Module) -> Drawn:
        """Images of fixed seeds, by the part as it is now."""
        pictures, optimised = self.config.pictures, self.config.optimised
        count = pictures.count
        if isinstance(optimised, Noise):
            count = min(count, optimised.count)
        index = torch.arange(count)
        asked = _asked(self.model, count)
        images = sampled(pictures.seed + index, asked, index.to(self.device))
        return Drawn(images, asked if self.model.asked else None)


class _Term:
    """One term of the reward."""

    def __init__(self, settings: RewardSettings, place: Place) -> None:
        self.name, self.weight = settings.name, settings.weight
        self.reward: Reward = build_reward(settings.name, settings.options, place)

    def __call__(self, images: Tensor, asked: Tensor | None) -> Tensor:
        return self.reward(images, asked)


def _asked(model: Model, count: int) -> Tensor:
    """What is asked for in turn, or zeros that nothing reads."""
    turn: Sequence[int] = model.asked or (0,)
    return torch.tensor([turn[number % len(turn)] for number in range(count)])


def _samples(config: FinetuneConfig, model: Model) -> TensorDataset:
    """What batches are made of: what is asked for, and which noise it starts from."""
    count = max(1, len(model.asked))
    if isinstance(config.optimised, Noise):
        count = config.optimised.count
    return TensorDataset(_asked(model, count), torch.arange(count))
