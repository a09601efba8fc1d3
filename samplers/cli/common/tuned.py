"""Tuned samplers on the command line: files in the place of a sampler's name.

Importing this imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from samplers.checkpoint.folder import read_folder
from samplers.cli.common.errors import printed_warnings
from samplers.cli.common.values import fixed_sampler
from samplers.diffusers.loop import sampler_of
from samplers.tuning import TunedError, TunedSampler, load_sampler

_SUFFIX = ".json"


def chosen_sampler(name: str) -> str | TunedSampler:
    """A sampler of fixed steps by the registry's name, or a tuned one from its file."""
    return tuned_sampler(name) or fixed_sampler(name)


def tuned_sampler(name: str | None) -> TunedSampler | None:
    """The tuned sampler of a file NAME.json; None for other names."""
    return load_sampler(name) if name is not None and name.endswith(_SUFFIX) else None


def tuned_of(
    options: object, sampler: str | TunedSampler, *others: Mapping[str, str]
) -> TunedSampler | None:
    """The tuned sampler of a file NAME.json, or the checkpoint's own; None for other names.

    Raises ValueError for options that it does not have: those of grids, and others.
    """
    if not isinstance(sampler, str):
        refuse_of_grids(options, *others)
        return sampler
    if sampler.endswith(_SUFFIX):
        refuse_of_grids(options, *others)
    return tuned_sampler(sampler)


def tuned_in(folder: Path) -> dict[Path, TunedSampler]:
    """The tuned samplers of a folder, by file; other files are passed over.

    Raises OSError if there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder {folder}.")
    found = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        with suppress(TunedError):
            found[path] = load_sampler(path)
    return dict(sorted(found.items(), key=lambda pair: pair[1].nfe))


def refuse(options: object, names: Mapping[str, str], why: str) -> None:
    """Raise ValueError if an option is given that the sampler does not have.

    Args:
        names: of the options on the command line, by field.
    """
    for name, written in names.items():
        if getattr(options, name, None):
            raise ValueError(f"{written} is not for this sampler: {why}.")


def refuse_of_grids(options: object, *others: Mapping[str, str]) -> None:
    """Raise ValueError for settings of a grid, or of others, which no tuned sampler has."""
    names = {name: written for group in (_OF_GRIDS, *others) for name, written in group.items()}
    refuse(options, names, "a tuned sampler has its own steps and noise levels")


_OF_GRIDS = {
    "steps": "--steps",
    "grid": "--grid",
    "options": "--option",
    "noise": "--noise",
    "sigma_min": "--sigma-min",
    "sigma_max": "--sigma-max",
    "final": "--final",
}


def check_purpose(
    config: Mapping[str, Any], checkpoint: Path, guidance: float | None = None
) -> None:
    """Print a warning if a scheduler's sampler was tuned for other weights or guidance.

    Args:
        config: of the scheduler.
        checkpoint: the folder with the weights.
    """
    own = sampler_of(config)
    if isinstance(own, TunedSampler):
        weights = read_folder(checkpoint, allow_pickle=False).identity().weights_hash
        with printed_warnings():
            own.check_purpose(weights, guidance)


def noted(config: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """What results store of the sampler of a scheduler's config.

    Args:
        name: as it was given on the command line.
    """
    own = sampler_of(config)
    if isinstance(own, TunedSampler):
        return noted_tuned(own, name or "tuned")
    return {"sampler": config["sampler"], "options": dict(config["sampler_options"] or {})}


def noted_tuned(tuned: TunedSampler, name: str) -> dict[str, Any]:
    """What results store of a tuned sampler."""
    return {"sampler": name, "tuned_sha256": tuned.digest}
