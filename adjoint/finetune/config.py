"""The settings of a fine-tuning run, and the TOML file that they are read from."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adjoint.backsolve import BacksolveAdjoint
from adjoint.base import AbstractAdjoint
from adjoint.checkpoint import CheckpointAdjoint
from adjoint.continuous import ContinuousAdjoint
from adjoint.direct import DirectAdjoint
from adjoint.finetune.penalty import PenaltySettings
from adjoint.finetune.trainable import (
    Optimised,
    OptimiseEmbedding,
    OptimiseLoRA,
    OptimiseNoise,
    OptimiseWeights,
)
from adjoint.options import construct
from adjoint.reversible import ReversibleAdjoint
from adjoint.rewards import get_reward
from adjoint.truncated import TruncatedAdjoint
from samplers.checkpoint import Recipe
from samplers.checks import check_at_most
from samplers.choices import MOST_AT_ONCE, MOST_STEPS, ConfigSpacing
from samplers.fitting import FittedGrid
from samplers.grid import Final
from samplers.solve import NoiseKind
from samplers.training import TrainingConfig
from samplers.tuning import TunedSampler, load_sampler


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled.

    Attributes:
        sampler: if None, that of the checkpoint's scheduler, if it is a ``SamplerScheduler``, or
            the one that a network was distilled for; the default of :func:`samplers.sample` for
            others. ``NAME.json`` is the file of a tuned one, which has its own steps and noise
            levels.
        steps: of the sampler; if None, those of a fitted grid of the scheduler, else 10.
        labels: classes to condition on; all if None.
        prompts: texts to condition on, for a checkpoint with a text encoder.
        images: degraded images, or folders of such, for a checkpoint that restores images.
        task: what degraded them.
        negative_prompt, guidance, guidance_rescale, guidance_interval: as of
            :class:`samplers.checkpoint.Recipe`.
        grid, sigma_min, sigma_max, final: of the time grid, as there.
        noise, options: of the sampler, as there.
    """

    sampler: str | None = None
    steps: int | None = None
    labels: tuple[int, ...] | None = None
    prompts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    task: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    guidance_rescale: float = 0.0
    guidance_interval: tuple[float, float] | None = None
    grid: ConfigSpacing | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    noise: NoiseKind = "independent"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels == ():
            raise ValueError("The list of labels is empty; name classes, or omit it for all.")

    @property
    def tuned(self) -> TunedSampler | None:
        """The tuned sampler, if it is the file of one; ValueError for settings that it has not."""
        if self.sampler is None or not self.sampler.endswith(".json"):
            return None
        self._refuse_of_grids()
        return load_sampler(self.sampler)

    def _refuse_of_grids(self) -> None:
        given = [name for name in _OF_GRIDS if getattr(self, name)]
        if given:
            raise ValueError(
                f"{given[0]} is set in [sampling], but a tuned sampler has its own steps and noise "
                "levels; omit it."
            )

    def recipe(self, own: Recipe) -> Recipe:
        """The settings of one image, with the first prompt if there are any.

        Args:
            own: that of the checkpoint, whose sampler and grid are taken where none are named.
        """
        sampler = self.tuned or self.sampler or own.sampler
        if isinstance(sampler, TunedSampler):
            self._refuse_of_grids()
        grid = self.grid or own.grid
        default = own.steps if isinstance(grid, FittedGrid) else _STEPS
        kept = own.options if sampler == own.sampler else {}
        chosen = {
            "prompt": next(iter(self.prompts), None),
            "sampler": sampler,
            "steps": self.steps or default,
            "grid": grid,
            "noise": own.noise if self.noise == "independent" else self.noise,
            "options": {**kept, **self.options},
        }
        values = asdict(self) | chosen
        return Recipe(**{name: v for name, v in values.items() if name not in _CONDITIONS})


_STEPS = 10
_OF_GRIDS = ("steps", "grid", "sigma_min", "sigma_max", "final", "options")
_CONDITIONS = ("labels", "prompts", "images", "task")


