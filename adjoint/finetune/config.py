"""The settings of a run, as they stand in a file, in TOML."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adjoint.base import Adjoint
from adjoint.checkpoint import Checkpoint
from adjoint.continuous import Backsolve, Recorded
from adjoint.direct import Direct
from adjoint.finetune.parts import Embedding, LoRA, Noise, Optimised, Weights
from adjoint.finetune.penalty import Penalty
from adjoint.options import chosen_options, near, options_of
from adjoint.reversible import Reversible
from adjoint.rewards import get_reward
from adjoint.truncated import Truncated
from samplers.checkpoint import Recipe
from samplers.grid import Final, Spacing
from samplers.solve import NoiseKind
from samplers.training import TrainingConfig


@dataclass(frozen=True)
class DrawingSettings:
    """How images are drawn.

    labels: the classes that they are asked to show; all if None.
    prompts: the texts that they are asked to show, for a checkpoint that takes such.
    images, task: pictures (or folders of such) and what degraded them, for a checkpoint that
        restores.
    sampler: a checkpoint that restores has its own; ``dpmpp-2m`` for others if None.
    The others as of :class:`samplers.checkpoint.Recipe`.
    """

    sampler: str | None = None
    steps: int = 10
    labels: tuple[int, ...] | None = None
    prompts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    task: str | None = None
    negative_prompt: str | None = None
    guidance: float | None = None
    guidance_rescale: float = 0.0
    grid: Spacing | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final: Final | None = None
    noise: NoiseKind = "independent"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels == ():
            raise ValueError("The list of labels is empty; name classes, or leave it away for all.")

    def recipe(self) -> Recipe:
        """The same for one of the prompts, if there are any."""
        own = {**asdict(self), "prompt": self.prompts[0] if self.prompts else None}
        recipe = Recipe(**{k: v for k, v in own.items() if k not in (*_ASKED, "sampler")})
        return recipe if self.sampler is None else replace(recipe, sampler=self.sampler)


_ASKED = ("labels", "prompts", "images", "task")


@dataclass(frozen=True)
class RewardSettings:
    """One term of the reward: its name, its weight in the sum, its options."""

    name: str
    weight: float
    options: dict[str, Any]


@dataclass(frozen=True)
class Pictures:
    """What is drawn on the way, always from the same noise.

    Attributes:
        every: steps between two pictures; none on the way if 0.
        count: images on a picture.
        seed: of the first image.
    """

    every: int = 20
    count: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or self.count < 1 or self.seed < 0:
            raise ValueError(
                f"The settings of pictures are every {self.every}, count {self.count} and seed "
                f"{self.seed}; they must be at least 0, 1 and 0."
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides what a run learns.

    Attributes:
        checkpoint: a diffusers folder.
        output: the folder of the run.
        penalty: beside the reward, if there is any.
    """

    checkpoint: Path
    output: Path
    optimised: Optimised
    rewards: tuple[RewardSettings, ...]
    training: TrainingConfig
    drawing: DrawingSettings = field(default_factory=DrawingSettings)
    adjoint: Adjoint = field(default_factory=Checkpoint)
    pictures: Pictures = field(default_factory=Pictures)
    penalty: Penalty | None = None

    def __post_init__(self) -> None:
        count = self.training.batch_size
        if isinstance(self.optimised, Noise) and count != self.optimised.count:
            raise ValueError(
                f"The noise of {self.optimised.count} images is optimised, in batches of {count}; "
                "make the batch_size their count, so that all move in every step."
            )
        if isinstance(self.optimised, Noise) and self.penalty is not None:
            raise ValueError("A penalty is of the network, and noise moves none; leave it away.")


def _truncated(last: int | tuple[int, int]) -> Truncated:
    return Truncated(last)


_OPTIMISED: dict[str, Callable[..., Any]] = {
    "weights": Weights,
    "lora": LoRA,
    "embedding": Embedding,
    "noise": Noise,
}
_WAYS: dict[str, Callable[..., Any]] = {
    "checkpoint": Checkpoint,
    "direct": Direct,
    "truncated": _truncated,
    "reversible": Reversible,
    "recorded": Recorded,
    "backsolve": Backsolve,
}
_TABLES = (
    *("checkpoint", "output", "optimise", "reward"),
    *("drawing", "adjoint", "training", "pictures", "penalty"),
)
# A step may take a minute here, so each has its line.
_TRAINING: dict[str, Any] = {"log_every": 1, "checkpoint_every": 10, "average_decay": 0.9}


