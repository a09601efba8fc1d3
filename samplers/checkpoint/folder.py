"""The folder of a checkpoint, read and checked without loading weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open

from samplers.checkpoint.index import INDEX, CheckpointError, read_index, read_json
from samplers.diffusers.config import read_config
from samplers.diffusers.settings import SchedulerSettings

Read = TypeVar("Read")

_PACKAGES = ("diffusers", "transformers")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SCHEDULER = "scheduler/scheduler_config.json"
_OF_THE_SAVING = ("_diffusers_version", "_name_or_path", "_commit_hash", "_use_default_values")


class Identity(NamedTuple):
    """Which model a folder holds: what results depend on, and store.

    Attributes:
        weights_sha256: of every file of weights, by its path in the folder.
        configs_sha256: of what the index and the config of each component say.
        scheduler: the config of the scheduler.
    """

    weights_sha256: dict[str, str]
    configs_sha256: dict[str, str]
    scheduler: dict[str, Any]

    @property
    def weights_hash(self) -> str:
        """One SHA-256 that stands for all files of weights."""
        files = sorted(self.weights_sha256.items())
        return hashlib.sha256(repr(files).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Folder:
    """A checked folder that diffusers saved.

    Attributes:
        index: its ``model_index.json``.
        scheduler: the config of its scheduler.
        settings: the noise schedule and the prediction type in it.
        weight_files: every file of weights that will be loaded.
    """

    path: Path
    index: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    settings: SchedulerSettings
    weight_files: tuple[Path, ...]

    def class_of(self, component: str) -> str | None:
        """The class name of a component, or None if there is no such component."""
        entry = self.index.get(component)
        if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
            return None
        return str(entry[1])

    def omitted(self) -> list[str]:
        """The components that the pipeline was saved without."""
        return [name for name, entry in self.index.items() if entry == [None, None]]

    def libraries(self) -> set[str]:
        """The packages that the component classes belong to."""
        return {str(entry[0]) for entry in self.index.values() if isinstance(entry, list)}

    def files_of(self, component: str) -> list[Path]:
        """The files of weights of one component."""
        return [file for file in self.weight_files if file.parent == self.path / component]

    def identity(self) -> Identity:
        """Which model this is; reads all weights, for what they hash to."""
        weights = {str(file.relative_to(self.path)): _sha256(file) for file in self.weight_files}
        configs = sorted({file.with_name("config.json") for file in self.weight_files})
        # The scheduler's class is a setting of sampling; it is in its own config.
        index = {name: entry for name, entry in self.index.items() if name != "scheduler"}
        said = {INDEX: index} | {str(c.relative_to(self.path)): read_json(c) for c in configs}
        hashes = {name: _sha256_of_keys(keys) for name, keys in said.items()}
        return Identity(weights, hashes, _own_keys(self.scheduler))


def read_folder(path: Path, allow_pickle: bool) -> Folder:
    """Read a folder; CheckpointError if a file is missing, truncated or not allowed.

    Args:
        allow_pickle: whether weights may come from a pickle where there are no safetensors.
    """
    index, scheduler = read_index(path), _read_scheduler(path)
    components = read_components(path, index)
    files = tuple(file for name in components for file in _component_files(path / name))
    _check_files(files, allow_pickle)
    return Folder(path, index, scheduler, read_settings(path), files)


def read_components(path: Path, index: Mapping[str, Any]) -> list[str]:
    """The components with weights; CheckpointError if a folder or a config is missing."""
    for name, entry in index.items():
        if _is_component(entry) and not (path / name).is_dir():
            raise CheckpointError(f"{path} lacks its {name}: there is no folder {path / name}.")
    configs = sorted(path.glob("*/config.json"))
    components = [config.parent.name for config in configs if config.parent.name in index]
    for name in components:
        read_json(path / name / "config.json")  # else diffusers would take it for a name on the hub
        if not isinstance(index[name], list):
            raise CheckpointError(
                f"{path} has no class for its {name}: {INDEX} says {index[name]!r}, and it must be "
                "a list of a package and a class."
            )
    return components


def _is_component(entry: Any) -> bool:
    """Whether it is a package and a class, rather than a setting such as a list of two tasks."""
    return isinstance(entry, list) and len(entry) == 2 and entry[0] in _PACKAGES


def read_settings(path: Path) -> SchedulerSettings:
    """Read the noise schedule and the prediction type of a checkpoint; reads no weights."""
    return read_scheduler(path, read_config)


def read_scheduler(path: Path, read: Callable[[Mapping[str, Any]], Read]) -> Read:
    """What a function reads in the config of a checkpoint's scheduler.

    Raises CheckpointError for a config of which it makes nothing.
    """
    read_index(path)
    try:
        return read(_read_scheduler(path))
    except (ValueError, TypeError) as error:
        config = path / _SCHEDULER
        raise CheckpointError(f"The scheduler in {config} can't be used: {error}") from error


def _read_scheduler(path: Path) -> dict[str, Any]:
    config = path / _SCHEDULER
    if not config.is_file():
        raise CheckpointError(f"{path} has no noise schedule: {config} is missing.")
    return read_json(config)


# --------------------------------------------------------------------------- files of weights


def is_pickle(file: Path) -> bool:
    """Whether a file of weights is a pickle, by its name."""
    return file.suffix in _PICKLES


def _component_files(folder: Path) -> list[Path]:
    for suffixes in ((".safetensors",), _PICKLES):
        found = sorted(file for file in folder.iterdir() if file.suffix in suffixes)
        # A second dot marks a variant, such as model.fp16.safetensors, which is not loaded.
        plain = [file for file in found if "." not in file.stem]
        if plain:
            return plain
    raise CheckpointError(f"{folder} has no weights: no .safetensors file is in it.")


def _check_files(files: tuple[Path, ...], allow_pickle: bool) -> None:
    pickles = [file for file in files if is_pickle(file)]
    if pickles and not allow_pickle:
        raise CheckpointError(
            f"{pickles[0]} is a pickle, which can run code when loaded, and there are no "
            "safetensors beside it; if you trust its source, pass --allow-pickle."
        )
    for file in files:
        if file not in pickles:
            _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is no whole safetensors file ({error}); fetch or export it again."
        ) from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_of_keys(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_own_keys(config), sort_keys=True).encode()).hexdigest()


def _own_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config without those of the program that saved it, such as its version."""
    return {name: value for name, value in config.items() if name not in _OF_THE_SAVING}