@dataclass(frozen=True)
class RewardSettings:
    """One term of the reward.

    Attributes:
        name: of :func:`adjoint.rewards.list_rewards`, or ``package.module:name``.
        weight: in the sum of the terms.
        options: of the reward.
    """

    name: str
    weight: float
    options: dict[str, Any]


@dataclass(frozen=True)
class Previews:
    """Images that are sampled during training, always from the same noise.

    Attributes:
        every: steps between two sheets of images; 0 for none.
        num_images: on a sheet.
        seed: of the first image.
    """

    every: int = 20
    num_images: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or self.num_images < 1 or self.seed < 0:
            raise ValueError(
                f"[previews] has every = {self.every}, num_images = {self.num_images} and seed = "
                f"{self.seed}; they must be at least 0, 1 and 0."
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that determines the result of a run.

    Attributes:
        checkpoint: a diffusers folder.
        output: the folder of the run.
        optimised: what is optimised.
        rewards: the terms of the reward.
        training: the settings of the training loop.
        sampling: how images are sampled.
        adjoint: how gradients are backpropagated through the sampler.
        previews: images during training.
        penalty: a regulariser beside the reward, if any.
    """

    checkpoint: Path
    output: Path
    optimised: Optimised
    rewards: tuple[RewardSettings, ...]
    training: TrainingConfig
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    adjoint: AbstractAdjoint = field(default_factory=CheckpointAdjoint)
    previews: Previews = field(default_factory=Previews)
    penalty: PenaltySettings | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.optimised, OptimiseNoise):
            return
        count, batch_size = self.optimised.num_images, self.training.batch_size
        if batch_size != count:
            raise ValueError(
                f"The noise of {count} images is optimised in batches of {batch_size}; set "
                f"training.batch_size to {count}, so that every step moves all of it."
            )
        if self.penalty is not None:
            raise ValueError(
                "A penalty depends on the network alone, which is fixed while noise is optimised; "
                "omit [penalty]."
            )


# ------------------------------------------------------------------------------------- the file


@dataclass(frozen=True)
class _File:
    """The tables of a file."""

    checkpoint: Path
    output: Path
    optimise: dict[str, Any]
    reward: dict[str, Any] | list[dict[str, Any]]
    training: dict[str, Any]
    sampling: dict[str, Any] = field(default_factory=dict)
    adjoint: dict[str, Any] = field(default_factory=lambda: {"name": "checkpoint"})
    previews: dict[str, Any] = field(default_factory=dict)
    penalty: dict[str, Any] | None = None


def _truncated(last: int | tuple[int, int]) -> TruncatedAdjoint:
    return TruncatedAdjoint(last)


_OPTIMISED: dict[str, Callable[..., Optimised]] = {
    "weights": OptimiseWeights,
    "lora": OptimiseLoRA,
    "embedding": OptimiseEmbedding,
    "noise": OptimiseNoise,
}
_ADJOINTS: dict[str, Callable[..., AbstractAdjoint]] = {
    "checkpoint": CheckpointAdjoint,
    "direct": DirectAdjoint,
    "truncated": _truncated,
    "reversible": ReversibleAdjoint,
    "continuous": ContinuousAdjoint,
    "backsolve": BacksolveAdjoint,
}
# A step may take a minute, so each is logged.
_TRAINING: dict[str, Any] = {"log_every": 1, "checkpoint_every": 10, "average_decay": 0.9}


def read_finetune_config(path: Path, overrides: Mapping[str, Any] | None = None) -> FinetuneConfig:
    """Read the settings from a TOML file.

    Args:
        path: of the file.
        overrides: settings by dotted names, such as ``training.steps``, in place of the file's.

    Raises ValueError for a file that is not TOML, and for a setting that is unknown, missing, of a
    wrong type or impossible, and if there is no such file; OSError if it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"There is no config {path}; name a TOML file.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML ({error}).") from error
    for name, value in (overrides or {}).items():
        _override(tables, name, value)
    return config_of(tables, str(path))