def read_config(path: Path, changes: Mapping[str, Any] | None = None) -> FinetuneConfig:
    """The settings in a file, with ``changes`` by dotted names, such as ``training.steps``.

    Raises ValueError for a file that is no TOML, and for whatever in it is unknown, missing, of
    the wrong type or impossible; OSError if it can't be read.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML ({error}).") from error
    for name, value in (changes or {}).items():
        _change(tables, name, value)
    return config_of(tables, str(path))


def config_of(tables: Mapping[str, Any], subject: str = "The config") -> FinetuneConfig:
    """The settings in tables of plain values; see :func:`read_config`."""
    for name in tables:
        if name not in _TABLES:
            hint = near(name, _TABLES, f"it may have {', '.join(_TABLES)}.")
            raise ValueError(f"{subject} has the unknown key {name!r}; {hint}")
    for name in ("checkpoint", "output", "optimise", "reward", "training"):
        if name not in tables:
            raise ValueError(f"{subject} lacks the key {name!r}, which every run needs.")
    for name in ("checkpoint", "output"):
        if not isinstance(tables[name], str):
            raise ValueError(f"{subject} has the {name} {tables[name]!r}; it must be a path.")
    optimised: Optimised = _variant(tables["optimise"], "optimise", "what", _OPTIMISED)
    training = _TRAINING | _of_noise(optimised) | _table(tables, "training")
    return FinetuneConfig(
        Path(tables["checkpoint"]),
        Path(tables["output"]),
        optimised,
        _rewards(tables["reward"]),
        _built(TrainingConfig, training, "[training]"),
        _built(DrawingSettings, _table(tables, "drawing"), "[drawing]"),
        _variant(tables.get("adjoint", {"way": "checkpoint"}), "adjoint", "way", _WAYS),
        _built(Pictures, _table(tables, "pictures"), "[pictures]"),
        _built(Penalty, _table(tables, "penalty"), "[penalty]") if "penalty" in tables else None,
    )


def _of_noise(optimised: Optimised) -> dict[str, Any]:
    """Noise moves all at once, and is itself what is wanted, not what it was on the way."""
    if not isinstance(optimised, Noise):
        return {}
    return {"average_decay": 0.0, "batch_size": optimised.count}


def _change(tables: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for step in path:
        tables = tables.setdefault(step, {})
        if not isinstance(tables, dict):
            raise ValueError(f"{name} can't be set, for {step!r} is no single table of the config.")
    tables[last] = value


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = tables.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name!r} is {found!r}; it must be a table, [{name}].")
    return found


def _built(kind: Callable[..., Any], values: Mapping[str, Any], subject: str) -> Any:
    return kind(**chosen_options(subject, options_of(kind), values))


def _variant(values: Any, table: str, key: str, kinds: Mapping[str, Callable[..., Any]]) -> Any:
    """What a table describes of which ``key`` says the kind."""
    if not isinstance(values, dict) or values.get(key) not in kinds:
        came = values.get(key) if isinstance(values, dict) else values
        raise ValueError(f"[{table}] has {key} = {came!r}; it must be one of {', '.join(kinds)}.")
    own = {name: value for name, value in values.items() if name != key}
    return _built(kinds[values[key]], own, f"[{table}] with {key} = {values[key]!r}")


def _rewards(found: Any) -> tuple[RewardSettings, ...]:
    terms = found if isinstance(found, list) else [found]
    if not terms or not all(isinstance(term, dict) and "name" in term for term in terms):
        raise ValueError("[reward] needs a name, as has each table of a list [[reward]].")
    return tuple(_reward(dict(term)) for term in terms)


def _reward(term: dict[str, Any]) -> RewardSettings:
    name, weight = term.pop("name"), term.pop("weight", 1.0)
    if type(weight) not in (int, float) or not math.isfinite(weight):
        raise ValueError(f"The weight of the reward {name!r} is {weight!r}; it must be a number.")
    kind = get_reward(str(name))
    chosen_options(f"The reward {kind.name!r}", kind.options, term)
    return RewardSettings(kind.name, float(weight), term)


# -------------------------------------------------------------------------------------- as text


def plain(config: FinetuneConfig) -> dict[str, Any]:
    """The settings as plain values, by dotted names."""
    found: dict[str, Any] = {}
    _flatten({**asdict(config), "adjoint": str(config.adjoint)}, "", found)
    kind = type(config.optimised).__name__.lower()
    values: dict[str, Any] = json.loads(json.dumps({"optimise.what": kind, **found}, default=str))
    return values


def _flatten(value: Any, name: str, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}" if name else key, found)
    else:
        found[name] = value
