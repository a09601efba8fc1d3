"""Tuned samplers and fitted grids on the command line: files in the place of a name.

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
from samplers.fitting import FittedGrid, load_grid
from samplers.registry import get_sampler
from samplers.tuning import TunedError, TunedSampler, load_sampler

_SUFFIX = ".json"

Kept = TunedSampler | FittedGrid
"""What a file NAME.json may hold."""


def load_kept(path: Path | str) -> Kept:
    """Read a tuned sampler or a fitted grid from its file; TunedError for another file."""
    try:
        return load_sampler(path)
    except TunedError:
        with suppress(TunedError):
            return load_grid(path)
        raise


def is_folder(name: str) -> bool:
    """Whether it is a folder, and not also the name of a sampler."""
    if not Path(name).is_dir():
        return False
    try:
        get_sampler(name)
    except ValueError:
        return True
    return False


def fitted_of(name: str) -> FittedGrid | None:
    """The fitted grid of a file NAME.json; None for all else."""
    with suppress(TunedError):
        own = load_kept(name) if name.endswith(_SUFFIX) else None
        return own if isinstance(own, FittedGrid) else None
    return None


def loaded_grid(name: str) -> FittedGrid:
    """The fitted grid of a file; ValueError if it holds a tuned sampler."""
    try:
        return load_grid(name)
    except TunedError:
        with suppress(TunedError):
            load_sampler(name)
            raise ValueError(
                f"{name} is a tuned sampler, which has its own noise levels; pass it as --sampler."
            ) from None
        raise


def chosen_sampler(name: str) -> str | TunedSampler:
    """A sampler of fixed steps by the registry's name, or a tuned one from its file."""
    return tuned_sampler(name) or fixed_sampler(name)


def tuned_sampler(name: str | None) -> TunedSampler | None:
    """The tuned sampler of a file NAME.json; None for other names.

    Raises ValueError for a folder, or if the file holds a fitted grid.
    """
    if name is None:
        return None
    if is_folder(name):
        raise ValueError(
            f"{name} is a folder; name one of its files, which `samplers list {name}` lists."
        )
    if not name.endswith(_SUFFIX):
        return None
    fitted = fitted_of(name)
    if fitted is not None:
        raise ValueError(
            f"{name} is a fitted grid, for the sampler {fitted.about['sampler']!r}; pass it as "
            "--grid."
        )
    return load_sampler(name)


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


def kept_in(folder: Path) -> dict[Path, Kept]:
    """The tuned samplers, and then the fitted grids, of a folder and those in it, by file.

    Other files are passed over. Raises ValueError for a file, OSError if there is no such folder.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file; name its folder, or print it by `samplers show`.")
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no folder {folder}.")
    found = {}
    for path in sorted([*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*/*{_SUFFIX}")]):
        with suppress(TunedError):
            found[path] = load_kept(path)
    return dict(sorted(found.items(), key=_place))


def _place(found: tuple[Path, Kept]) -> tuple[bool, Path, int]:
    """Where it stands in a list: by kind, folder and number of steps."""
    path, own = found
    return isinstance(own, FittedGrid), path.parent, own.steps


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