def config_of(tables: Mapping[str, Any], subject: str = "The config") -> FinetuneConfig:
    """The settings from tables of plain values; see :func:`read_finetune_config`."""
    file = construct(subject, _File, tables)
    _check_counts(tables)
    optimised = _chosen("optimise", "what", _OPTIMISED, file.optimise)
    training = _TRAINING | _training_of(optimised) | file.training
    return FinetuneConfig(
        file.checkpoint,
        file.output,
        optimised,
        _rewards(file.reward),
        construct("[training]", TrainingConfig, training),
        construct("[sampling]", SamplingSettings, file.sampling),
        _chosen("adjoint", "name", _ADJOINTS, file.adjoint),
        construct("[previews]", Previews, file.previews),
        file.penalty if file.penalty is None else _penalty(file.penalty),
    )


_MOST = {
    "sampling.steps": MOST_STEPS,
    "training.batch_size": MOST_AT_ONCE,
    "training.workers": MOST_AT_ONCE,
    "previews.num_images": MOST_AT_ONCE,
    "optimise.num_images": MOST_AT_ONCE,
    "optimise.rank": MOST_AT_ONCE,
    "penalty.num_images": MOST_AT_ONCE,
}
"""What takes memory, by dotted names."""


def _check_counts(tables: Mapping[str, Any]) -> None:
    for name, most in _MOST.items():
        table, key = name.split(".")
        found = (tables.get(table) or {}).get(key)
        if isinstance(found, int):
            check_at_most(name, found, most)


def _training_of(optimised: Optimised) -> dict[str, Any]:
    """All noise moves at every step, and its average is no initial noise."""
    if not isinstance(optimised, OptimiseNoise):
        return {}
    return {"average_decay": 0.0, "batch_size": optimised.num_images}


def _penalty(table: Mapping[str, Any]) -> PenaltySettings:
    return construct("[penalty]", PenaltySettings, table)


def _override(tables: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for step in path:
        tables = tables.setdefault(step, {})
        if not isinstance(tables, dict):
            raise ValueError(
                f"{name} cannot be set, since {step!r} is not a single table; change it in the "
                "file."
            )
    tables[last] = value


def _chosen(
    table: str, key: str, kinds: Mapping[str, Callable[..., Any]], values: Mapping[str, Any]
) -> Any:
    """What a table describes, the kind of which is the value of ``key``."""
    kind = values.get(key)
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"[{table}] has {key} = {kind!r}; it must be one of {', '.join(kinds)}.")
    options = {name: value for name, value in values.items() if name != key}
    return construct(f"[{table}] with {key} = {kind!r}", kinds[kind], options)


def _rewards(tables: Mapping[str, Any] | list[dict[str, Any]]) -> tuple[RewardSettings, ...]:
    terms = tables if isinstance(tables, list) else [tables]
    if not terms or not all("name" in term for term in terms):
        raise ValueError("A table [reward] has no name; name a reward of `adjoint rewards`.")
    return tuple(_reward(dict(term)) for term in terms)


def _reward(term: dict[str, Any]) -> RewardSettings:
    name, weight = term.pop("name"), term.pop("weight", 1.0)
    if type(weight) not in (int, float) or not math.isfinite(weight):
        raise ValueError(f"The weight of the reward {name!r} is {weight!r}; it must be a number.")
    kind = get_reward(str(name))
    kind.validated(term)
    return RewardSettings(kind.name, float(weight), term)


# -------------------------------------------------------------------------------------- as text


def plain(config: FinetuneConfig) -> dict[str, Any]:
    """The settings as plain values, by dotted names."""
    found: dict[str, Any] = {}
    _flatten({**asdict(config), "adjoint": str(config.adjoint)}, "", found)
    what = next(name for name, kind in _OPTIMISED.items() if kind is type(config.optimised))
    values: dict[str, Any] = json.loads(json.dumps({"optimise.what": what, **found}, default=str))
    return values


def _flatten(value: Any, name: str, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}" if name else key, found)
    else:
        found[name] = value
